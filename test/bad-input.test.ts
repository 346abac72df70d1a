import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { sql } from '../src/platform/db/db.ts'
import { type ErrorCode, errorCodes, errors } from '../src/protocol/errors.ts'
import { type Bad, badRequests, fill } from './support/mutations.ts'
import { type Document, loadDocument, type Operation, operationsOf } from './support/openapi.ts'
import { type Account, startServers, type TestServers } from './support/server.ts'

/** Every route against every kind of bad input that its own description allows to think of. */

let servers: TestServers
let document: Document
let operations: Operation[]
let anna: Account
let ben: Account
let group: string
let message: string

beforeAll(async () => {
  servers = await startServers()
  document = await loadDocument(servers.instances[0]!.url)
  operations = operationsOf(document)
  ;[anna, ben] = [await servers.register('anna'), await servers.register('ben')]
  group = await servers.group(anna, [ben])
  const sent = await servers.call<{ id: string }>('POST', '/messages', { as: anna, body: { chat_id: group, content: 'hello' } })
  message = sent.body.id
})
afterAll(() => servers.close())

/** Ids by the names that fields have. */
const known = (operation: Operation) => ({
  id: operation.path.startsWith('/messages') ? message : operation.path.startsWith('/users') ? ben.id : group,
  chat_id: group,
  message_id: message,
  reply_to_id: message,
  user_id: ben.id,
  member_id: ben.id,
  client_id: crypto.randomUUID(),
  emoji: '%F0%9F%91%8D',
})

interface Refusal {
  status: number
  headers: Headers
  text: string
}

async function send(
  operation: Operation,
  { path, body }: Bad,
  token: string | undefined,
  type = 'application/json',
): Promise<Refusal> {
  const response = await fetch(`${servers.instances[0]!.url}/api/v1${path}`, {
    method: operation.method,
    headers: {
      ...(token !== undefined && { authorization: `Bearer ${token}` }),
      ...(body !== undefined && { 'content-type': type }),
    },
    ...(body !== undefined && { body: body as string }),
  })
  return { status: response.status, headers: response.headers, text: await response.text() }
}

/** What is wrong with the form of this refusal; nothing, one hopes. */
function flaw({ status, headers, text }: Refusal): string | undefined {
  let body: { error?: unknown; code?: ErrorCode; details?: Record<string, string>; request_id?: unknown }
  try {
    body = JSON.parse(text)
  } catch {
    return 'no JSON'
  }
  const { error, code, details, request_id, ...rest } = body
  if (code === undefined || !errorCodes.includes(code)) return `code ${code}`
  if (errors[code][0] !== status) return `${code} with ${status}`
  if (error !== errors[code][1]) return `error ${error}`
  if (typeof request_id !== 'string' || request_id === '' || request_id !== headers.get('x-request-id')) return 'request_id'
  if (Object.keys(rest).some((key) => key !== 'retry_after')) return `more: ${Object.keys(rest)}`
  if (details !== undefined && code !== 'invalid_input') return 'details'
  if (details && Object.values(details).some((why) => typeof why !== 'string' || why === '')) return 'details'
  if (/node_modules|\bat \/|SELECT|INSERT|pg_|\.ts:/.test(text)) return 'tells of the inside'
  return undefined
}

/** All of them, a few at a time. */
async function each<T>(all: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const waiting = [...all]
  await Promise.all(
    Array.from({ length: 8 }, async () => {
      for (let item = waiting.shift(); item !== undefined; item = waiting.shift()) await work(item)
    }),
  )
}

const standing = async () => {
  const { body } = await servers.call<{ version: number; last_seq: number; name: string }>('GET', `/chats/${group}`, { as: anna })
  const chats = await servers.call<{ count: number }>('GET', '/chats', { as: anna })
  return [body.version, body.last_seq, body.name, chats.body.count]
}

describe('contacts, chats, messages, sync, search', () => {
  const mine = () =>
    operations.filter((operation) =>
      operation.tags.some((tag) => ['contacts', 'chats', 'messages', 'sync', 'search'].includes(tag)),
    )

  test('bad input is 400, in the one form of an error, and changes nothing', async () => {
    const before = await standing()
    const wrong: string[] = []
    let count = 0
    for (const operation of mine()) {
      await each(badRequests(document, operation, known(operation)), async (bad) => {
        const answer = await send(operation, bad, anna.token)
        count += 1
        const why = answer.status === 400 ? flaw(answer) : `status ${answer.status}`
        if (why !== undefined) wrong.push(`${operation.name} with ${bad.what}: ${why} ${answer.text.slice(0, 200)}`)
      })
    }
    expect(wrong).toEqual([])
    console.log(`bad input: ${count} requests to ${mine().length} routes`)
    expect(count).toBeGreaterThan(500)
    expect(await standing()).toEqual(before)
  }, 60_000)

  test('another content type is 415, more than a megabyte 413', async () => {
    for (const operation of mine().filter(({ body }) => body !== undefined)) {
      const path = fill(operation, known(operation))
      for (const type of [
        'text/plain',
        'application/x-www-form-urlencoded',
        'multipart/form-data; boundary=x',
        'application/xml',
      ]) {
        const answer = await send(operation, { what: type, path, body: '{}' }, anna.token, type)
        expect([answer.status, flaw(answer)], `${operation.name} ${type}`).toEqual([415, undefined])
      }
      const answer = await send(operation, { what: 'large', path, body: `{"x":"${'x'.repeat(1_048_577)}"}` }, anna.token)
      expect([answer.status, flaw(answer)], operation.name).toEqual([413, undefined])
    }
  })
})

test('accounts and profiles: bad input is refused in the one form, whatever it is', async () => {
  const wrong: string[] = []
  const theirs = operations.filter((operation) => operation.tags.some((tag) => ['auth', 'users', 'admin'].includes(tag)))
  const own = await servers.register('own')
  await servers.instances[0]!.context.db.query(sql`UPDATE users SET is_admin = true WHERE id = ${own.id}`)
  for (const operation of theirs) {
    await each(badRequests(document, operation, known(operation)), async (bad) => {
      const answer = await send(operation, bad, own.token)
      const why = answer.status >= 400 && answer.status < 500 ? flaw(answer) : `status ${answer.status}`
      if (why !== undefined) wrong.push(`${operation.name} with ${bad.what}: ${why} ${answer.text.slice(0, 200)}`)
    })
  }
  expect(wrong).toEqual([])
}, 60_000)

test('channels, slugs and links: whatever is asked is answered, and bad input changes nothing', async () => {
  const wrong: string[] = []
  const theirs = operations.filter(({ tags }) => tags.includes('channels'))
  expect(theirs.length).toBeGreaterThan(8)
  const before = await standing()
  const { body: link } = await servers.call<{ code: string }>('POST', `/chats/${group}/invites`, { as: anna, body: {} })
  for (const operation of theirs) {
    await each(badRequests(document, operation, { ...known(operation), code: link.code, slug: 'no-slug' }), async (bad) => {
      const answer = await send(operation, bad, anna.token)
      // An empty `q` lists all, and what has the form of a slug may be none.
      const isFine = answer.status === 200 && bad.path.endsWith('?q=')
      const why = isFine ? undefined : answer.status === 400 || answer.status === 404 ? flaw(answer) : `status ${answer.status}`
      if (why !== undefined) wrong.push(`${operation.name} with ${bad.what}: ${why} ${answer.text.slice(0, 200)}`)
    })
  }
  expect(wrong).toEqual([])
  expect(await standing()).toEqual(before)
}, 60_000)
