import { connect, type Socket } from 'node:net'
import pg from 'pg'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { account, isAlive, launch, type Process, postgresPid, rest } from './support/process.ts'
import { createDatabase, freePort, redisUrl, type TestDatabase } from './support/services.ts'
import { scratch } from './support/tools.ts'
import { Wire } from './support/wire.ts'

/** Starting and stopping, as an operator sees it: one line and an exit code. */

let database: TestDatabase
let folder: Awaited<ReturnType<typeof scratch>>
const started: Process[] = []
const secret = 'a secret for tests that is long enough'

beforeAll(async () => {
  folder = await scratch('start')
})
afterEach(async () => {
  for (const server of started.splice(0)) {
    server.kill()
    await server.exited
  }
})
afterAll(() => folder.remove())

function run(env: Record<string, string>): Process {
  const server = launch(env)
  started.push(server)
  return server
}

const onOwnDatabase = (more: Record<string, string> = {}) => run({ DATABASE_URL: database.url, JWT_SECRET: secret, ...more })

/** Ends by itself with 1 and says one line. */
async function refused(server: Process): Promise<string> {
  expect(await server.exited).toBe(1)
  expect(server.stdout).toBe('')
  const lines = server.stderr.trim().split('\n')
  expect(lines, server.stderr).toHaveLength(1)
  return lines[0]!
}

test.each([
  ['PORT', 'eighty'],
  ['DATABASE_URL', 'mysql://localhost/x'],
  ['JWT_SECRET', 'short'],
  ['ACCESS_TOKEN_TTL', '1 hour'],
  ['RATE_LIMIT_MESSAGE', '7perhour'],
  ['DATABASE_POOL_SIZE', '-1'],
])('%s=%s is refused with one line that names it', async (name, value) => {
  const line = await refused(run({ DATA_DIR: folder.dir, [name]: value }))
  expect(line).toMatch(new RegExp(`^Parley cannot go on: ${name} must be .+\\.$`))
  expect(line).not.toContain(value)
})

test('a database of one’s own needs a secret of one’s own', async () => {
  expect(await refused(run({ DATABASE_URL: 'postgres://nobody@127.0.0.1/x' }))).toContain('JWT_SECRET must be set')
})

test('one folder, one port, one server', async () => {
  const first = await run({ DATA_DIR: folder.dir }).ready()
  const port = new URL(first.url).port
  const [second, third] = await Promise.all([
    refused(run({ DATA_DIR: folder.dir })),
    (async () => {
      const other = await scratch('start')
      try {
        return await refused(run({ DATA_DIR: other.dir, PORT: port }))
      } finally {
        await other.remove()
      }
    })(),
  ])
  expect(second).toContain(`Another Parley server is using ${folder.dir} (pid ${first.pid})`)
  expect(third).toBe(`Parley cannot go on: PORT ${port} is in use by another program.`)
  expect((await fetch(`${first.url}/health`)).status).toBe(200)
}, 60_000)

test('silent and stubborn connections do not keep it from stopping', async () => {
  const server = await run({ DATA_DIR: folder.dir }).ready()
  const database = postgresPid(folder.dir)
  const { token } = await account(server.url)
  const port = Number(new URL(server.url).port)
  const sockets: Socket[] = []
  const raw = (text: string) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(text))
    socket.on('error', () => {})
    sockets.push(socket)
  }
  raw('')
  raw('GET /health HTTP/1.1\r\nHost: x\r\n')
  raw('POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{')
  const waiting = new Wire(server.url)
  const signedIn = new Wire(server.url, `/ws?token=${token}`)
  const deaf = new Wire(server.url, `/ws?token=${token}`)
  await Promise.all([waiting.opened, signedIn.type('ready'), deaf.type('ready')])
  // Hears no close, and answers none.
  deaf.socket.pause()
  raw(`GET /api/v1/events?token=${token} HTTP/1.1\r\nHost: x\r\n\r\n`)
  // Being let in just now.
  const arriving = Array.from({ length: 20 }, () => new Wire(server.url, `/ws?token=${token}`))
  await arriving[0]!.opened
  const begun = Date.now()
  server.kill('SIGTERM')
  // A second signal changes nothing.
  server.kill('SIGTERM')
  expect(await Promise.all([waiting.closed(), signedIn.closed()])).toEqual([4011, 4011])
  for (const wire of arriving) expect([4011, 1006]).toContain(await wire.closed())
  expect(await server.exited).toBe(0)
  expect(Date.now() - begun).toBeLessThan(10_000)
  expect(isAlive(database)).toBe(false)
  for (const socket of sockets) socket.destroy()
  deaf.end()
}, 60_000)

test('a stop during the start leaves nothing behind', async () => {
  const port = await freePort()
  for (const ms of [150, 400, 700, 1_000]) {
    const server = run({ DATA_DIR: folder.dir, PORT: String(port) })
    await new Promise((resolve) => setTimeout(resolve, ms))
    server.kill('SIGTERM')
    await server.exited
    expect(isAlive(server.pid)).toBe(false)
  }
  // The next one finds the folder free and the data whole.
  const server = await run({ DATA_DIR: folder.dir, PORT: String(port) }).ready()
  await account(server.url)
  server.kill('SIGINT')
  expect(await server.exited).toBe(0)
}, 60_000)

test('instances on one database: alone without Redis, together with it, migrated once', async () => {
  database = await createDatabase()
  try {
    const shared = { REDIS_URL: redisUrl(), REDIS_PREFIX: `start${process.pid}:` }
    const [one, two] = await Promise.all([onOwnDatabase(shared).ready(), onOwnDatabase(shared).ready()])
    const client = new pg.Client({ connectionString: database.url })
    // Dropping the database ends it.
    client.on('error', () => {})
    await client.connect()
    const { rows } = await client.query<{ number: number }>('SELECT number FROM migrations ORDER BY number')
    expect(rows.map((row) => row.number)).toEqual(rows.map((_, n) => n + 1))
    // A session of one is a session of the other.
    const { token } = await account(one.url)
    expect((await rest(two.url, 'GET', '/users/me', { token })).status).toBe(200)
    expect(await refused(onOwnDatabase())).toContain('Several instances need REDIS_URL')
    for (const server of [one, two]) {
      server.kill('SIGTERM')
      expect(await server.exited).toBe(0)
    }

    const alone = await onOwnDatabase().ready()
    const [second, withRedis] = await Promise.all([refused(onOwnDatabase()), refused(onOwnDatabase(shared))])
    expect(second).toContain('Another Parley instance uses this database')
    expect(withRedis).toContain('A Parley instance without REDIS_URL uses this database')
    // A predecessor that was killed does not stand in the way.
    alone.kill()
    await onOwnDatabase().ready()

    await client.query("INSERT INTO migrations (number, file) VALUES (9000, '9000_from_the_future.sql')")
    await client.end()
    for (const server of started) server.kill()
    expect(await refused(onOwnDatabase())).toMatch(/The database is at version 9000, newer than this server \(\d+\)/)
  } finally {
    for (const server of started) server.kill()
    await Promise.all(started.map((server) => server.exited))
    await database.drop()
  }
}, 60_000)

test('what it needs and cannot reach is one line, too', async () => {
  const port = await freePort()
  const line = await refused(run({ DATABASE_URL: `postgres://parley@127.0.0.1:${port}/parley`, JWT_SECRET: secret }))
  expect(line).toContain('DATABASE_URL')
  expect(await refused(run({ DATA_DIR: folder.dir, HOST: '203.0.113.1' }))).toContain('HOST')
}, 60_000)
