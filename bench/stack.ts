import { existsSync, readFileSync, statfsSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { type EmbeddedPostgres, openEmbedded } from '../src/platform/db/embedded.ts'
import { startRedis } from '../test/support/redis.ts'
import { ensureTool, scratch } from '../test/support/tools.ts'
import { undoLater } from './ending.ts'
import { childrenOf, type Pids } from './proc.ts'
import { type Running, root, startNode } from './processes.ts'

/** What a scenario runs against: a durable PostgreSQL and a Redis of its own, and servers as they are run in production. */

export interface StackOptions {
  instances?: number
  /** Of the servers, beside limits that are off and cheap passwords. */
  env?: Record<string, string>
  /** Of PostgreSQL, beside those that the server's own embedded one has. */
  settings?: Record<string, string>
  /** A server that runs already: nothing is started. */
  url?: string | undefined
}

export interface Stack {
  /** Of each instance. */
  urls: string[]
  pids: Pids
  servers: Running[]
  /** Undefined for a server that runs elsewhere. */
  database: pg.ClientConfig | undefined
  redisPort: number | undefined
  /** All processes of PostgreSQL. */
  postgresPids(): number[]
  postgresLog: string
  /** Stops the servers and starts new ones, on the same database. */
  restart(): Promise<void>
  query<Row extends object>(text: string, values?: unknown[]): Promise<Row[]>
  close(): Promise<void>
}

const limits = ['GENERAL', 'PREMIUM', 'LOGIN', 'LOGIN_ACCOUNT', 'REGISTER', 'MESSAGE', 'FRAME']
/** What has no limits, so that it is the server that is measured. */
const freeEnv = { PORT: '0', BCRYPT_COST: '4', LOG_LEVEL: 'warn', JWT_SECRET: 'a secret of the benchmark, long enough' }

const tmpfs = 0x01021994

/** What `npm start` gives to node: the server is measured as it is run. */
const startArguments = (
  JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { scripts: { start: string } }
).scripts.start
  .split(' ')
  .slice(1)

export async function openPostgres(settings: Record<string, string> = {}): Promise<{
  postgres: EmbeddedPostgres
  pid: number
  logFile: string
  close(): Promise<void>
}> {
  const folder = await scratch('bench')
  const removeFolder = undoLater(folder.remove)
  if (statfsSync(folder.dir).type === tmpfs)
    console.error(
      `${folder.dir} is in memory: an fsync costs nothing there. Set TMPDIR to a folder on a disk for figures that mean something.`,
    )
  const log = { info: () => {}, debug: () => {}, warn: console.warn }
  const before = new Set(childrenOf(process.pid))
  const postgres = await openEmbedded({ dataDir: folder.dir, log, settings })
  // openEmbedded keeps the pid to itself; with setpriv it is that of our new child.
  const pid = childrenOf(process.pid).find((child) => !before.has(child)) ?? 0
  const stop = undoLater(async () => {
    await postgres.close()
    for (let n = 0; n < 100 && existsSync(join(folder.dir, 'postgres', 'postmaster.pid')); n += 1) await sleep(50)
  })
  return {
    postgres,
    pid,
    logFile: join(folder.dir, 'postgres.log'),
    async close() {
      await stop()
      await removeFolder()
    },
  }
}

export async function openRedis(): Promise<{ url: string; port: number; pid: number; close(): Promise<void> }> {
  ensureTool('redis-server', 'redis-server')
  const redis = await startRedis()
  return { url: redis.url, port: redis.port, pid: redis.pid!, close: undoLater(() => redis.stop()) }
}

export const urlOf = ({ user, password, host, port, database }: EmbeddedPostgres['connection']): string =>
  `postgres://${user}:${password}@/${database}?host=${encodeURIComponent(host)}&port=${port}`

export async function openStack(options: StackOptions = {}): Promise<Stack> {
  if (options.url !== undefined) return elsewhere(options.url)
  const { postgres, pid, logFile, close: closePostgres } = await openPostgres(options.settings)
  const redis = await openRedis()
  const pids: Pids = { server: [], postgres: [pid], redis: [redis.pid] }
  const env = {
    ...freeEnv,
    ...Object.fromEntries(limits.map((name) => [`RATE_LIMIT_${name}`, 'off'])),
    DATABASE_URL: urlOf(postgres.connection),
    REDIS_URL: redis.url,
    ...options.env,
  }
  const client = new pg.Client(postgres.connection)
  client.on('error', () => {})
  const stack: Stack = {
    urls: [],
    pids,
    servers: [],
    database: postgres.connection,
    redisPort: redis.port,
    postgresPids: () => [pid, ...childrenOf(pid)],
    postgresLog: logFile,
    async restart() {
      await Promise.all(stack.servers.map((server) => server.stop()))
      stack.servers = []
      stack.urls = []
      for (let n = 0; n < (options.instances ?? 1); n += 1) {
        const server = await startNode([...serverFlags(), ...startArguments], { env, ready: /is ready on (http\S+)/ })
        stack.servers.push(server)
        stack.urls.push(server.said)
      }
      pids.server = stack.servers.map((server) => server.pid)
    },
    async query<Row extends object>(text: string, values: unknown[] = []) {
      return (await client.query<Row>(text, values)).rows
    },
    async close() {
      await Promise.all(stack.servers.map((server) => server.stop()))
      await client.end()
      await redis.close()
      await closePostgres()
    },
  }
  await stack.restart()
  await client.connect()
  return stack
}

/** `SERVER_FLAGS="--cpu-prof --cpu-prof-dir=…"` profiles the servers while they are measured. */
const serverFlags = (): string[] => (process.env.SERVER_FLAGS ?? '').split(' ').filter(Boolean)

function elsewhere(url: string): Stack {
  const nothing = () => {
    throw new Error('This needs a server of its own: leave out --url.')
  }
  return {
    urls: [url.replace(/\/$/, '')],
    pids: { server: [], postgres: [], redis: [] },
    servers: [],
    database: undefined,
    redisPort: undefined,
    postgresPids: () => [],
    postgresLog: '',
    restart: async () => {},
    query: nothing,
    close: async () => {},
  }
}
