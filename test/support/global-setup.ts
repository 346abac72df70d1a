/**
 * What every test run needs: one real PostgreSQL, one real Redis, both private to the run. TEST_DATABASE_URL (whose user may
 * create databases) and TEST_REDIS_URL name servers to use instead.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, rmSync } from 'node:fs'
import { mkdtemp } from 'node:fs/promises'
import { constants, tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestProject } from 'vitest/node'
import { openEmbedded } from '../../src/platform/db/embedded.ts'
import { startRedis } from './redis.ts'

declare module 'vitest' {
  interface ProvidedContext {
    /** Of a user who may create databases. Tests take createDatabase() of services.ts instead. */
    databaseUrl: string
    redisUrl: string
  }
}

export default async function setup({ provide }: TestProject): Promise<() => Promise<void>> {
  const closers: (() => Promise<void>)[] = []
  async function close() {
    for (const closer of closers.splice(0).reverse()) await closer()
    for (const signal of SIGNALS) process.off(signal, exitOnSignal)
  }
  for (const signal of SIGNALS) process.once(signal, exitOnSignal)
  try {
    provide('redisUrl', process.env.TEST_REDIS_URL || (await openRedis(closers)))
    provide('databaseUrl', process.env.TEST_DATABASE_URL || (await openPostgres(closers)))
  } catch (error) {
    await close()
    throw error
  }
  return close
}

/** On a signal vitest exits at once, or leaves it to Node: no teardown is called. What must be done is done on `exit`. */
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
const exitOnSignal = (signal: NodeJS.Signals) => process.exit(128 + constants.signals[signal])

async function openPostgres(closers: (() => Promise<void>)[]): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'parley-test-'))
  const remove = () => rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
  closers.push(async () => remove())
  const log = { info: () => undefined, debug: () => undefined, warn: console.warn }
  // Without fsync a crash of the machine may lose data, that of a process does not: every guarantee that a test can see holds.
  const settings = { fsync: 'off', full_page_writes: 'off', max_connections: '200', shared_buffers: '64MB' }
  const postgres = await openEmbedded({ dataDir: folder, log, settings })
  // Listeners run in order: openEmbedded's own has told PostgreSQL to stop, and it takes its pid file away last.
  const removeAtExit = () => {
    for (let i = 0; i < 250 && existsSync(join(folder, 'postgres', 'postmaster.pid')); i++) sleepSync(20)
    remove()
  }
  process.once('exit', removeAtExit)
  closers.push(async () => {
    await postgres.close()
    process.off('exit', removeAtExit)
  })
  const { user, password, host, port } = postgres.connection
  return `postgres://${user}:${password}@/postgres?host=${encodeURIComponent(host)}&port=${port}`
}

const sleepSync = (ms: number) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)

async function openRedis(closers: (() => Promise<void>)[]): Promise<string> {
  const isThere = () => spawnSync('redis-server', ['--version']).status === 0
  if (!isThere()) installRedis()
  if (!isThere())
    throw new Error(
      'The tests need redis-server on the PATH: install it (Debian: apt-get install redis-server), or set TEST_REDIS_URL.',
    )
  const redis = await startRedis()
  closers.push(() => redis.stop())
  return redis.url
}

/** Only as root on a Debian; elsewhere it is for a person to decide. */
function installRedis(): void {
  if (process.getuid?.() !== 0) return
  // RUNLEVEL=1: the package must not start its own server on port 6379.
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' }
  const apt = (...args: string[]) => {
    const result = spawnSync('apt-get', ['-qq', '-o', 'DPkg::Lock::Timeout=120', ...args], {
      env,
      stdio: ['ignore', 'ignore', 'ignore'],
    })
    return result.status === 0
  }
  const install = () => apt('install', '-y', '--no-install-recommends', 'redis-server')
  if (!install() && apt('update')) install()
}
