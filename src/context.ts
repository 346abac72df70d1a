import { randomUUID } from 'node:crypto'
import { mkdir, readFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import type { Config } from './config.ts'
import type { Bus } from './platform/bus/bus.ts'
import { createClusterBus } from './platform/bus/cluster.ts'
import { createMemoryBus } from './platform/bus/memory.ts'
import { createRedisBus } from './platform/bus/redis.ts'
import { type Cluster, isCluster, openCluster } from './platform/cluster.ts'
import { type Db, type DbOptions, openDb } from './platform/db/db.ts'
import { DataDirInUseError, openEmbedded } from './platform/db/embedded.ts'
import { type InstanceLock, lockInstance, migrate, StartError } from './platform/db/migrate.ts'
import type { Limits } from './platform/limits/limits.ts'
import { createMemoryLimits } from './platform/limits/memory.ts'
import { createClusterLimits, createRedisLimits } from './platform/limits/redis.ts'
import { createLog, type Log } from './platform/log.ts'
import { createMetrics, type Metrics } from './platform/metrics.ts'
import { createMemoryPresence } from './platform/presence/memory.ts'
import type { PresenceStore } from './platform/presence/presence.ts'
import { createRedisPresence } from './platform/presence/redis.ts'
import { keepSecret } from './platform/secret.ts'
import { createDiskStorage, type Storage } from './platform/storage.ts'

/** Everything that has a lifetime, opened in this order and closed in reverse. */
export interface Context {
  config: Config
  log: Log
  metrics: Metrics
  /** This process among the instances. */
  instanceId: string
  db: Db
  bus: Bus
  limits: Limits
  presence: PresenceStore
  storage: Storage
  /** What operators' commands tell running servers. */
  notices: Pick<InstanceLock, 'onNotice' | 'onGap'>
  /** Signs access tokens. */
  jwt: { secret: string | undefined; privateKey: string | undefined }
  close(): Promise<void>
}

/** What a test may bring itself. What it brings, it closes. */
export type Overrides = Partial<Pick<Context, 'log' | 'bus' | 'limits' | 'presence'>>

export interface ContextOptions {
  config: Config
  overrides?: Overrides
  /** The process cannot go on; called at most once, with a line for the operator. */
  onFatal: (why: string) => void
}

export async function openContext({ config, overrides = {}, onFatal }: ContextOptions): Promise<Context> {
  const closers: (() => Promise<unknown> | unknown)[] = []
  const opened = <T extends { close(): Promise<unknown> | unknown }>(thing: T): T => {
    closers.push(() => thing.close())
    return thing
  }
  const close = async () => {
    // One that fails must not keep the others open.
    for (const closer of closers.splice(0).reverse())
      await Promise.resolve(closer()).catch((error: unknown) => log.error({ err: error }, 'could not be closed'))
  }
  const log = overrides.log ?? createLog(config.logLevel)
  const metrics = createMetrics()
  try {
    const connection = await openDatabase(config, log, opened, onFatal)
    await migrate(connection)
    const notices = opened(await lockInstance(connection, config.redisUrl ? 'shared' : 'alone', onFatal))
    const db = opened(
      openDb({
        connection,
        poolSize: config.databasePoolSize,
        onError: (error) => log.warn({ err: error }, 'a database connection was lost'),
      }),
    )
    metrics.watchDb(db)
    const redis = config.redisUrl === undefined ? undefined : { url: config.redisUrl, prefix: config.redisPrefix, log }
    const cluster = redis && (await findCluster(redis, opened, onFatal))
    const onFallback = () => metrics.limitFallbacks.inc()
    const openBus = () => (cluster ? createClusterBus({ ...redis, cluster }) : redis && createRedisBus(redis))
    const openLimits = () =>
      cluster ? createClusterLimits({ ...redis, cluster, onFallback }) : redis && createRedisLimits({ ...redis, onFallback })
    // Each waits a while for a Redis that is away: together, not one after the other.
    const [bus, limits, presence] = await Promise.all([
      overrides.bus ?? openBus()?.then(opened) ?? opened(createMemoryBus()),
      overrides.limits ?? openLimits()?.then(opened) ?? opened(createMemoryLimits()),
      overrides.presence ?? (redis ? createRedisPresence({ ...redis, cluster }).then(opened) : opened(createMemoryPresence())),
    ])
    metrics.watchBus(bus)
    const jwt = await readKeys(config)
    const storage = createDiskStorage(resolve(config.dataDir))
    return { config, log, metrics, instanceId: randomUUID(), db, bus, limits, presence, storage, notices, jwt, close }
  } catch (error) {
    await close()
    throw error instanceof DataDirInUseError ? new StartError(error.message) : error
  }
}

async function openDatabase(
  config: Config,
  log: Log,
  opened: <T extends { close(): Promise<unknown> }>(thing: T) => T,
  onFatal: (why: string) => void,
): Promise<DbOptions['connection']> {
  if (config.databaseUrl !== undefined) return { connectionString: config.databaseUrl }
  const dataDir = resolve(config.dataDir)
  await mkdir(dataDir, { recursive: true })
  const embedded = opened(await openEmbedded({ dataDir, log }))
  embedded.onExit((why) => onFatal(`The embedded PostgreSQL ended: ${why}`))
  return embedded.connection
}

const askAgainMs = 5_000

/**
 * A cluster is recognised by asking. Where nothing answers, it is taken for an ordinary Redis that is away; should it turn out
 * to be a cluster, this process cannot speak to it and has to start again.
 */
async function findCluster(
  { url, log }: { url: string; log: Log },
  opened: <T extends { close(): void }>(thing: T) => T,
  onFatal: (why: string) => void,
): Promise<Cluster | undefined> {
  const answer = await isCluster(url)
  if (answer) return opened(await openCluster(url, log))
  if (answer === undefined) {
    const timer = setInterval(async () => {
      const late = await isCluster(url)
      if (late !== undefined) clearInterval(timer)
      if (late) onFatal('REDIS_URL names a Redis Cluster, which did not answer at the start.')
    }, askAgainMs).unref()
    opened({ close: () => clearInterval(timer) })
  }
  return undefined
}

async function readKeys(config: Config): Promise<Context['jwt']> {
  if (config.jwtPrivateKeyFile !== undefined) {
    const privateKey = await readFile(config.jwtPrivateKeyFile, 'utf8').catch(() => {
      throw new StartError(`JWT_PRIVATE_KEY_FILE must name a file that can be read; ${config.jwtPrivateKeyFile} cannot.`)
    })
    return { secret: config.jwtSecret, privateKey }
  }
  if (config.jwtSecret !== undefined) return { secret: config.jwtSecret, privateKey: undefined }
  return { secret: await keepSecret(join(resolve(config.dataDir), 'jwt.secret')), privateKey: undefined }
}
