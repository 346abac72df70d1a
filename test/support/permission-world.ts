import type { Pool } from 'pg'
import { fill } from './mutations.ts'
import { type Document, type Operation, type Schema, sample } from './openapi.ts'
import type { Person } from './permissions.ts'
import { pictureForm } from './pictures.ts'
import type { Account, TestServers } from './server.ts'

/** People and their things, at which the others aim. */

export interface World {
  who: Record<Person | 'owner' | 'admin', Account>
  aims: Record<Person, Aims>
}

/** Ids by the names that paths and bodies have for them. */
type Aims = Record<
  | 'chat'
  | 'message'
  | 'person'
  | 'session'
  | 'request'
  | 'code'
  | 'channel'
  | 'public'
  | 'slug'
  | 'elsewhere'
  | 'target'
  | 'admission'
  | 'picture',
  string
>

export async function createWorld(servers: TestServers): Promise<World> {
  const made = await Promise.all(
    ['owner', 'admin', 'stranger', 'former', 'blocked', 'member'].map((name) => servers.register(name)),
  )
  const [owner, admin, stranger, former, blocked, member] = made as [Account, Account, Account, Account, Account, Account]
  async function did<T>(method: string, path: string, as: Account, body?: object): Promise<T> {
    const answer = await servers.call<T>(method, path, { as, ...(body && { body }) })
    if (answer.status >= 400) throw new Error(`${method} ${path}: ${answer.status} ${JSON.stringify(answer.body)}`)
    return answer.body
  }
  const say = async (as: Account, chat_id: string) =>
    (await did<{ id: string }>('POST', '/messages', as, { chat_id, content: 'mine' })).id
  const group = await servers.group(owner, [admin, former, member])
  await did('PATCH', `/chats/${group}/members/${admin.id}`, owner, { role: 'admin' })
  await did('PATCH', `/chats/${group}/members/${former.id}`, owner, { role: 'admin' })
  const { code } = await did<{ code: string }>('POST', `/chats/${group}/invites`, former, {})
  const [theirs, formers, dm] = [await say(owner, group), await say(former, group), await servers.dm(blocked, owner)]
  const inDm = await say(blocked, dm)
  const channel = async (is_public: boolean, slug?: string) =>
    (await did<{ id: string }>('POST', '/channels', owner, { name: 'Channel', is_public, ...(slug && { slug }) })).id
  const slug = `s${group.slice(-12)}`
  const [secret, known] = [await channel(false), await channel(true, slug)]
  const link = await did<{ code: string }>('POST', `/chats/${secret}/invites`, owner, {})
  for (const who of [former, member]) await did('POST', `/invites/${link.code}/join`, who)
  await did('DELETE', `/chats/${secret}/members/${former.id}`, owner)
  await did('DELETE', `/chats/${group}/members/${former.id}`, owner)
  const { id: request } = await did<{ id: string }>('POST', '/contacts/requests', admin, { user_id: owner.id })
  await did('PUT', `/blocks/${blocked.id}`, owner)
  const { sessions } = await did<{ sessions: { id: string }[] }>('GET', '/auth/sessions', owner)
  const { avatar_url: picture } = await did<{ avatar_url: string }>('PUT', `/chats/${group}/avatar`, owner, await pictureForm())
  const all = {
    picture,
    person: owner.id,
    session: sessions[0]!.id,
    request,
    code,
    channel: secret,
    public: known,
    slug,
    admission: 'x',
  }
  const aims = async (as: Account, chat: string, message: string, target: string): Promise<Aims> => {
    const saved = await servers.dm(as, as)
    return { ...all, chat, message, target, elsewhere: await say(as, saved) }
  }
  return {
    who: { owner, admin, stranger, former, blocked, member },
    aims: {
      stranger: await aims(stranger, group, theirs, member.id),
      former: await aims(former, group, formers, member.id),
      blocked: await aims(blocked, dm, inDm, owner.id),
      member: await aims(member, group, theirs, admin.id),
    },
  }
}

/** `/api/v1/media/uploads/2026/11/21/….webp` as the parameters of its route. */
function partsOfPicture(url: string): Record<string, string> {
  const [year = '', month = '', day = '', name = ''] = url.split('/').slice(-4)
  return { year, month, day, name }
}

/** What the names in a path and a body stand for. `of`: the row's name, with its aim. */
function known(of: string, aims: Aims): Record<string, string> {
  const chat = of.endsWith('(a public channel)') ? aims.public : of.endsWith('(a channel)') ? aims.channel : aims.chat
  const elsewhere = of.endsWith('(to a chat of others)')
  const message = elsewhere ? aims.elsewhere : aims.message
  const [, path = ''] = of.split(' ')
  const kinds: [RegExp, string][] = [
    [/^\/messages/, message],
    [/^\/(users|admin\/users)/, aims.person],
    [/^\/auth\/sessions/, aims.session],
    [/^\/contacts\/requests/, aims.request],
  ]
  return {
    id: kinds.find(([pattern]) => pattern.test(path))?.[1] ?? chat,
    chat_id: chat,
    message_id: message,
    reply_to_id: message,
    user_id: /^\/chats\/\{id\}/.test(path) ? aims.target : aims.person,
    member_id: aims.person,
    code: path.startsWith('/admin') ? aims.admission : aims.code,
    slug: aims.slug,
    ...partsOfPicture(aims.picture),
    emoji: '👍',
    client_id: crypto.randomUUID(),
  }
}

/** The valid request of a row. */
export function requestOf(document: Document, operation: Operation, of: string, aims: Aims): { path: string; body: unknown } {
  const ids = known(of, aims)
  const escaped = Object.fromEntries(Object.entries(ids).map(([name, value]) => [name, encodeURIComponent(value)]))
  const query = operation.parameters.filter((p) => p.in === 'query' && p.required).map((p) => `${p.name}=abc`)
  if (of.endsWith('(in a chat of others)')) query.push(`chat_id=${ids.chat_id}`)
  const path = fill(operation, escaped) + (query.length > 0 ? `?${query.join('&')}` : '')
  const body = operation.body && sample(document, operation.body, 'body', ids)
  // One change at least, where every field may be left out.
  const whole = operation.body && sample(document, operation.body, 'body', ids, true)
  return { path, body: body && Object.keys(body).length === 0 && operation.method === 'PATCH' ? whole : body }
}

export function commandOf(document: Document, type: string, payload: Schema, aims: Aims): Record<string, unknown> {
  return { ...(sample(document, payload, 'body', known(type, aims)) as object), type }
}

/** What using a session writes by itself. */
const passing = ['last_used_at', 'last_seen', 'confirmed_generation']

/** A hash of every table, by its name: what was refused left no trace in any of them. What is made of others in the background is left out. */
export async function fingerprint(sql: Pool): Promise<Record<string, string>> {
  const { rows: tables } = await sql.query<{ name: string }>(
    `SELECT tablename AS name FROM pg_tables WHERE schemaname = current_schema() AND tablename !~ '^(search_|login_failures$)' ORDER BY tablename`,
  )
  const parts = tables.map(
    ({ name }) =>
      `SELECT '${name}' AS name, md5(string_agg(line, ' ' ORDER BY line)) AS hash FROM (SELECT (to_jsonb(t) - '{${passing}}'::text[])::text AS line FROM "${name}" t) x`,
  )
  const { rows } = await sql.query<{ name: string; hash: string }>(parts.join(' UNION ALL '))
  return Object.fromEntries(rows.map(({ name, hash }) => [name, hash]))
}
