import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { makePlan } from '../seed/plan.ts'
import { sql } from '../src/platform/db/db.ts'
import { checkChat } from './support/check.ts'
import { startServers, type TestServers } from './support/server.ts'
import { root } from './support/tools.ts'

/** `npm run seed` against a real server. */

let servers: TestServers
beforeAll(async () => {
  servers = await startServers()
})
afterAll(() => servers.close())

const run = promisify(execFile)
const seed = async (url: string, ...args: string[]) =>
  (await run(process.execPath, ['seed/seed.ts', '--url', url, ...args], { cwd: root })).stdout
const logins = (stdout: string) => Array.from(stdout.matchAll(/^ {2}(\S+) {2}\(/gm), (match) => match[1]!)

interface Row {
  id: string
  type: string
  messages: number
  replies: number
  edited: number
  reactions: number
  forwards: number
}

const chats = () =>
  servers.instances[0]!.context.db.query<Row>(sql`
    SELECT c.id, c.type, count(m.seq) FILTER (WHERE m.message_type <> 'system') AS messages,
      count(m.reply_to_seq) AS replies, count(m.edited_at) AS edited,
      (SELECT count(*) FROM message_reactions r WHERE r.chat_id = c.id) AS reactions
    FROM chats c LEFT JOIN messages m ON m.chat_id = c.id GROUP BY c.id`)
const sum = (rows: Row[], field: Exclude<keyof Row, 'id' | 'type'>) => rows.reduce((all, row) => all + Number(row[field]), 0)

test('a plan is the same for the same numbers and seed, and another for another', () => {
  const options = { users: 20, messages: 300, seed: 7, channels: true }
  const plan = makePlan(options)
  expect(makePlan(options)).toEqual(plan)
  expect(makePlan({ ...options, seed: 8 })).not.toEqual(plan)
  expect(plan.chats.reduce((all, { lines }) => all + lines.length, plan.forwards.length)).toBe(300)
  expect(new Set(plan.people.map(({ username }) => username)).size).toBe(20)
  for (const { username } of plan.people) expect(username).toMatch(/^[a-z0-9_]{3,45}$/)
  const texts = plan.chats.flatMap(({ lines }) => lines.map(({ text }) => text))
  for (const text of texts) expect(text.trim()).not.toBe('')
  expect(new Set(texts).size).toBeGreaterThan(150)
  // The smallest there is.
  expect(makePlan({ users: 2, messages: 1, seed: 1, channels: false }).chats.map(({ type }) => type)).toEqual(['dm'])
})

test('what it makes is there and consistent, its people can log in, and again it adds more', async () => {
  const { url } = servers.instances[0]!
  const args = ['--users', '12', '--messages', '250', '--password', 'Another123']
  const first = await seed(url, ...args)
  const names = logins(first)
  expect(new Set(names).size).toBe(12)
  expect(first).toContain("Everybody's password is Another123")
  expect(first).toMatch(/Made 12 people, \d+ direct chats, 2 groups, 1 channels and 250 messages in [\d.]+ s/)
  const login = await servers.call<{ token: string }>('POST', '/auth/login', {
    body: { login: names[0], password: 'Another123' },
  })
  expect(login.status).toBe(200)
  const mine = await servers.call<{ count: number }>('GET', '/chats', { token: login.body.token })
  expect(mine.body.count).toBeGreaterThan(0)
  const [contacts] = await servers.instances[0]!.context.db.query<{ count: number }>(
    sql`SELECT count(*) FROM relations WHERE state = 'contact'`,
  )
  expect(Number(contacts!.count)).toBeGreaterThan(10)
  const [pictures] = await servers.instances[0]!.context.db.query<{ people: number; chats: number }>(
    sql`SELECT (SELECT count(*)::int FROM users WHERE avatar IS NOT NULL) AS people, (SELECT count(*)::int FROM chats WHERE avatar IS NOT NULL) AS chats`,
  )
  expect(pictures).toEqual({ people: 10, chats: 3 })
  const made = await chats()
  expect(new Set(made.map(({ type }) => type))).toEqual(new Set(['dm', 'group', 'channel']))
  expect(sum(made, 'messages')).toBe(250)
  for (const field of ['replies', 'edited', 'reactions'] as const) expect(sum(made, field), field).toBeGreaterThan(0)
  for (const { id } of made) await checkChat(servers.instances[0]!.context.db, id)

  const again = logins(await seed(url, ...args))
  expect(again.filter((name) => names.includes(name))).toEqual([])
  expect(again[0]).toBe(`${names[0]}_2`)
  expect(sum(await chats(), 'messages')).toBe(500)
}, 60_000)

test('it waits as long as the limits ask, says why, and loses nothing', async () => {
  const limited = await startServers({
    env: { RATE_LIMIT_GENERAL: '30/1s', RATE_LIMIT_MESSAGE: '3/1s', RATE_LIMIT_REGISTER: '3/1s' },
  })
  try {
    const stdout = await seed(limited.instances[0]!.url, '--users', '5', '--messages', '60')
    expect(stdout).toMatch(/The server asks to wait \d+ s \(\w+ \S+\)\. RATE_LIMIT_\*=off/)
    expect(stdout).toContain('and 60 messages in')
    const [row] = await limited.instances[0]!.context.db.query<{ count: number }>(
      sql`SELECT count(*) FROM messages WHERE message_type <> 'system'`,
    )
    expect(Number(row!.count)).toBe(60)
  } finally {
    await limited.close()
  }
}, 60_000)

test('what is wrong is one line', async () => {
  const refusal = async (...args: string[]) => {
    const error = await run(process.execPath, ['seed/seed.ts', ...args], { cwd: root }).catch((e) => e)
    expect(error.code).toBe(1)
    return String(error.stderr)
  }
  expect(await refusal('--users', '1')).toBe('--users must be a whole number from 2 to 100000\n')
  expect(await refusal('--nonsense')).toContain('npm run seed --')
  const closed = await startServers({ env: { REGISTRATION: 'closed' } })
  try {
    expect(await refusal('--url', closed.instances[0]!.url)).toMatch(/^It stopped after .+: .+registration_closed/)
  } finally {
    await closed.close()
  }
})
