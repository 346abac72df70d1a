import { expect } from 'vitest'
import type { z } from 'zod'
import { type Queryable, sql } from '../../src/platform/db/db.ts'
import { ErrorAnswer } from '../../src/platform/http/answers.ts'
import { serverEvents } from '../../src/protocol/events.ts'
import type { Client } from '../client/client.ts'
import type { Account, Answer, TestServers } from './server.ts'

/** What tests of behaviour check of every answer and every event, so that no test has to say it again. */

/** `value` is what the schema says and nothing more: zod drops what it does not know, at any depth. */
export function exact<S extends z.ZodType>(schema: S, value: unknown): z.infer<S> {
  const known = schema.parse(value)
  expect(value).toEqual(known)
  return known
}

/** The body of an answer that is expected to be all right. */
export async function ok<S extends z.ZodType>(answer: Promise<Answer>, schema: S, status = 200): Promise<z.infer<S>> {
  const { status: given, body } = await answer
  // (An invite link has a `code`, too.)
  expect([given, given < 400 ? undefined : body.code, body.details]).toEqual([status, undefined, undefined])
  return exact(schema, body)
}

/** The status and code of an answer that is expected to be a refusal: `404 chat_not_found`. */
export async function refusal(answer: Promise<Answer>): Promise<string> {
  const { status, body } = await answer
  if (status < 400) return `${status}, which is no refusal`
  exact(ErrorAnswer, body)
  expect(JSON.stringify(body)).not.toMatch(/SELECT|\.ts|node_modules/)
  return `${status} ${body.code}`
}

/** REST by its verbs; `servers` is asked for late, since it starts before the first test. */
export const rest = (servers: () => TestServers) => ({
  get: (as: Account, path: string, at = 0) => servers().call('GET', path, { as, at }),
  post: (as: Account, path: string, body?: unknown, at = 0) => servers().call('POST', path, { as, body, at }),
  patch: (as: Account, path: string, body: unknown, at = 0) => servers().call('PATCH', path, { as, body, at }),
  put: (as: Account, path: string, body?: unknown, at = 0) => servers().call('PUT', path, { as, body, at }),
  remove: (as: Account, path: string, at = 0) => servers().call('DELETE', path, { as, at }),
  /** As many new accounts; destructured, each is there. */
  people: async (count: number) => (await Promise.all(Array.from({ length: count }, () => servers().register()))) as People,
})

type People = [Account, Account, Account, Account, Account, ...Account[]]

/** An id that nobody and nothing has. */
export const nobody = '018f0000-0000-7000-8000-000000000000'

/** A connected client each of whose events is checked against the protocol. */
export async function connect(servers: TestServers, account: Account, options: { at?: number; reconnect?: boolean } = {}) {
  const client = servers.client(account, options)
  client.onEvent = (event) => void exact(serverEvents[event.type], event)
  return client.connect()
}

/** Chat events of this chat that took a version, as `[version, prev]`. */
export const stamps = (client: Client, chatId: string): [number, number][] =>
  client.events.flatMap((e) => ('prev' in e && e.chat_id === chatId ? [[e.version, e.prev] as [number, number]] : []))

/** Contents of the messages that were told live, in the order in which they came. */
export const heard = (client: Client, chatId: string): string[] =>
  client.events.flatMap((e) => (e.type === 'new_message' && e.chat_id === chatId ? [e.message.content] : []))

interface Totals {
  deleted: boolean
  owner_id: string | null
  type: string
  last_seq: number
  version: number
  member_count: number
  active: number
  owners: string[]
  messages: number
  newest: number
  stamped: number
  distinct: number
  latest: number
}

/** What always holds of a chat in the database, whatever happened at once. */
export async function checkChat(db: Queryable, chatId: string): Promise<Totals> {
  const [row] = await db.query<Totals>(sql`
    WITH stamps AS (
      SELECT version FROM messages WHERE chat_id = ${chatId} UNION ALL SELECT version FROM chat_members WHERE chat_id = ${chatId} AND version > 0 AND NOT (role = 'subscriber' AND left_at IS NOT NULL)
      UNION ALL SELECT version FROM chats WHERE id = ${chatId} AND version > 0
    )
    SELECT c.deleted_at IS NOT NULL AS deleted, c.owner_id, c.type, k.last_seq, k.version, k.member_count,
      (SELECT count(*) FROM chat_members WHERE chat_id = c.id AND left_at IS NULL) AS active,
      ARRAY(SELECT user_id::text FROM chat_members WHERE chat_id = c.id AND left_at IS NULL AND role = 'owner') AS owners,
      (SELECT count(*) FROM messages WHERE chat_id = c.id) AS messages,
      (SELECT coalesce(max(seq), 0) FROM messages WHERE chat_id = c.id) AS newest,
      (SELECT count(*) FROM stamps) AS stamped, (SELECT count(DISTINCT version) FROM stamps) AS distinct,
      (SELECT max(version) FROM stamps) AS latest
    FROM chats c JOIN chat_counters k ON k.chat_id = c.id WHERE c.id = ${chatId}`)
  const t = row!
  expect({ members: t.member_count, messages: t.messages, newest: t.newest, distinct: t.distinct, latest: t.latest }).toEqual({
    members: t.active,
    messages: t.last_seq,
    newest: t.last_seq,
    distinct: t.stamped,
    latest: t.version,
  })
  if (t.type === 'group') expect(t.owners).toEqual([t.owner_id])
  return t
}
