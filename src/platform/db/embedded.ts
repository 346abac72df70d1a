/**
 * The PostgreSQL that Parley brings along for those who have none: real server binaries, owned by this process.
 * Invariants: one server per data directory (a lock that dies with its process); a cluster appears under its name only when
 * it is complete; the database ends with its server; it is reached over a private socket and by nothing else.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, fchownSync, openSync, renameSync, statSync } from 'node:fs'
import { mkdir, readFile, realpath } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import type { Logger } from 'pino'
import { createCluster, NAME, passwordFileOf } from './embedded-cluster.ts'
import { lockDataDir } from './embedded-lock.ts'
import { makeSocketDir, removeSocketDir, SOCKET_PORT, stopOrphan, stopProcess } from './embedded-recovery.ts'
import { findRunner, type Runner } from './embedded-runner.ts'

export { DataDirInUseError } from './embedded-lock.ts'

export interface EmbeddedPostgres {
  /** For pg: unix socket host, user, password, database. */
  connection: { host: string; port: number; user: string; password: string; database: string }
  /** Called once when the server process ends without close() having been called; at once if it has ended already. */
  onExit(listener: (why: string) => void): void
  /** Fast shutdown, harsher after 8 s. Close the pool first: open transactions are rolled back. */
  close(): Promise<void>
}

export interface EmbeddedOptions {
  /** Holds `postgres/`, `postgres.log`, `postgres.password` and `parley.lock`; created if missing. */
  dataDir: string
  log: Pick<Logger, 'info' | 'warn' | 'debug'>
  /** PostgreSQL settings that go over ours. */
  settings?: Record<string, string>
}

const READY_WITHIN_MS = 60_000
const MAX_LOG_BYTES = 10 * 1024 * 1024
/** After a kill -9 of both processes, PostgreSQL's own children need a moment to notice and go. */
const GHOSTS_GONE_WITHIN_MS = 15_000
const GHOSTS = /pre-existing shared memory block|lock file "postmaster\.pid"/

/** For 2 cores and 4 GB shared with Node. Durability is PostgreSQL's default: fsync and synchronous_commit stay on. */
const SETTINGS: Record<string, string> = {
  listen_addresses: '',
  unix_socket_permissions: '0700',
  max_connections: '60',
  shared_buffers: '128MB',
  effective_cache_size: '1GB',
  work_mem: '8MB',
  maintenance_work_mem: '64MB',
  max_parallel_workers_per_gather: '0', // short queries on two cores: a parallel plan only costs
  random_page_cost: '1.1', // solid state
  jit: 'off',
  wal_compression: 'on',
  min_wal_size: '80MB',
  max_wal_size: '512MB', // bounds the recovery after a crash
  timezone: 'UTC',
  log_timezone: 'UTC',
  log_min_messages: 'warning',
  log_line_prefix: '%m [%p] ',
}

/** Starts the PostgreSQL of `dataDir`, creating it the first time. Throws DataDirInUseError if another server has it. */
export async function openEmbedded(options: EmbeddedOptions): Promise<EmbeddedPostgres> {
  const began = performance.now()
  await mkdir(options.dataDir, { recursive: true, mode: 0o700 })
  const dataDir = await realpath(resolve(options.dataDir))
  const lock = await lockDataDir(dataDir)
  let socketDir: string | undefined
  try {
    const clusterDir = join(dataDir, 'postgres')
    const runner = await findRunner(clusterDir)
    await stopOrphan(clusterDir, (line) => options.log.warn(line))
    const isNew = await createCluster(dataDir, clusterDir, runner)
    const password = (await readFile(passwordFileOf(dataDir), 'utf8')).trim()
    socketDir = await makeSocketDir(dataDir, runner.owner)
    const connection = { host: socketDir, port: SOCKET_PORT, user: NAME, password, database: NAME }
    const settings = { ...SETTINGS, ...options.settings, unix_socket_directories: `"${socketDir.replaceAll('"', '""')}"` }
    const server = await startServer({ runner, clusterDir, settings, connection, logFile: join(dataDir, 'postgres.log') })
    const ms = Math.round(performance.now() - began)
    options.log.info({ ms, dataDir, isNew, means: runner.means, pid: server.pid }, 'embedded PostgreSQL is ready')
    return own(server, connection, () => lock.release())
  } catch (error) {
    if (socketDir) removeSocketDir(socketDir)
    lock.release()
    throw error
  }
}

/** Binds the running server to this process: tells of its end, and ends it with us. */
function own(server: RunningServer, connection: EmbeddedPostgres['connection'], release: () => void): EmbeddedPostgres {
  const listeners: ((why: string) => void)[] = []
  let ended: string | undefined
  let closing: Promise<void> | undefined
  void server.exited.then(async (how) => {
    if (closing) return
    ended = `PostgreSQL ended unexpectedly (${how}). Last lines of its log:\n${await server.logTail()}`
    for (const listener of listeners) listener(ended)
  })
  // A process.exit() without close(): where there is no setpriv, nothing else would stop PostgreSQL.
  const onProcessExit = () => {
    server.child.kill('SIGINT')
    removeSocketDir(connection.host)
  }
  process.once('exit', onProcessExit)

  async function close() {
    await stopServer(server)
    process.off('exit', onProcessExit)
    removeSocketDir(connection.host)
    release()
  }
  return {
    connection,
    onExit: (listener) => (ended === undefined ? void listeners.push(listener) : queueMicrotask(() => listener(ended!))),
    close: () => (closing ??= close()),
  }
}

interface RunningServer {
  child: ChildProcess
  pid: number
  /** Resolves with how it ended. */
  exited: Promise<string>
  logTail(): Promise<string>
}

interface StartOptions {
  runner: Runner
  clusterDir: string
  settings: Record<string, string>
  connection: EmbeddedPostgres['connection']
  logFile: string
}

async function startServer(options: StartOptions): Promise<RunningServer> {
  const deadline = Date.now() + READY_WITHIN_MS
  const ghostsGone = Date.now() + GHOSTS_GONE_WITHIN_MS
  for (;;) {
    const server = spawnServer(options)
    const problem = await waitUntilReady(server, options.connection, deadline)
    if (!problem) return server
    await stopServer(server)
    const tail = await server.logTail()
    if (!GHOSTS.test(tail) || Date.now() > ghostsGone) throw new Error(`${problem}. Last lines of ${options.logFile}:\n${tail}`)
    await sleep(200)
  }
}

function spawnServer({ runner, clusterDir, settings, logFile }: StartOptions): RunningServer {
  if ((statSync(logFile, { throwIfNoEntry: false })?.size ?? 0) > MAX_LOG_BYTES) renameSync(logFile, `${logFile}.1`)
  const log = openSync(logFile, 'a', 0o600)
  const { owner } = runner
  if (owner) fchownSync(log, owner.uid, owner.gid)
  const start = statSync(logFile).size
  const flags = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])
  const [file, args, spawnOptions] = runner.command('postgres', ['-D', clusterDir, ...flags])
  // Detached, that is in a session of its own: Ctrl-C in a terminal reaches the whole group, and PostgreSQL must outlive
  // Node's own graceful stop. To a file, not a pipe: it must not depend on us to go on.
  const child = spawn(file, args, { ...spawnOptions, detached: true, stdio: ['ignore', log, log] })
  closeSync(log)
  child.on('error', () => undefined) // told by the missing pid
  if (child.pid === undefined) throw new Error(`PostgreSQL could not be started with ${file}`)
  const exited = new Promise<string>((done) => {
    child.once('exit', (code, signal) => done(signal ? `signal ${signal}` : `exit code ${code}`))
  })
  const logTail = async () =>
    (await readFile(logFile).catch(() => Buffer.alloc(0))).subarray(start).toString().trim().split('\n').slice(-12).join('\n')
  return { child, pid: child.pid, exited, logTail }
}

async function stopServer({ child, pid, exited }: RunningServer): Promise<void> {
  // Once it has exited, its pid may be somebody else's.
  if (child.exitCode === null && child.signalCode === null) await stopProcess(pid)
  await exited
}

/** Undefined when a connection works, else what went wrong. Creates our database the first time. */
async function waitUntilReady(
  server: RunningServer,
  connection: EmbeddedPostgres['connection'],
  deadline: number,
): Promise<string | undefined> {
  let ended: string | undefined
  void server.exited.then((how) => {
    ended = how
  })
  for (let wait = 5; Date.now() < deadline; wait = Math.min(wait * 1.5, 100)) {
    await sleep(wait)
    if (ended !== undefined) return `PostgreSQL did not start (${ended})`
    const code = await tryQuery(connection, 'SELECT 1')
    if (code === undefined) return undefined
    if (code === '3D000') await tryQuery({ ...connection, database: 'postgres' }, `CREATE DATABASE ${NAME}`)
    if (code === '28P01') return 'PostgreSQL refuses the password in postgres.password'
  }
  return `PostgreSQL was not ready after ${READY_WITHIN_MS / 1000} seconds`
}

/** Undefined if it worked, else the error's code. */
export async function tryQuery(connection: EmbeddedPostgres['connection'], text: string): Promise<string | undefined> {
  const client = new pg.Client({ ...connection, connectionTimeoutMillis: 5_000 })
  client.on('error', () => undefined)
  try {
    await client.connect()
    await client.query(text)
    return undefined
  } catch (error) {
    return (error as { code?: string }).code ?? 'unknown'
  } finally {
    await client.end().catch(() => undefined)
  }
}
