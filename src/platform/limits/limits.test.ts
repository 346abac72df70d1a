import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { atOnce } from '../../../test/support/at-once.ts'
import { redisUrl, startRedis } from '../../../test/support/services.ts'
import type { LimitState, Limits } from './limits.ts'
import { createMemoryLimits } from './memory.ts'
import { createRedisLimits } from './redis.ts'

const all: Limits[] = []
afterEach(async () => {
  for (const limits of all.splice(0)) await limits.close()
})
const kept = (limits: Limits) => {
  all.push(limits)
  return limits
}

const ten = { points: 10, windowMs: 60_000 }

describe.each([
  ['memory', async () => createMemoryLimits()],
  ['redis', () => createRedisLimits({ url: redisUrl(), prefix: `${randomUUID()}:` })],
])('limits (%s)', (_kind, make) => {
  test('count down, then refuse, and say when to come back', async () => {
    const limits = kept(await make())
    for (let left = 9; left >= 0; left--) {
      const state = await limits.hit('login', '10.0.0.1', ten)
      expect(state).toMatchObject({ allowed: true, limit: 10, remaining: left })
    }
    const refused = await limits.hit('login', '10.0.0.1', ten)
    expect(refused).toMatchObject({ allowed: false, limit: 10, remaining: 0 })
    expect(refused.resetMs).toBeGreaterThan(55_000)
    expect(refused.resetMs).toBeLessThanOrEqual(60_000)
  })

  test('keys and names do not touch each other', async () => {
    const limits = kept(await make())
    const one = { points: 1, windowMs: 60_000 }
    expect((await limits.hit('a', 'x', one)).allowed).toBe(true)
    expect((await limits.hit('a', 'x', one)).allowed).toBe(false)
    expect((await limits.hit('a', 'y', one)).allowed).toBe(true)
    expect((await limits.hit('b', 'x', one)).allowed).toBe(true)
    expect((await limits.hit('b:x', '', one)).allowed).toBe(true)
  })

  test('100 simultaneous hits at a limit of 10 let exactly 10 pass', async () => {
    const limits = kept(await make())
    const states = await Promise.all(Array.from({ length: 100 }, () => limits.hit('message', 'u', ten)))
    expect(states.filter((state) => state.allowed)).toHaveLength(10)
  })

  test('a window shorter than a second ends, and refused hits do not prolong it', async () => {
    const limits = kept(await make())
    const rule = { points: 2, windowMs: 400 }
    const begun = performance.now()
    for (let i = 0; i < 2; i++) expect((await limits.hit('n', 'k', rule)).allowed).toBe(true)
    while (performance.now() - begun < 350) {
      const state = await limits.hit('n', 'k', rule)
      if (performance.now() - begun < 350) expect(state.allowed).toBe(false)
      await sleep(20)
    }
    await sleep(120)
    expect(await limits.hit('n', 'k', rule)).toMatchObject({ allowed: true, remaining: 1 })
  })

  test('a window of months counts as well', async () => {
    const limits = kept(await make())
    const rule = { points: 1, windowMs: 90 * 86_400_000 }
    await limits.hit('n', 'k', rule)
    await sleep(20)
    expect((await limits.hit('n', 'k', rule)).allowed).toBe(false)
  })

  test('a hit may cost more than one point, or only look', async () => {
    const limits = kept(await make())
    expect(await limits.hit('n', 'k', ten, 0)).toMatchObject({ allowed: true, remaining: 10 })
    expect(await limits.hit('n', 'k', ten, 7)).toMatchObject({ allowed: true, remaining: 3 })
    expect(await limits.hit('n', 'k', ten, 4)).toMatchObject({ allowed: false, remaining: 0 })
    expect(await limits.hit('n', 'k', ten, 0)).toMatchObject({ allowed: false })
  })

  test('reset forgets, whatever the rule was', async () => {
    const limits = kept(await make())
    const one = { points: 1, windowMs: 60_000 }
    await limits.hit('n', 'k', one)
    await limits.hit('n', 'other', one)
    await limits.reset('n', 'k')
    await limits.reset('never', 'heard of')
    expect((await limits.hit('n', 'k', one)).allowed).toBe(true)
    expect((await limits.hit('n', 'other', one)).allowed).toBe(false)
  })

  test('another rule for the same key goes on from the same count', async () => {
    const limits = kept(await make())
    await limits.hit('general', 'u', ten, 10)
    expect((await limits.hit('general', 'u', { points: 1_000, windowMs: 60_000 })).remaining).toBe(989)
    expect((await limits.hit('general', 'u', ten)).allowed).toBe(false)
  })

  test('a rule that is off always allows', async () => {
    const limits = kept(await make())
    for (let i = 0; i < 100; i++) expect((await limits.hit('n', 'k', null)).allowed).toBe(true)
    expect(await limits.hit('n', 'k', ten)).toMatchObject({ remaining: 9 })
  })
})

test('in memory, of too many keys the one hit longest ago is forgotten', async () => {
  const limits = kept(createMemoryLimits({ maxKeys: 100 }))
  const one = { points: 1, windowMs: 60_000 }
  await limits.hit('n', 'first', one)
  for (let i = 0; i < 98; i++) await limits.hit('n', `k${i}`, one)
  await limits.hit('n', 'first', one)
  for (let i = 98; i < 197; i++) await limits.hit('n', `k${i}`, one)
  expect((await limits.hit('n', 'k196', one)).allowed).toBe(false)
  expect((await limits.hit('n', 'first', one, 0)).allowed).toBe(false)
  expect((await limits.hit('n', 'k0', one)).allowed).toBe(true)
})

describe('limits over Redis', () => {
  test('100 simultaneous hits on two instances let exactly 10 pass', async () => {
    const options = { url: redisUrl(), prefix: `${randomUUID()}:` }
    const [a, b] = [kept(await createRedisLimits(options)), kept(await createRedisLimits(options))]
    const states = await Promise.all(Array.from({ length: 100 }, (_, i) => (i % 2 ? a : b).hit('message', 'u', ten)))
    expect(states.filter((state) => state.allowed)).toHaveLength(10)
    await a.reset('message', 'u')
    expect((await b.hit('message', 'u', ten)).remaining).toBe(9)
  })

  test('keys carry the prefix and end by themselves', async () => {
    const prefix = `${randomUUID()}:`
    const limits = kept(await createRedisLimits({ url: redisUrl(), prefix }))
    await limits.hit('login', 'k', { points: 1, windowMs: 5_000 })
    const redis = new Redis(redisUrl())
    const keys = await redis.keys(`${prefix}*`)
    expect(keys).toHaveLength(1)
    expect(await redis.pttl(keys[0]!)).toBeGreaterThan(4_000)
    redis.disconnect()
  })

  test('Redis away: counted locally, at once, and told; then shared again', async () => {
    const redis = await startRedis()
    const onFallback = vi.fn()
    const limits = kept(await createRedisLimits({ url: redis.url, onFallback }))
    await limits.hit('message', 'u', ten)
    expect(onFallback).not.toHaveBeenCalled()
    await redis.stop()
    // That it is away has been noticed.
    await vi.waitFor(async () => expect(await atOnce(() => limits.hit('message', 'probe', ten))).toBe(true), { timeout: 5_000 })
    onFallback.mockClear()
    let states: LimitState[] = []
    const hits = async () => {
      states = await Promise.all(Array.from({ length: 100 }, () => limits.hit('message', 'u', ten)))
    }
    expect(await atOnce(hits)).toBe(true)
    expect(states.filter((state) => state.allowed)).toHaveLength(10)
    expect(onFallback).toHaveBeenCalledTimes(100)
    expect(onFallback).toHaveBeenLastCalledWith('message')
    await limits.reset('message', 'u')
    expect((await limits.hit('message', 'u', ten)).remaining).toBe(9)
    await redis.start()
    onFallback.mockClear()
    await vi.waitFor(
      async () => {
        onFallback.mockClear()
        await limits.hit('message', 'probe', null)
        await limits.hit('message', 'probe', ten)
        expect(onFallback).not.toHaveBeenCalled()
      },
      { timeout: 5_000 },
    )
    await redis.stop()
  })

  test('Redis hangs: no hit waits for it longer than half a second', async () => {
    const redis = await startRedis()
    const onFallback = vi.fn()
    const limits = kept(await createRedisLimits({ url: redis.url, onFallback }))
    await limits.hit('message', 'u', ten)
    redis.pause()
    const begun = performance.now()
    expect((await limits.hit('message', 'u', ten)).allowed).toBe(true)
    // And what a busy machine takes on top; by itself the outage is noticed after a second.
    expect(performance.now() - begun).toBeLessThan(900)
    expect(onFallback).toHaveBeenCalledTimes(1)
    await sleep(2_500)
    expect(await atOnce(() => limits.hit('message', 'u', ten))).toBe(true)
    await redis.stop()
  })

  test('a Redis that comes after the start: counted together from then on', async () => {
    const redis = await startRedis()
    await redis.stop()
    const [a, b] = [kept(await createRedisLimits({ url: redis.url })), kept(await createRedisLimits({ url: redis.url }))]
    await redis.start()
    await vi.waitFor(
      async () => {
        const key = randomUUID()
        expect([(await a.hit('message', key, ten)).remaining, (await b.hit('message', key, ten)).remaining]).toEqual([9, 8])
      },
      { timeout: 10_000 },
    )
    await redis.stop()
  })

  test('a Redis that was never there', async () => {
    const redis = await startRedis()
    await redis.stop()
    const limits = kept(await createRedisLimits({ url: redis.url }))
    const states = await Promise.all(Array.from({ length: 100 }, () => limits.hit('message', 'u', ten)))
    expect(states.filter((state) => state.allowed)).toHaveLength(10)
  })
})
