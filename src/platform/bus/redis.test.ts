import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { ears, text, until } from '../../../test/support/ears.ts'
import { redisUrl, startRedis } from '../../../test/support/services.ts'
import type { Bus } from './bus.ts'
import { createRedisBus } from './redis.ts'

describe('the Redis bus', () => {
  const buses: Bus[] = []
  afterEach(async () => {
    for (const bus of buses.splice(0)) await bus.close()
  })

  test('notices a server that hangs within 3 s, does not wait for it, and tells a gap when it goes on', async () => {
    const redis = await startRedis()
    const bus = await createRedisBus({ url: redis.url, subscribeTimeoutMs: 200 })
    const other = await createRedisBus({ url: redis.url })
    buses.push(bus, other)
    const { heard } = ears(other)
    const { gaps } = ears(bus)
    await other.subscribe(['x'])
    await redis.pause()
    bus.publish('x', text('into the void'))
    await until(() => expect(bus.connected).toBe(false), 3_000)
    expect(await bus.subscribe(['y'])).toBe(false)
    await redis.resume()
    await until(() => expect(gaps).toHaveBeenCalled())
    expect(bus.connected).toBe(true)
    bus.publish('x', text('here again'))
    await until(() => expect(heard).toContain('x here again'))
    await redis.stop()
  })

  test('starts without Redis, and finds it later', async () => {
    const redis = await startRedis()
    await redis.stop()
    const log = { info: vi.fn(), warn: vi.fn() }
    const bus = await createRedisBus({ url: redis.url, log })
    buses.push(bus)
    const { heard } = ears(bus)
    const other = await createRedisBus({ url: redis.url })
    buses.push(other)
    expect(bus.connected).toBe(false)
    const held = bus.subscribe(['x'])
    expect(await held).toBe(false)
    // One line for each of the two connections, however often they tried.
    expect(log.warn).toHaveBeenCalledTimes(2)
    await redis.start()
    await until(() => expect(bus.connected).toBe(true))
    expect(await bus.subscribe(['x'])).toBe(true)
    await until(() => expect(other.connected).toBe(true))
    other.publish('x', text(1))
    await until(() => expect(heard).toEqual(['x 1']))
    expect(log.info).toHaveBeenCalledTimes(2)
    await redis.stop()
  })

  test('what goes beyond the bound is dropped, and every instance is told of a gap', async () => {
    const options = { url: redisUrl(), prefix: `${randomUUID()}:` }
    const a = await createRedisBus({ ...options, maxOutstandingBytes: 100_000 })
    const b = await createRedisBus(options)
    buses.push(a, b)
    const [inA, inB] = [ears(a), ears(b)]
    await b.subscribe(['x'])
    for (let i = 0; i < 100; i++) a.publish('x', Buffer.alloc(10_000))
    expect(a.dropped).toBe(91)
    await until(() => expect(inA.gaps).toHaveBeenCalledTimes(1))
    await until(() => expect(inB.gaps).toHaveBeenCalledTimes(1))
    expect(inB.heard).toHaveLength(9)
    a.publish('x', text('again'))
    await until(() => expect(inB.heard.at(-1)).toBe('x again'))
  })

  test('two installations on one server do not hear each other', async () => {
    const a = await createRedisBus({ url: redisUrl(), prefix: `${randomUUID()}:` })
    const prefix = `${randomUUID()}:`
    const b = await createRedisBus({ url: redisUrl(), prefix })
    const c = await createRedisBus({ url: redisUrl(), prefix })
    buses.push(a, b, c)
    const { heard } = ears(b)
    await b.subscribe(['x'])
    a.publish('x', text('theirs'))
    c.publish('x', text('ours'))
    await until(() => expect(heard).toEqual(['x ours']))
  })

  test('alone it publishes nothing; who comes is heard from then on, and told what may have been missed', async () => {
    const redis = await startRedis()
    const admin = new Redis(redis.url)
    const published = async () => Number(/cmdstat_publish:calls=(\d+)/.exec(await admin.info('commandstats'))?.[1] ?? 0)
    const a = await createRedisBus({ url: redis.url })
    buses.push(a)
    const inA = ears(a)
    await a.subscribe(['x'])
    const before = await published()
    for (let i = 0; i < 100; i++) a.publish('x', text(i))
    await sleep(50)
    expect([await published(), a.dropped]).toEqual([before, 0])
    const b = await createRedisBus({ url: redis.url })
    buses.push(b)
    const inB = ears(b)
    await b.subscribe(['x'])
    a.publish('x', text('to b'))
    b.publish('x', text('to a'))
    await until(() => expect(inB.heard).toEqual(['x to b', 'x to a']))
    await until(() => expect(inA.heard).toContain('x to a'))
    // Nothing that it missed was published while it listened.
    expect(inA.gaps).not.toHaveBeenCalled()
    // Whoever stays behind goes on.
    await b.close()
    const more = await published()
    a.publish('x', text('again'))
    await until(async () => expect(await published()).toBe(more + 1))
    admin.disconnect()
    await redis.stop()
  })

  test('whenever the second comes, and whichever connections break: what it does not hear it is told of as a gap', async () => {
    const admin = new Redis(redisUrl())
    for (let round = 0; round < 25; round++) {
      const options = { url: redisUrl(), prefix: `${randomUUID()}:` }
      const ofA = new Set<string>()
      const ids = async () => String(await admin.client('LIST')).match(/(?<=^id=)\d+/gm) as string[]
      const known = new Set(await ids())
      const a = await createRedisBus(options)
      for (const id of await ids()) if (!known.has(id)) ofA.add(id)
      let last = 0
      const publishing = setInterval(() => a.publish('x', text(++last)), 1)
      await sleep(Math.random() * 10)
      if (round % 3 === 1) for (const id of ofA) await admin.client('KILL', 'ID', id)
      await sleep(Math.random() * 60)
      const b = await createRedisBus(options)
      buses.push(a, b)
      const heard = new Set<number>()
      let gapAt = 0
      b.onMessage((_channel, payload) => heard.add(Number(payload)))
      b.onGap(() => {
        gapAt = last
      })
      await until(async () => expect(await b.subscribe(['x'])).toBe(true))
      const from = last
      if (round % 3 === 2) for (const id of ofA) await admin.client('KILL', 'ID', id)
      await sleep(50)
      await until(() => expect([a.connected, b.connected]).toEqual([true, true]))
      clearInterval(publishing)
      const missing = () => Array.from({ length: last - from }, (_, n) => from + n + 1).filter((n) => n > gapAt && !heard.has(n))
      await until(() => expect(missing()).toEqual([]))
      await a.close()
      await b.close()
    }
    admin.disconnect()
  })
})
