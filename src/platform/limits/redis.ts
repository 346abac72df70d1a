import { RateLimiterRedis } from 'rate-limiter-flexible'
import { connectRedis, type RedisOptions, within } from '../redis.ts'
import { type Limits, stateOf, unlimited } from './limits.ts'
import { createMemoryLimits } from './memory.ts'

export interface RedisLimitsOptions extends RedisOptions {
  /** Called for each hit that was counted locally because Redis was away. */
  onFallback?: (name: string) => void
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

/** Counts in Redis for all instances, and in this process while Redis is away. Resolves once connected, or after two seconds without. */
export async function createRedisLimits({ url, prefix = 'parley:', log, onFallback }: RedisLimitsOptions): Promise<Limits> {
  const link = connectRedis(url, log, { name: 'limits', prefix })
  const local = createMemoryLimits()
  const limiters = new Map<string, RateLimiterRedis>()

  function limiterOf(name: string): RateLimiterRedis {
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
  }

  await link.ready
  return {
    async hit(name, key, rule, cost = 1) {
      if (rule === null) return unlimited
      if (link.up) {
        try {
          const counted = await within(patienceMs, limiterOf(name).penalty(key, cost, { customDuration: rule.windowMs }))
          return stateOf(rule, counted.consumedPoints, counted.msBeforeNext)
        } catch {
          // Whatever it was, a limit must neither fail the request nor be forgotten.
        }
      }
      onFallback?.(name)
      return local.hit(name, key, rule, cost)
    },
    async reset(name, key) {
      await local.reset(name, key)
      if (!link.up) return
      await within(patienceMs, limiterOf(name).delete(key)).catch(() => {})
    },
    async close() {
      await Promise.all([local.close(), link.close()])
    },
  }
}
