import { readFile, writeFile } from 'node:fs/promises'
import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { ErrorAnswer } from '../src/platform/http/answers.ts'
import { errors } from '../src/protocol/errors.ts'
import { Refused } from './client/client.ts'
import { exact } from './support/check.ts'
import { type Document, loadDocument, type Operation, operationsOf, type Schema } from './support/openapi.ts'
import { commandOf, createWorld, fingerprint, requestOf, type World } from './support/permission-world.ts'
import {
  commands,
  type Expected,
  open,
  operationOf,
  own,
  type Person,
  people,
  type Row,
  rest,
  rows,
} from './support/permissions.ts'
import { type Answer, startServers, type TestServers } from './support/server.ts'

/**
 * Every route and every command against everybody who is not meant: each gets the refusal of the table, which the document
 * knows, and nothing in the database has changed. The table has to have a row for whatever the documents have.
 */

interface Frames {
  operations: Record<string, { action: string; messages: { $ref: string }[] }>
  components: { messages: Record<string, { name: string; payload: Schema }>; schemas: Record<string, Schema> }
}

let servers: TestServers
let document: Document
let operations: Map<string, Operation>
let frames: Frames
let sql: pg.Pool
let world: World

beforeAll(async () => {
  servers = await startServers()
  document = await loadDocument(servers.instances[0]!.url)
  operations = new Map(operationsOf(document).map((operation) => [operation.name, operation]))
  frames = (await servers.call('GET', '/asyncapi.json')).body as unknown as Frames
  sql = new pg.Pool({ connectionString: servers.databaseUrl, max: 2 })
  world = await createWorld(servers)
})
afterAll(async () => {
  await sql.end()
  await servers.close()
})

const commandTypes = () =>
  Object.values(frames.operations)
    .filter(({ action }) => action === 'receive')
    .map(({ messages }) => frames.components.messages[messages[0]!.$ref.split('/').at(-1)!]!)

/** The row of a command: its own, or that of the operation of REST that it is twin to. */
function rowOf(type: string): Row | typeof own {
  const found = commands[type]
  if (typeof found !== 'string' || found === own) return found as Row | typeof own
  return Object.fromEntries(rows)[found] as Row
}

const tell = (place: string, missing: string[], surplus: string[]) => [
  ...missing.map((name) => `${name} is documented and has no row: add one to \`${place}\` in test/support/permissions.ts`),
  ...surplus.map((name) => `${name} has a row and is not documented: take it out of test/support/permissions.ts`),
]

test('everything that is documented has its row, and nothing else', () => {
  const named = new Set(rows.map(([name]) => operationOf(name)))
  const inRest = [...operations.keys()].filter((name) => !named.has(name))
  const gone = [...named].filter((name) => !operations.has(name))
  const types = commandTypes().map(({ name }) => name)
  const inCommands = types.filter((type) => commands[type] === undefined)
  const goneCommands = Object.keys(commands).filter((type) => !types.includes(type))
  expect([...tell('rest', inRest, gone), ...tell('commands', inCommands, goneCommands)]).toEqual([])
  const isOpen = new Map(rows.map(([name, row]) => [operationOf(name), row === open]))
  for (const { name, isPublic } of operations.values()) expect([name, isPublic]).toEqual([name, isOpen.get(name)])
})

/** What a refusal of this operation may be, by its document. */
const documented = (name: string, status: number): string[] => {
  const operation = operations.get(operationOf(name))!
  const responses = document.paths[`/api/v1${operation.path}`]![operation.method.toLowerCase()]!.responses
  const { description = '' } = (responses[String(status)] ?? {}) as { description?: string }
  return Array.from(description.matchAll(/`(\w+)`/g), (match) => match[1]!)
}

const expectedStatus = (expected: Expected) => (expected === 'ok' ? 'ok' : `${errors[expected][0]} ${expected}`)

async function ask(name: string, person: Person, of: World): Promise<string> {
  const operation = operations.get(operationOf(name))!
  const { path, body } = requestOf(document, operation, name, of.aims[person])
  const answer = await servers.call(operation.method, path, { as: of.who[person], ...(body !== undefined && { body }) })
  return answer.status < 400 ? 'ok' : said(name, answer)
}

/** The refusal, if it is one of those that the document knows, in the one form of an error. */
function said(name: string, { status, body }: Answer): string {
  exact(ErrorAnswer, body)
  const known = documented(name, status).includes(String(body.code)) ? '' : ', which is not documented'
  return `${status} ${body.code}${known}${body.details ? ` ${JSON.stringify(body.details)}` : ''}`
}

const aimed = () => rows.filter((entry): entry is [string, Row] => typeof entry[1] !== 'string')

test('REST: who is not meant is refused as documented, and nothing has changed', async () => {
  const wrong: string[] = []
  let before = await fingerprint(sql)
  for (const [name, row] of aimed()) {
    for (const person of people.filter((person) => row[person] !== 'ok')) {
      const got = await ask(name, person, world)
      if (got !== expectedStatus(row[person])) wrong.push(`${name}, ${person}: ${got}, expected ${row[person]}`)
    }
    const after = await fingerprint(sql)
    const changed = Object.keys(after).filter((table) => after[table] !== before[table])
    if (changed.length > 0) wrong.push(`${name} was refused and changed ${changed.join(', ')}`)
    before = after
  }
  expect(wrong).toEqual([])
}, 120_000)

test('REST: who is meant may', async () => {
  const wrong: string[] = []
  let here = await createWorld(servers)
  let isSpent = false
  for (const [name, row] of aimed()) {
    const allowed = people.filter((person) => row[person] === 'ok')
    // Who has come, gone or blocked somebody is in the way of the rows that follow.
    if (isSpent && allowed.length > 0) here = await createWorld(servers)
    isSpent = (isSpent && allowed.length === 0) || /^(DELETE|PUT)|\/(leave|join|subscribe)/.test(name)
    for (const person of allowed) {
      const got = await ask(name, person, here)
      if (got !== 'ok') wrong.push(`${name}, ${person}: ${got}, expected ok`)
    }
  }
  expect(wrong).toEqual([])
}, 180_000)

test('REST: who is signed out, or never was in, is nobody', async () => {
  const ended = await servers.register('ended')
  await servers.call('POST', '/auth/logout', { as: ended })
  const before = await fingerprint(sql)
  const wrong: string[] = []
  const names = new Map(rows.map(([name, row]) => [operationOf(name), row]))
  for (const [name, row] of names) {
    if (row === open) continue
    const operation = operations.get(name)!
    const { path, body } = requestOf(document, operation, name, world.aims.stranger)
    for (const [token, code] of [
      [undefined, 'unauthorized'],
      ['x.y.z', 'invalid_token'],
      [ended.token, 'session_ended'],
    ] as const) {
      const answer = await servers.call(operation.method, path, {
        ...(token !== undefined && { token }),
        ...(body !== undefined && { body }),
      })
      const got = answer.status < 400 ? 'ok' : said(name, answer)
      if (got !== `401 ${code}`) wrong.push(`${name}: ${got}, expected 401 ${code}`)
      if (!answer.headers.get('www-authenticate')?.includes('Bearer')) wrong.push(`${name}: no WWW-Authenticate`)
    }
  }
  expect(wrong).toEqual([])
  expect(await fingerprint(sql)).toEqual(before)
}, 60_000)

test('WebSocket: commands are refused as their twins of REST are, and nothing has changed', async () => {
  const clients = new Map(await Promise.all(people.map(async (who) => [who, await servers.connect(world.who[who])] as const)))
  const wrong: string[] = []
  const before = await fingerprint(sql)
  const asked = async (type: string, payload: Schema, person: Person) => {
    try {
      await clients.get(person)!.ask(commandOf(frames as unknown as Document, type, payload, world.aims[person]))
      return 'ok'
    } catch (error) {
      if (error instanceof Refused) return error.code
      throw error
    }
  }
  const all = commandTypes().map(({ name, payload }) => ({ type: name, payload, row: rowOf(name) }))
  for (const refused of [true, false]) {
    for (const { type, payload, row } of all) {
      if (typeof row === 'string') continue
      for (const person of people.filter((who) => (row[who] !== 'ok') === refused)) {
        const got = await asked(type, payload, person)
        if (got !== row[person]) wrong.push(`${type}, ${person}: ${got}, expected ${row[person]}`)
      }
    }
    if (refused) expect(await fingerprint(sql)).toEqual(before)
  }
  expect(wrong).toEqual([])
}, 60_000)

test('WebSocket: a session that has ended has no connection', async () => {
  const account = await servers.register('ending')
  const client = await servers.connect(account)
  await servers.call('POST', '/auth/logout', { as: account })
  expect(await client.waitForClose()).toBe(4001)
  const late = servers.client(account)
  await expect(late.connect()).rejects.toThrow()
  expect(await late.waitForClose()).toBe(4001)
})

// --- the page ----------------------------------------------------------------------------------------------------------

const page = new URL('../docs/permissions.md', import.meta.url)
const show = (expected: Expected) => (expected === 'ok' ? 'yes' : `\`${expected}\``)
const head =
  '| | who may | a stranger | a former member | somebody who is blocked | any other member |\n| --- | --- | --- | --- | --- | --- |'

function line(name: string, row: Row | string): string {
  if (row === open) return `| \`${name}\` | everyone, without a token | | | | |`
  if (typeof row === 'string') return `| \`${name}\` | everyone, for themselves | | | | |`
  const { who, stranger, former, blocked, member } = row
  const [, call, aim = ''] = /^(.*?)(?: (\(.*\)))?$/.exec(name)!
  return `| \`${call}\` ${aim} | ${who} | ${[stranger, former, blocked, member].map(show).join(' | ')} |`.replaceAll('  ', ' ')
}

const generated = (): string => {
  const sections = Object.entries(rest).map(
    ([title, section]) =>
      `## ${title}\n\n${head}\n${Object.entries(section)
        .map(([name, row]) => line(name, row))
        .join('\n')}`,
  )
  const types = Object.entries(commands).map(([type, row]) =>
    typeof row === 'string' && row !== own ? `| \`${type}\` | as \`${row}\` | | | | |` : line(type, row),
  )
  return [...sections, `## WebSocket\n\n${head}\n${types.join('\n')}`].join('\n\n')
}

test('docs/permissions.md is what the table says', async () => {
  const text = await readFile(page, 'utf8')
  const [intro, rest = ''] = text.split(
    '<!-- written by test/permissions.test.ts: UPDATE_DOCS=1 npx vitest run test/permissions.test.ts -->\n',
  )
  const now = `\n${generated()}\n`
  if (process.env.UPDATE_DOCS) await writeFile(page, text.slice(0, text.length - rest.length) + now)
  else expect(rest, 'UPDATE_DOCS=1 npx vitest run test/permissions.test.ts writes it').toBe(now)
  expect(intro).not.toBe('')
})
