import { RateLimiterMemory } from 'rate-limiter-flexible'
import { type Limits, stateOf, unlimited } from './limits.ts'

// A record is dropped by a timer, and a timer that is longer than this fires at once.
const longestTimerMs = 2 ** 31 - 1

interface Counter {
  limiter: RateLimiterMemory
  /** Keys from the one hit longest ago to the newest. */
  keys: Set<string>
}

export interface MemoryLimitsOptions {
  /** Keys counted under one name; beyond them the one hit longest ago is forgotten. */
  maxKeys?: number
}

/** Counts in this process alone: the store of a single instance, and what stands in while Redis is away. */
export function createMemoryLimits({ maxKeys = 50_000 }: MemoryLimitsOptions = {}): Limits {
  const counters = new Map<string, Counter>()

  function counterOf(name: string): Counter {
    let counter = counters.get(name)
    if (!counter) {
      // The rule comes with each hit: `penalty` counts without judging, so points are of no meaning here.
      counter = { limiter: new RateLimiterMemory({ points: 1, duration: 1 }), keys: new Set() }
      counters.set(name, counter)
    }
    return counter
  }

  return {
    async hit(name, key, rule, cost = 1) {
      if (rule === null) return unlimited
      const { limiter, keys } = counterOf(name)
      keys.delete(key)
      keys.add(key)
      if (keys.size > maxKeys) {
        const oldest = keys.values().next().value!
        keys.delete(oldest)
        await limiter.delete(oldest)
      }
      const customDuration = Math.min(rule.windowMs, longestTimerMs) / 1000
      const counted = await limiter.penalty(key, cost, { customDuration })
      return stateOf(rule, counted.consumedPoints, counted.msBeforeNext)
    },
    async reset(name, key) {
      const counter = counters.get(name)
      if (!counter) return
      counter.keys.delete(key)
      await counter.limiter.delete(key)
    },
    async close() {
      for (const { limiter, keys } of counters.values()) for (const key of keys) await limiter.delete(key)
      counters.clear()
    },
  }
}
