import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest'
import { openDb, sql } from '../src/platform/db/db.ts'
import { isAlive, launch, type Process, postgresPid, rest } from './support/process.ts'
import { startServers, type TestServers } from './support/server.ts'
import { createDatabase } from './support/services.ts'
import { root, scratch } from './support/tools.ts'
import { Wire } from './support/wire.ts'

/** The operator's commands as they are run: a process of their own, beside a server or without one. */

interface Outcome {
  status: number
  out: string
  err: string
}

let environment: Record<string, string> = {}
const plain = { PATH: process.env.PATH, HOME: process.env.HOME, TMPDIR: process.env.TMPDIR, LANG: 'C', BCRYPT_COST: '4' }

/** `npm run admin -- …`, without npm. */
function admin(...words: string[]): Promise<Outcome> {
  return new Promise((resolve) => {
    const env = { ...plain, ...environment } as NodeJS.ProcessEnv
    execFile(process.execPath, ['src/admin.ts', ...words], { cwd: root, env, timeout: 120_000 }, (error, out, err) =>
      resolve({ status: error ? ((error.code as number | undefined) ?? -1) : 0, out, err }),
    )
  })
}

/** Its lines; it is expected to be done and to warn of nothing. */
async function done(...words: string[]): Promise<string[]> {
  const { status, out, err } = await admin(...words)
  expect([status, err], words.join(' ')).toEqual([0, ''])
  return out.trimEnd().split('\n')
}

const passwordIn = (lines: string[]) => /^Password: (\S{16})$/.exec(lines.at(-1)!)![1]!
const login = (url: string, name: string, password: string) =>
  rest<{ token: string; user: { is_admin: boolean } }>(url, 'POST', '/auth/login', { body: { login: name, password } })

let folder: Awaited<ReturnType<typeof scratch>>
const started: Process[] = []
beforeAll(async () => {
  folder = await scratch('admin')
})
afterEach(async () => {
  environment = {}
  for (const server of started.splice(0)) {
    server.kill()
    await server.exited
  }
})
afterAll(() => folder.remove())

async function start(env: Record<string, string>): Promise<Process> {
  const server = launch(env)
  started.push(server)
  return server.ready()
}

test('what is no command is answered with how to use it, and 2', async () => {
  environment = { DATA_DIR: join(folder.dir, 'never-made') }
  const all = await admin()
  expect([all.status, all.out]).toEqual([2, ''])
  for (const name of ['user create', 'user disable', 'user reset-password', 'user make-admin', 'user list', 'stats', 'invites'])
    expect(all.err).toContain(`  ${name} `.trimEnd())
  expect((await admin('help')).status).toBe(0)
  for (const words of [
    ['user'],
    ['user', 'disable'],
    ['user', 'disable', 'anna', 'ben'],
    ['user', 'list', '--all'],
    ['invite', '--uses'],
  ]) {
    const { status, out, err } = await admin(...words)
    expect([status, out], words.join(' ')).toEqual([2, ''])
    expect(err).toContain('Usage: npm run admin -- ')
    if (words.length > 1) expect(err).toContain(`-- ${words[0]}`)
  }
  // Nothing of it has touched a database.
  expect(existsSync(environment.DATA_DIR!)).toBe(false)
}, 120_000)

test('with the embedded database stopped: it is started for the command, and nothing is left running', async () => {
  environment = { DATA_DIR: folder.dir }
  const lines = await done('user', 'create', 'anna', '--display-name', 'Anna', '--admin')
  expect(lines[0]).toBe('anna can sign in now, and is an admin.')
  expect(await done('user', 'create', 'ben', '--password', 'Secret123')).toEqual(['ben can sign in now.'])
  expect(existsSync(join(folder.dir, 'postgres', 'postmaster.pid'))).toBe(false)
  expect(await admin('user', 'create', 'ANNA')).toEqual({ status: 1, out: '', err: 'This username is taken.\n' })
  expect(await admin('user', 'disable', 'nobody')).toEqual({ status: 1, out: '', err: 'There is no such user.\n' })
  // What is badly formed is told by name.
  expect(await admin('user', 'create', 'x')).toMatchObject({ status: 2, err: expect.stringMatching(/^username must be 3 to 50/) })
  expect(await admin('user', 'create', 'carl', '--password', 'weak')).toMatchObject({
    status: 2,
    err: expect.stringMatching(/^password must be/),
  })

  // The server that starts next knows them, though it takes nobody else.
  const server = await start({ DATA_DIR: folder.dir, REGISTRATION: 'closed', LOG_LEVEL: 'info' })
  const anna = (await login(server.url, 'anna', passwordIn(lines))).body
  expect(anna.user.is_admin).toBe(true)
  expect((await login(server.url, 'ben', 'Secret123')).body.user.is_admin).toBe(false)

  // What admins do over REST can be read in the log, but no code with which its reader could register.
  const made = await rest<{ code: string }>(server.url, 'POST', '/admin/invites', { token: anna.token, body: {} })
  const { code } = made.body
  expect((await rest(server.url, 'DELETE', `/admin/invites/${code}`, { token: anna.token })).status).toBe(200)
  await vi.waitFor(() => expect(server.stdout).toContain('an admin took an invitation back'), 5_000)
  expect(server.stdout).toContain(`"target":"${code.slice(0, 6)}…"`)
  expect(server.stdout).not.toContain(code)
}, 180_000)

test('with the embedded database of a running server: it takes part in it, and the server hears at once', async () => {
  const server = await start({ DATA_DIR: folder.dir, REGISTRATION: 'invite' })
  const postgres = postgresPid(folder.dir)
  environment = { DATA_DIR: folder.dir, PUBLIC_URL: 'https://chat.example.org/' }
  const signIn = async (password = 'Secret123') => (await login(server.url, 'ben', password)).body.token
  const token = await signIn()
  // Its session is remembered by the server, and has a socket.
  expect((await rest(server.url, 'GET', '/users/me', { token })).status).toBe(200)
  const socket = new Wire(server.url, `/ws?token=${token}`)
  await socket.type('ready')

  expect(await done('user', 'disable', 'ben')).toEqual(['ben is disabled.'])
  expect(await socket.closed()).toBe(4001)
  expect(await rest(server.url, 'GET', '/users/me', { token })).toMatchObject({ status: 401, body: { code: 'session_ended' } })
  expect(await login(server.url, 'ben', 'Secret123')).toMatchObject({ status: 403, body: { code: 'account_disabled' } })
  expect(await done('user', 'enable', 'ben')).toEqual(['ben is enabled.'])

  const second = new Wire(server.url, `/ws?token=${await signIn()}`)
  await second.type('ready')
  const reset = await done('user', 'reset-password', 'BEN')
  expect(reset[0]).toBe('BEN is signed out everywhere.')
  expect(await second.closed()).toBe(4001)
  expect((await login(server.url, 'ben', 'Secret123')).status).toBe(401)
  const fresh = await signIn(passwordIn(reset))

  // An admin is one from now on, and is told so.
  const third = new Wire(server.url, `/ws?token=${fresh}`)
  await third.type('ready')
  expect((await rest(server.url, 'GET', '/admin/stats', { token: fresh })).status).toBe(403)
  await done('user', 'make-admin', 'ben')
  expect((await rest(server.url, 'GET', '/admin/stats', { token: fresh })).status).toBe(200)
  const told = (await third.type('me_updated')) as unknown as { me: { is_admin: boolean } }
  expect(told.me.is_admin).toBe(true)
  await done('user', 'remove-admin', 'ben')
  expect((await rest(server.url, 'GET', '/admin/stats', { token: fresh })).status).toBe(403)

  const [url, code] = await done('invite', '--uses', '2', '--expires', '12h')
  expect(code).toMatch(/^Code: [\w-]{24}$/)
  const invite_code = code!.slice(6)
  expect(url).toBe(`https://chat.example.org/register?invite_code=${invite_code}`)
  const register = (username: string) =>
    rest(server.url, 'POST', '/auth/register', { body: { username, password: 'Secret123', invite_code } })
  expect((await register('carl')).status).toBe(201)
  expect((await done('invites'))[1]).toMatch(new RegExp(`^${invite_code} +1/2 +\\d{4}-`))
  expect(await done('invite', 'revoke', invite_code)).toEqual(['Taken back.'])
  expect((await register('dora')).status).toBe(403)
  expect((await done('invites'))[1]).toContain('taken back')
  expect(await admin('invite', 'revoke', 'nonsense')).toMatchObject({ status: 1 })
  for (const words of [
    ['--uses', '0'],
    ['--expires', 'soon'],
  ])
    expect(await admin('invite', ...words), words.join(' ')).toMatchObject({ status: 2 })

  // The server and its database are as they were.
  expect(postgresPid(folder.dir)).toBe(postgres)
  expect(isAlive(postgres)).toBe(true)
  expect((await rest(server.url, 'GET', '/users/me', { token: fresh })).status).toBe(200)
  server.kill('SIGTERM')
  expect(await server.exited).toBe(0)
  expect(isAlive(postgres)).toBe(false)
}, 180_000)

test('lists and numbers are for reading, whatever people call themselves', async () => {
  const database = await createDatabase()
  environment = { DATABASE_URL: database.url }
  try {
    // Without a server that ever ran, and without its secret.
    await done('user', 'create', 'plain_one')
    await done('user', 'create', 'evil_one', '--display-name', 'red \u001b[31m\u202e\nnext line', '--admin')
    await done('user', 'disable', 'plain_one')
    const [head, ...rows] = await done('user', 'list')
    expect(head).toMatch(/^username +name +phone +email +made +last seen +id$/)
    expect(rows).toHaveLength(2)
    expect(rows[0]).toMatch(/^evil_one +red {2}\[31m next line +admin +\d{4}-/)
    expect(rows[1]).toMatch(/^plain_one +plain_one +disabled +\d{4}-/)
    expect(await done('user', 'list', '--limit', '1')).toHaveLength(2)
    const stats = await done('stats')
    expect(stats).toEqual(
      expect.arrayContaining([expect.stringMatching(/^users +2$/), expect.stringMatching(/^disabled users +1$/)]),
    )

    const db = openDb({ connection: { connectionString: database.url }, poolSize: 1, onError: () => {} })
    await db.query(sql`DELETE FROM migrations WHERE number = (SELECT max(number) FROM migrations)`)
    await db.close()
    // Servers of that version may be running on it.
    expect(await admin('stats')).toMatchObject({ status: 1, err: expect.stringContaining('Start the server once') })
  } finally {
    await database.drop()
  }
  expect(await admin('stats')).toMatchObject({ status: 1, err: expect.stringContaining('cannot be reached') })
}, 120_000)

test('beside instances that share a Redis, every one of them hears at once', async () => {
  const servers: TestServers = await startServers({ instances: 2 })
  environment = { DATABASE_URL: servers.databaseUrl }
  try {
    const one = await servers.register('both')
    const two = await servers.login(one, 1)
    const sockets = [await servers.connect(one), await servers.connect(two, { at: 1 })]
    await done('user', 'disable', one.username)
    expect(await Promise.all(sockets.map((socket) => socket.waitForClose()))).toEqual([4001, 4001])
    for (const [as, at] of [
      [one, 0],
      [two, 1],
    ] as const)
      expect((await servers.call('GET', '/users/me', { as, at })).status).toBe(401)
    // A notification that cannot be read harms nobody.
    await servers.instances[0]!.context.db.query(sql`SELECT pg_notify('parley_notices', 'no json')`)
    await done('user', 'enable', one.username)
    await vi.waitFor(async () => expect((await servers.login(one, 1)).token).toBeDefined(), 5_000)
  } finally {
    await servers.close()
  }
}, 120_000)

test('an instance that may have missed what was told looks again', async () => {
  const servers: TestServers = await startServers()
  try {
    const { db } = servers.instances[0]!.context
    const someone = await servers.register('missed')
    const socket = await servers.connect(someone)
    const me = async () => (await servers.call('GET', '/users/me', { as: someone })).status
    expect(await me()).toBe(200)
    // Nobody tells: what the server remembers is good for a minute.
    await db.query(sql`UPDATE sessions SET ended_at = now() WHERE user_id = ${someone.id}`)
    expect(await me()).toBe(200)
    await db.query(sql`
      SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'parley-lock' AND datname = current_database()`)
    expect(await socket.waitForClose()).toBe(4001)
    expect(await me()).toBe(401)
  } finally {
    await servers.close()
  }
})
