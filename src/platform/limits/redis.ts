import { RateLimiterRedis } from 'rate-limiter-flexible'
import { type Cluster, isMisplaced } from '../cluster.ts'
import { connectRedis, type RedisLog, type RedisOptions, within } from '../redis.ts'
import { type Limits, stateOf, unlimited } from './limits.ts'
import { createMemoryLimits } from './memory.ts'

interface Common {
  /** Called for each hit that was counted locally because Redis was away. */
  onFallback?: (name: string) => void
}

export type RedisLimitsOptions = RedisOptions & Common

export interface ClusterLimitsOptions extends Common {
  cluster: Cluster
  prefix?: string | undefined
  log?: RedisLog | undefined
}

// Longer than this no request waits for its limit; the count that Redis may still make is no harm.
const patienceMs = 300

// The library's own script counts whole seconds; this one takes its second argument as milliseconds.
const count = `
redis.call('set', KEYS[1], 0, 'PX', ARGV[2], 'NX')
local consumed = redis.call('incrby', KEYS[1], ARGV[1])
local ttl = redis.call('pttl', KEYS[1])
if ttl < 0 then
  redis.call('pexpire', KEYS[1], ARGV[2])
  ttl = tonumber(ARGV[2])
end
return {consumed, ttl}`

/** Counts on one Redis. */
function openStore({ url, prefix = 'parley:', log }: RedisOptions) {
  const link = connectRedis(url, log, { name: 'limits', prefix })
  const limiters = new Map<string, RateLimiterRedis>()
  return {
    link,
    limiterOf(name: string): RateLimiterRedis {
      let limiter = limiters.get(name)
      if (!limiter) {
        // The rule comes with each hit: `penalty` counts without judging, so points are of no meaning here.
        limiter = new RateLimiterRedis({
          storeClient: link.client,
          keyPrefix: `${prefix}limit:${name}`,
          points: 1,
          duration: 1,
          rejectIfRedisNotReady: true,
          customIncrTtlLuaScript: count,
        })
        limiters.set(name, limiter)
      }
      return limiter
    },
  }
}

type Store = ReturnType<typeof openStore>

/** Counts in Redis for all instances, and in this process while Redis is away. Resolves once connected, or after two seconds without. */
export async function createRedisLimits({ onFallback, ...options }: RedisLimitsOptions): Promise<Limits> {
  const store = openStore(options)
  await store.link.ready
  return limitsOver(
    () => store,
    () => {},
    () => store.link.close(),
    onFallback,
  )
}

/** The same in a cluster: each count lies where its key does, so that all nodes share the work. */
export async function createClusterLimits({
  cluster,
  prefix = 'parley:',
  log,
  onFallback,
}: ClusterLimitsOptions): Promise<Limits> {
  const stores = new Map<string, Store>()
  const arrange = () => {
    for (const url of cluster.masters) if (!stores.has(url)) stores.set(url, openStore({ url, prefix, log }))
    for (const [url, { link }] of stores) {
      if (cluster.masters.has(url)) continue
      stores.delete(url)
      void link.close()
    }
  }
  arrange()
  cluster.onChange(arrange)
  await Promise.all(Array.from(stores.values(), ({ link }) => link.ready))
  return limitsOver(
    (name, key) => {
      const owner = cluster.ownerOf(`${prefix}limit:${name}:${key}`)
      return owner === undefined ? undefined : stores.get(owner)
    },
    (error) => {
      if (isMisplaced(error)) void cluster.refresh()
    },
    () => Promise.all(Array.from(stores.values(), ({ link }) => link.close())),
    onFallback,
  )
}

function limitsOver(
  storeOf: (name: string, key: string) => Store | undefined,
  onError: (error: unknown) => void,
  close: () => Promise<unknown>,
  onFallback: Common['onFallback'],
): Limits {
  const local = createMemoryLimits()
  return {
    async hit(name, key, rule, cost = 1) {
      if (rule === null) return unlimited
      const store = storeOf(name, key)
      if (store?.link.up) {
        try {
          const counted = await within(patienceMs, store.limiterOf(name).penalty(key, cost, { customDuration: rule.windowMs }))
          return stateOf(rule, counted.consumedPoints, counted.msBeforeNext)
        } catch (error) {
          // Whatever it was, a limit must neither fail the request nor be forgotten.
          onError(error)
        }
      }
      onFallback?.(name)
      return local.hit(name, key, rule, cost)
    },
    async reset(name, key) {
      await local.reset(name, key)
      const store = storeOf(name, key)
      if (store?.link.up) await within(patienceMs, store.limiterOf(name).delete(key)).catch(onError)
    },
    async close() {
      await Promise.all([local.close(), close()])
    },
  }
}
