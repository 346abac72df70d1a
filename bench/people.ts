import { randomBytes } from 'node:crypto'

/** Accounts and chats, made through the public interface like anybody's. */

export interface Account {
  id: string
  token: string
}

const atOnce = 24
const run = randomBytes(4).toString('hex')
let made = 0

export async function each<In, Out>(
  items: readonly In[],
  work: (item: In, n: number) => Promise<Out>,
  width = atOnce,
): Promise<Out[]> {
  const out: Out[] = []
  let at = 0
  const worker = async () => {
    while (at < items.length) {
      const n = at
      at += 1
      out[n] = await work(items[n]!, n)
    }
  }
  await Promise.all(Array.from({ length: Math.min(width, items.length) }, worker))
  return out
}

export async function rest<T>(
  url: string,
  method: string,
  path: string,
  options: { token?: string; body?: unknown } = {},
): Promise<T> {
  const { token, body } = options
  const response = await fetch(`${url}/api/v1${path}`, {
    method,
    headers: {
      ...(token !== undefined && { authorization: `Bearer ${token}` }),
      ...(body !== undefined && { 'content-type': 'application/json' }),
    },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  })
  const text = await response.text()
  if (response.status === 429) throw new Error(`${method} ${path}: too many; start the server with RATE_LIMIT_*=off`)
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text.slice(0, 300)}`)
  return JSON.parse(text) as T
}

export function register(url: string, count: number): Promise<Account[]> {
  return each(Array.from({ length: count }), async () => {
    made += 1
    const body = { username: `bench_${run}_${made}`, password: 'Secret123' }
    const { user_id, token } = await rest<{ user_id: string; token: string }>(url, 'POST', '/auth/register', { body })
    return { id: user_id, token }
  })
}

export async function group(url: string, members: readonly Account[]): Promise<string> {
  const [owner, ...others] = members
  const body = { type: 'group', name: `Bench ${run}`, member_ids: others.map(({ id }) => id) }
  return (await rest<{ id: string }>(url, 'POST', '/chats', { token: owner!.token, body })).id
}

export async function dm(url: string, one: Account, other: Account): Promise<string> {
  return (await rest<{ id: string }>(url, 'GET', `/chats/dm/${other.id}`, { token: one.token })).id
}
