import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  appendFileSync,
  chmodSync,
  chownSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { afterAll, afterEach, expect, test, vi } from 'vitest'
import { DataDirInUseError, type EmbeddedOptions, type EmbeddedPostgres, openEmbedded } from './embedded.ts'
import { findRunner } from './embedded-runner.ts'

const isRoot = process.getuid?.() === 0
const log = { info: () => undefined, warn: vi.fn(), debug: () => undefined }
const roots: string[] = []
const opened: EmbeddedPostgres[] = []
const children: ChildProcess[] = []

/** A data directory that does not exist yet, in a folder that only we can enter. */
async function newDataDir(name = 'data'): Promise<string> {
  const root = await mkdtemp(join(tmpdir(), 'parley-test-'))
  roots.push(root)
  return join(root, name)
}

async function openHere(dataDir: string, options: Partial<EmbeddedOptions> = {}): Promise<EmbeddedPostgres> {
  const postgres = await openEmbedded({ dataDir, log, ...options })
  opened.push(postgres)
  return postgres
}

const SERVER = `
  const [module, dataDir] = process.argv.slice(1)
  const { openEmbedded } = await import(module)
  const log = { info() {}, warn() {}, debug() {} }
  process.on('SIGINT', () => process.stdout.write('interrupted\\n'))
  const postgres = await openEmbedded({ dataDir, log })
  process.on('SIGTERM', () => postgres.close().then(() => process.exit(0)))
  process.stdout.write(JSON.stringify(postgres.connection) + '\\n')
  setInterval(() => {}, 1000)`

/** Node with an embedded PostgreSQL, as a process of its own. */
function spawnServer(dataDir: string, wrap: string[] = [], env: NodeJS.ProcessEnv = {}, cwd?: string) {
  const node = [process.execPath, '--input-type=module', '-e', SERVER, new URL('./embedded.ts', import.meta.url).href, dataDir]
  const [file, ...args] = [...wrap, ...node]
  const child = spawn(file!, args, {
    env: { PATH: process.env.PATH, ...env },
    cwd,
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  children.push(child)
  let errors = ''
  child.stderr.on('data', (chunk) => {
    errors += chunk
  })
  const line = () =>
    new Promise<string>((resolve, reject) => {
      child.stdout.once('data', (data) => resolve(data.toString()))
      child.once('close', () => reject(new Error(errors)))
    })
  return { child, line, ready: line().then((text) => JSON.parse(text) as EmbeddedPostgres['connection']) }
}

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exited = once(child, 'exit')
  child.kill(signal)
  await exited
}

async function query(connection: pg.ClientConfig, text: string): Promise<unknown> {
  const client = new pg.Client(connection)
  client.on('error', () => undefined)
  await client.connect()
  try {
    const { rows } = await client.query({ text, rowMode: 'array' })
    return rows[0]?.[0]
  } finally {
    await client.end()
  }
}

const remember = (connection: pg.ClientConfig, word: string) =>
  query(connection, `CREATE TABLE kept AS SELECT '${word}'::text AS word`)
const recall = (connection: pg.ClientConfig) => query(connection, 'SELECT word FROM kept')
const postmaster = (dataDir: string) => Number(readFileSync(join(dataDir, 'postgres', 'postmaster.pid'), 'utf8').split('\n')[0])
const mode = (path: string) => (statSync(path).mode & 0o777).toString(8)

/** Every living PostgreSQL whose data is in this folder. */
function processesOn(folder: string): string[] {
  const read = (file: string) => {
    try {
      return readFileSync(file, 'utf8')
    } catch {
      return '' // ended meanwhile
    }
  }
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name))
  // A zombie's command line is empty.
  return pids.filter((pid) => read(`/proc/${pid}/cmdline`).includes(`\0-D\0${folder}`))
}

afterEach(async () => {
  for (const postgres of opened.splice(0)) await postgres.close()
  for (const child of children.splice(0)) await end(child, 'SIGTERM')
})

afterAll(async () => {
  for (const root of roots) {
    await rm(root, { recursive: true, force: true, maxRetries: 10 })
  }
  const ours = readdirSync(tmpdir()).filter((name) => {
    if (!name.startsWith('parley-pg-')) return false
    const whose = spawnSync('cat', [join(tmpdir(), name, 'data-dir')], { encoding: 'utf8' }).stdout
    return roots.some((root) => whose.startsWith(root))
  })
  expect(roots.flatMap(processesOn), 'processes left behind').toEqual([])
  expect(ours, 'socket directories left behind').toEqual([])
})

test('the first start makes a private UTF-8 cluster, the second keeps its data, and closing leaves nothing running', async () => {
  const dataDir = await newDataDir()
  const first = await openHere(dataDir)
  expect(
    await query(
      first.connection,
      'SELECT pg_encoding_to_char(encoding) || datlocprovider::text || datlocale FROM pg_database WHERE datname = current_database()',
    ),
  ).toBe('UTF8bC.UTF-8')
  await remember(first.connection, 'grüße')
  expect([dataDir, join(dataDir, 'postgres'), first.connection.host].map(mode)).toEqual(['700', '700', '700'])
  expect(['postgres.password', 'postgres.log', 'parley.lock'].map((name) => mode(join(dataDir, name)))).toEqual([
    '600',
    '600',
    '600',
  ])
  // The folder around it stays as closed as it was, even if PostgreSQL runs as another user.
  expect(mode(dirname(dataDir))).toBe('700')
  await first.close()
  expect(processesOn(dataDir)).toEqual([])
  expect(() => statSync(first.connection.host)).toThrow('ENOENT')

  const second = await openHere(dataDir)
  expect(await recall(second.connection)).toBe('grüße')
  expect(await query(second.connection, 'SHOW fsync')).toBe('on')
})

test('it is reached over its socket with its password, and by nothing else', async () => {
  const dataDir = await newDataDir()
  const { connection } = await openHere(dataDir)
  await expect(query({ ...connection, password: 'guess' }, 'SELECT 1')).rejects.toThrow(/password authentication failed/)
  const pid = postmaster(dataDir)
  const sockets = readdirSync(`/proc/${pid}/fd`).map((fd) => {
    try {
      return /^socket:\[(\d+)\]/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1]
    } catch {
      return undefined
    }
  })
  const tcp = ['tcp', 'tcp6'].flatMap((family) => readFileSync(`/proc/net/${family}`, 'utf8').split('\n'))
  const listening = tcp.map((row) => row.trim().split(/\s+/)[9]).filter((inode) => inode && sockets.includes(inode))
  expect(sockets.filter(Boolean)).not.toEqual([])
  expect(listening).toEqual([])
})

test('a second server on the same data is refused in one clear line, and the first goes on', async () => {
  const dataDir = await newDataDir()
  const first = await openHere(dataDir)
  const attempt = openHere(dataDir)
  await expect(attempt).rejects.toBeInstanceOf(DataDirInUseError)
  await expect(attempt).rejects.toThrow(
    `Another Parley server is using ${dataDir} (pid ${process.pid}). Stop it, or set DATA_DIR to another folder.`,
  )
  await expect(spawnServer(dataDir).ready).rejects.toThrow(`is using ${dataDir} (pid ${process.pid})`)
  expect(await query(first.connection, 'SELECT 1')).toBe(1)
})

test('of several servers that start at the same moment, one gets the data', async () => {
  const dataDir = await newDataDir()
  const results = await Promise.allSettled([1, 2, 3].map(() => spawnServer(dataDir).ready))
  const refusals = results.flatMap((result) => (result.status === 'rejected' ? [String(result.reason)] : []))
  expect(refusals).toHaveLength(2)
  for (const refusal of refusals) expect(refusal).toMatch(/Another Parley server is using .* \(pid \d+\)/)
})

test('kill -9 of Node ends its PostgreSQL too, and the next start finds the data', async () => {
  const dataDir = await newDataDir()
  const { child, ready } = spawnServer(dataDir)
  await remember(await ready, 'one')
  await end(child, 'SIGKILL')
  await vi.waitFor(() => expect(processesOn(dataDir)).toEqual([]), { timeout: 10_000 })
  const next = await openHere(dataDir)
  expect(await recall(next.connection)).toBe('one')
})

test('a start right after kill -9 of Node does not trip over the PostgreSQL that is still stopping', async () => {
  const dataDir = await newDataDir()
  const { child, ready } = spawnServer(dataDir)
  await remember(await ready, 'two')
  await end(child, 'SIGKILL')
  expect(await recall((await openHere(dataDir)).connection)).toBe('two')
})

test('kill -9 of Node and PostgreSQL together is recovered from', async () => {
  const dataDir = await newDataDir()
  const { child, ready } = spawnServer(dataDir)
  await remember(await ready, 'three')
  process.kill(postmaster(dataDir), 'SIGKILL')
  await end(child, 'SIGKILL')
  expect(await recall((await openHere(dataDir)).connection)).toBe('three')
})

test('kill -9 of PostgreSQL alone is told, once, and the data can be opened again', async () => {
  const dataDir = await newDataDir()
  const postgres = await openHere(dataDir)
  await remember(postgres.connection, 'four')
  const told: string[] = []
  const why = new Promise<string>((resolve) => postgres.onExit((line) => told.push(line) && resolve(line)))
  process.kill(postmaster(dataDir), 'SIGKILL')
  expect(await why).toMatch(/ended unexpectedly \(signal SIGKILL\)/)
  const late = new Promise((resolve) => postgres.onExit(resolve))
  expect(await late).toBe(await why)
  await postgres.close()
  expect(told).toHaveLength(1)
  expect(await recall((await openHere(dataDir)).connection)).toBe('four')
})

test('closing is not told as an accident', async () => {
  const postgres = await openHere(await newDataDir())
  const listener = vi.fn()
  postgres.onExit(listener)
  await Promise.all([postgres.close(), postgres.close()])
  await sleep(50)
  expect(listener).not.toHaveBeenCalled()
})

test('an orphan that outlived its server is stopped; a postmaster.pid that names somebody else is no obstacle', async () => {
  const dataDir = await newDataDir()
  const first = await openHere(dataDir)
  await remember(first.connection, 'five')
  await first.close()

  const cluster = join(dataDir, 'postgres')
  const { command } = await findRunner(cluster)
  const [file, args, options] = command('postgres', [
    '-D',
    cluster,
    '-c',
    'listen_addresses=',
    '-c',
    `unix_socket_directories=${cluster}`,
  ])
  const orphan = spawn(file, args, { ...options, stdio: 'ignore' })
  const gone = once(orphan, 'exit')
  await vi.waitFor(() => expect(readFileSync(join(cluster, 'postmaster.pid'), 'utf8')).toContain('ready'), { timeout: 10_000 })
  const second = await openHere(dataDir)
  await gone
  expect(log.warn).toHaveBeenCalledWith(expect.stringContaining(`pid ${orphan.pid}`))
  expect(await recall(second.connection)).toBe('five')
  await second.close()

  writeFileSync(join(cluster, 'postmaster.pid'), `${process.pid}\n${cluster}\n`)
  expect(await recall((await openHere(dataDir)).connection)).toBe('five')
})

test('a first start that was killed in the middle is begun again', async () => {
  const dataDir = await newDataDir()
  const { child, ready } = spawnServer(dataDir)
  ready.catch(() => undefined)
  const unfinished = () => readdirSync(dataDir).filter((name) => name.startsWith('postgres.init-'))
  await vi.waitFor(() => expect(unfinished()).toHaveLength(1), { timeout: 10_000, interval: 5 })
  await end(child, 'SIGKILL')
  expect(unfinished()).toHaveLength(1)
  const next = await openHere(dataDir)
  expect(await query(next.connection, 'SELECT 1')).toBe(1)
  expect(unfinished()).toEqual([])
})

test('umask 077, a foreign locale and a working directory with spaces change nothing', async () => {
  const dataDir = await newDataDir('data')
  const cwd = join(dirname(dataDir), 'a folder with spaces')
  mkdirSync(cwd)
  const env = { LC_ALL: 'C', LANG: 'de_DE.ISO-8859-1', PGDATA: '/nowhere', PGPORT: '1' }
  const { child, ready } = spawnServer('relative data', ['sh', '-c', 'umask 077; exec "$0" "$@"'], env, cwd)
  const connection = await ready
  expect(await query(connection, 'SHOW server_encoding')).toBe('UTF8')
  expect(await query(connection, "SELECT upper('grün')")).toBe('GRÜN')
  await end(child, 'SIGTERM')
  expect(readdirSync(join(cwd, 'relative data')).sort()).toEqual(['parley.lock', 'postgres', 'postgres.log', 'postgres.password'])
})

test('a data directory may have a long path with spaces and quotes', async () => {
  const dataDir = await newDataDir(join('it\'s "our" data', 'x'.repeat(120), 'y'.repeat(120)))
  const postgres = await openHere(dataDir)
  expect(await query(postgres.connection, 'SELECT 1')).toBe(1)
})

test('Ctrl-C reaches Node, not PostgreSQL, which outlives the graceful stop', async () => {
  const { child, line, ready } = spawnServer(await newDataDir())
  const connection = await ready
  const interrupted = line()
  process.kill(-child.pid!, 'SIGINT')
  expect(await interrupted).toBe('interrupted\n')
  await sleep(100)
  expect(await query(connection, 'SELECT 1')).toBe(1)
})

test('an ordinary user can run it, and root can take over what that user made', async () => {
  const dataDir = await newDataDir()
  const root = dirname(dataDir)
  let wrap: string[] = []
  if (isRoot) {
    chownSync(root, 65534, 65534)
    const user = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups']
    // A clone in /root cannot be read by anybody else; reading is then all that is added.
    const canRead = spawnSync(user[0]!, [...user.slice(1), process.execPath, '--version']).status === 0
    wrap = canRead ? user : [...user, '--inh-caps=-all,+dac_read_search', '--ambient-caps=-all,+dac_read_search']
  }
  const { child, ready } = spawnServer(dataDir, wrap)
  await remember(await ready, 'six')
  const { uid } = statSync(join(dataDir, 'postgres'))
  expect(uid).toBe(isRoot ? 65534 : process.getuid?.())
  await end(child, 'SIGKILL')
  await vi.waitFor(() => expect(processesOn(dataDir)).toEqual([]), { timeout: 10_000 })
  const next = await openHere(dataDir)
  expect(await recall(next.connection)).toBe('six')
  await next.close()
  const again = spawnServer(dataDir, wrap)
  expect(await recall(await again.ready)).toBe('six')
})

test('what goes wrong is said with the last lines of the log, and the data is free again', async () => {
  const dataDir = await newDataDir()
  await expect(openHere(dataDir, { settings: { work_mem: 'much' } })).rejects.toThrow(/did not start[\s\S]*work_mem/)
  const { connection } = await openHere(dataDir, { settings: { work_mem: '5MB' } })
  expect(await query(connection, 'SHOW work_mem')).toBe('5MB')
})

test('a folder that holds something else is left alone', async () => {
  const dataDir = await newDataDir()
  const cluster = join(dataDir, 'postgres')
  mkdirSync(cluster, { recursive: true })
  writeFileSync(join(cluster, 'holiday.jpg'), '')
  const { owner } = await findRunner(cluster)
  if (owner) chownSync(cluster, owner.uid, owner.gid)
  await expect(openHere(dataDir)).rejects.toThrow('is not a PostgreSQL database')
  expect(readdirSync(cluster)).toEqual(['holiday.jpg'])
})

test('the log does not grow without end', async () => {
  const dataDir = await newDataDir()
  mkdirSync(dataDir, { recursive: true })
  const file = join(dataDir, 'postgres.log')
  appendFileSync(file, Buffer.alloc(10 * 1024 * 1024 + 1, 'x'))
  chmodSync(file, 0o644)
  await openHere(dataDir)
  expect(statSync(file).size).toBeLessThan(100_000)
  expect(basename(`${file}.1`)).toBe('postgres.log.1')
  expect(statSync(`${file}.1`).size).toBeGreaterThan(10 * 1024 * 1024)
})
