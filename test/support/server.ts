import { randomBytes } from 'node:crypto'
import { createServer } from '../../src/app.ts'
import { readConfig } from '../../src/config.ts'
import { type Overrides, openContext } from '../../src/context.ts'
import { createLog } from '../../src/platform/log.ts'
import { Client } from '../client/client.ts'
import { createDatabase, redisUrl } from './services.ts'
import { scratch } from './tools.ts'

/** Whole servers in this process, on a database of their own: one without Redis, or several over one Redis. */

export interface Account {
  id: string
  username: string
  token: string
  refresh_token: string
}

export interface Answer<T = Record<string, unknown>> {
  status: number
  headers: Headers
  body: T & { code?: string; error?: string; details?: Record<string, string> }
}

export interface StartOptions {
  /** How many instances; more than one need Redis. */
  instances?: number
  redis?: boolean | string
  env?: Record<string, string>
  overrides?: (instance: number) => Overrides
}

export type TestServers = Awaited<ReturnType<typeof startServers>>

let accounts = 0

const isJson = ({ headers }: Response) => headers.get('content-type')?.startsWith('application/json') === true

export async function startServers({ instances = 1, redis = instances > 1, env = {}, overrides }: StartOptions = {}) {
  const [database, folder] = await Promise.all([createDatabase(), scratch('servers')])
  const prefix = `t${randomBytes(6).toString('hex')}:`
  const all = {
    PORT: '0',
    DATA_DIR: folder.dir,
    DATABASE_URL: database.url,
    JWT_SECRET: 'a secret for tests that is long enough',
    BCRYPT_COST: '4',
    LOG_LEVEL: 'fatal',
    RATE_LIMIT_GENERAL: 'off',
    RATE_LIMIT_REGISTER: 'off',
    RATE_LIMIT_MESSAGE: 'off',
    RATE_LIMIT_CONTACT: 'off',
    RATE_LIMIT_FRAME: 'off',
    ...(redis && { REDIS_URL: redis === true ? redisUrl() : redis, REDIS_PREFIX: prefix }),
    ...env,
  }
  const start = async (n: number) => {
    const context = await openContext({
      config: readConfig(all),
      overrides: { log: createLog(all.LOG_LEVEL), ...overrides?.(n) },
      onFatal: (why) => {
        throw new Error(why)
      },
    })
    const server = await createServer(context)
    const url = await server.app.listen({ host: '127.0.0.1', port: 0 })
    return {
      url,
      context,
      server,
      async close() {
        await server.close()
        await context.close()
      },
    }
  }
  const running: Awaited<ReturnType<typeof start>>[] = []
  for (let n = 0; n < instances; n += 1) running.push(await start(n))
  const clients: Client[] = []

  /** One REST call to instance `n`; a body is JSON, or a form. */
  async function call<T = Record<string, unknown>>(
    method: string,
    path: string,
    options: { as?: Account | undefined; body?: unknown; at?: number; token?: string; headers?: Record<string, string> } = {},
  ): Promise<Answer<T>> {
    const token = options.token ?? options.as?.token
    const isForm = options.body instanceof FormData
    const response = await fetch(
      `${running[options.at ?? 0]!.url}${path.startsWith('/health') || path.startsWith('/metrics') ? '' : '/api/v1'}${path}`,
      {
        method,
        headers: {
          ...options.headers,
          ...(token !== undefined && { authorization: `Bearer ${token}` }),
          ...(options.body !== undefined && !isForm && { 'content-type': 'application/json' }),
        },
        ...(options.body !== undefined && { body: isForm ? (options.body as FormData) : JSON.stringify(options.body) }),
      },
    )
    const text = await response.text()
    return { status: response.status, headers: response.headers, body: isJson(response) ? JSON.parse(text) : {} }
  }

  async function register(name = 'user'): Promise<Account> {
    accounts += 1
    const username = `${name}_${accounts}`
    const { status, body } = await call<{ user_id: string; token: string; refresh_token: string }>('POST', '/auth/register', {
      body: { username, password: 'Secret123' },
    })
    if (status !== 201) throw new Error(`register: ${status} ${JSON.stringify(body)}`)
    return { id: body.user_id, username, token: body.token, refresh_token: body.refresh_token }
  }

  async function login(account: Account, at = 0): Promise<Account> {
    const { body } = await call<{ token: string; refresh_token: string }>('POST', '/auth/login', {
      body: { login: account.username, password: 'Secret123' },
      at,
    })
    return { ...account, token: body.token, refresh_token: body.refresh_token }
  }

  /** A client of this account, not yet connected. */
  function client(
    account: Account,
    { at = 0, reconnect = false, over }: { at?: number; reconnect?: boolean; over?: 'socket' | 'events' } = {},
  ): Client {
    const made = new Client({ url: running[at]!.url, userId: account.id, token: () => account.token, reconnect, over })
    clients.push(made)
    return made
  }

  const connect = (account: Account, options: { at?: number; reconnect?: boolean } = {}) => client(account, options).connect()

  async function dm(a: Account, b: Account): Promise<string> {
    const { body } = await call<{ id: string }>('GET', `/chats/dm/${b.id}`, { as: a })
    return body.id
  }

  async function group(owner: Account, members: readonly Account[], name = 'Group'): Promise<string> {
    const { status, body } = await call<{ id: string }>('POST', '/chats', {
      as: owner,
      body: { type: 'group', name, member_ids: members.map((m) => m.id) },
    })
    if (status !== 201) throw new Error(`group: ${status} ${JSON.stringify(body)}`)
    return body.id
  }

  return {
    instances: running,
    databaseUrl: database.url,
    call,
    register,
    login,
    client,
    connect,
    dm,
    group,
    async close() {
      for (const open of clients) open.close()
      await Promise.all(running.map((instance) => instance.close()))
      await Promise.all([database.drop(), folder.remove()])
    },
  }
}
