import { randomBytes, randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { ears, text, until } from '../../../test/support/ears.ts'
import { startRedis } from '../../../test/support/services.ts'
import type { Bus } from './bus.ts'
import { createMemoryBus, createMemoryExchange, type MemoryExchange } from './memory.ts'
import { createRedisBus } from './redis.ts'

/** Where buses meet, and how it breaks. */
interface World {
  bus(subscribeTimeoutMs?: number): Promise<Bus>
  outage(): Promise<void>
  restore(): Promise<void>
  end(): Promise<void>
}

function memoryWorld(): World {
  const exchange = createMemoryExchange()
  return {
    bus: async (subscribeTimeoutMs = 2_000) => createMemoryBus(exchange, { subscribeTimeoutMs }),
    outage: async () => exchange.outage(),
    restore: async () => exchange.restore(),
    end: async () => {},
  }
}

async function redisWorld(): Promise<World> {
  const redis = await startRedis()
  const prefix = `${randomUUID()}:`
  return {
    bus: (subscribeTimeoutMs = 2_000) => createRedisBus({ url: redis.url, prefix, subscribeTimeoutMs }),
    outage: () => redis.stop(),
    restore: () => redis.start(),
    end: () => redis.stop(),
  }
}

describe.each([
  ['memory', async () => memoryWorld()],
  ['redis', redisWorld],
])('a bus (%s)', (_kind, makeWorld) => {
  let world: World
  const buses: Bus[] = []
  const make = async (subscribeTimeoutMs?: number) => {
    const bus = await world.bus(subscribeTimeoutMs)
    buses.push(bus)
    return bus
  }
  beforeAll(async () => {
    world = await makeWorld()
  })
  afterEach(async () => {
    for (const bus of buses.splice(0)) await bus.close()
  })
  afterAll(() => world.end())

  test('a publication reaches every instance that subscribed, and no other', async () => {
    const [a, b, c] = [await make(), await make(), await make()]
    const [heardA, heardB, heardC] = [ears(a), ears(b), ears(c)]
    expect(await a.subscribe(['one', 'two'])).toBe(true)
    expect(await b.subscribe(['one'])).toBe(true)
    expect(await c.subscribe(['three'])).toBe(true)
    a.publish('one', text(1))
    b.publish('two', text(2))
    a.publish('three', text(3))
    await until(() => expect(heardA.heard).toContain('two 2'))
    await until(() => expect(heardC.heard).toEqual(['three 3']))
    await until(() => expect(heardB.heard).toEqual(['one 1']))
    expect(heardA.gaps).not.toHaveBeenCalled()
    expect([a.connected, a.dropped]).toEqual([true, 0])
  })

  test('delivery is never within publish, and the payload is copied', async () => {
    const [bus, other] = [await make(), await make()]
    const { heard } = ears(bus)
    await bus.subscribe(['x'])
    const payload = text('before')
    other.publish('x', payload)
    payload.fill('!')
    expect(heard).toEqual([])
    await until(() => expect(heard).toEqual(['x before']))
  })

  test('what one listener does to its payload is not seen by another', async () => {
    const [a, b] = [await make(), await make()]
    const heard: string[] = []
    for (const bus of [a, b]) {
      bus.onMessage((_channel, payload) => {
        heard.push(payload.toString())
        payload.fill('!')
      })
      await bus.subscribe(['x'])
    }
    a.publish('x', text('mine'))
    await until(() => expect(heard).toEqual(['mine', 'mine']))
  })

  test('bytes arrive as they were, whatever they are', async () => {
    const [a, b] = [await make(), await make()]
    const { raw } = ears(b)
    await b.subscribe(['bytes'])
    const payloads = [Buffer.alloc(0), Buffer.from([0, 13, 10, 255, 254, 128]), randomBytes(300_000)]
    for (const payload of payloads) a.publish('bytes', payload)
    await until(() => expect(raw).toHaveLength(3))
    expect(raw.map((bytes, i) => bytes.equals(payloads[i]!))).toEqual([true, true, true])
  })

  test('publications of one instance keep their order', async () => {
    const [a, b] = [await make(), await make()]
    const { heard } = ears(b)
    await b.subscribe(['o'])
    for (let i = 0; i < 2_000; i++) {
      a.publish('o', text(i))
      if (i % 100 === 0) await sleep(1)
    }
    await until(() => expect(heard).toHaveLength(2_000))
    expect(heard).toEqual(Array.from({ length: 2_000 }, (_, i) => `o ${i}`))
  })

  test('after unsubscribe nothing more is heard', async () => {
    const [bus, other] = [await make(), await make()]
    const { heard } = ears(bus)
    await bus.subscribe(['x', 'y'])
    bus.unsubscribe(['x'])
    // What is sent over another connection may be done before.
    await bus.subscribe(['z'])
    other.publish('x', text(1))
    other.publish('y', text(2))
    await until(() => expect(heard).toEqual(['y 2']))
  })

  test('of wishes in quick succession the last one wins, and truly holds', async () => {
    const [a, b] = [await make(), await make()]
    const { heard } = ears(a)
    const channels = Array.from({ length: 40 }, (_, i) => `storm${i}`)
    const wanted = new Set<string>()
    let seed = 7
    for (let round = 0; round < 3_000; round++) {
      seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31
      const channel = channels[seed % channels.length]!
      if ((seed >> 8) % 2 === 0) {
        wanted.add(channel)
        void a.subscribe([channel])
      } else {
        wanted.delete(channel)
        a.unsubscribe([channel])
      }
      if (round % 7 === 0) await new Promise((resolve) => setImmediate(resolve))
      if (round % 97 === 0) await sleep(2)
    }
    expect(await a.subscribe([...wanted])).toBe(true)
    for (const channel of channels) b.publish(channel, text('!'))
    b.publish([...wanted][0]!, text('end'))
    await until(() => expect(heard.at(-1)).toMatch(/ end$/))
    expect(heard.slice(0, -1).sort()).toEqual([...wanted].map((channel) => `${channel} !`).sort())
  })

  test('a subscription made while the same channel is being unsubscribed holds once it says so', async () => {
    const [a, b] = [await make(), await make()]
    const { heard } = ears(a)
    for (let i = 0; i < 50; i++) {
      await a.subscribe(['flip'])
      a.unsubscribe(['flip'])
      if (i % 2 === 0) await Promise.resolve()
      expect(await a.subscribe(['flip'])).toBe(true)
      b.publish('flip', text(i))
      await until(() => expect(heard).toHaveLength(i + 1))
    }
  })

  test('many channels at once', async () => {
    const [a, b] = [await make(5_000), await make()]
    const { heard } = ears(a)
    const channels = Array.from({ length: 25_000 }, (_, i) => `many${i}`)
    expect(await a.subscribe(channels)).toBe(true)
    for (const i of [0, 999, 1_000, 24_999]) b.publish(`many${i}`, text(i))
    await until(() => expect(heard).toHaveLength(4))
  })

  test('a subscription given up before it held answers false', async () => {
    const bus = await make()
    const held = bus.subscribe(['x'])
    bus.unsubscribe(['x'])
    expect(await held).toBe(false)
  })

  test('an outage: publish never throws, subscriptions come back, and one gap is told after they hold', async () => {
    const [a, b] = [await make(300), await make()]
    const [inA, inB] = [ears(a), ears(b)]
    await a.subscribe(['before'])
    await b.subscribe(['b'])
    await world.outage()
    await until(() => expect([a.connected, b.connected]).toEqual([false, false]))
    a.publish('before', text('lost'))
    expect(a.dropped).toBeGreaterThan(0)
    expect(await a.subscribe(['during'])).toBe(false)
    a.unsubscribe(['b'])
    expect(inA.gaps).not.toHaveBeenCalled()
    // In the very moment of the gap everything has to hold.
    a.onGap(() => {
      inA.gaps()
      a.publish('before', text('at the gap'))
    })
    await world.restore()
    await until(() => expect(inA.gaps).toHaveBeenCalled())
    await until(() => expect(inB.gaps).toHaveBeenCalled())
    await until(() => expect([a.connected, b.connected]).toEqual([true, true]))
    b.publish('during', text('after'))
    await until(() => expect(inA.heard).toContain('during after'))
    expect(inA.heard).toContain('before at the gap')
    expect(inA.heard).not.toContain('before lost')
    expect(inA.gaps).toHaveBeenCalledTimes(1)
    expect(await a.subscribe(['new'])).toBe(true)
  })

  test('after close nothing is heard and nothing is said', async () => {
    const [a, b] = [await make(), await make()]
    const { heard } = ears(a)
    await a.subscribe(['x'])
    b.publish('x', text('last words'))
    await b.close()
    await b.close()
    b.publish('x', text('from beyond'))
    expect(await b.subscribe(['x'])).toBe(false)
    expect(b.connected).toBe(false)
    await until(() => expect(heard).toEqual(['x last words']))
    await a.close()
    await sleep(20)
    expect(heard).toEqual(['x last words'])
  })
})

describe('the memory bus, unkind', () => {
  const buses: Bus[] = []
  afterEach(async () => {
    for (const bus of buses.splice(0)) await bus.close()
  })
  const make = (exchange: MemoryExchange) => {
    const bus = createMemoryBus(exchange)
    buses.push(bus)
    return bus
  }
  /** A small generator of the same numbers every time. */
  const dice = (seed: number) => () => {
    seed = (seed * 48_271) % 2_147_483_647
    return seed / 2_147_483_647
  }
  async function run(seed: number) {
    const exchange = createMemoryExchange({ random: dice(seed), drop: 0.2, double: 0.2, reorder: 0.2 })
    const [a, b] = [make(exchange), make(exchange)]
    const { heard } = ears(b)
    await b.subscribe(['x'])
    for (let i = 0; i < 200; i++) a.publish('x', text(i))
    await sleep(40)
    return heard.map((line) => Number(line.slice(2)))
  }

  test('drops, doubles and reorders, the same way for the same numbers', async () => {
    const first = await run(42)
    expect(await run(42)).toEqual(first)
    expect(await run(43)).not.toEqual(first)
    const known = new Set(first)
    expect(known.size).toBeLessThan(190)
    expect(first.length).toBeGreaterThan(known.size + 10)
    expect(first.filter((n, i) => i > 0 && n < first[i - 1]!).length).toBeGreaterThan(5)
  })

  test('delays', async () => {
    const exchange = createMemoryExchange({ random: dice(1), delayMs: 60 })
    const [a, b] = [make(exchange), make(exchange)]
    const { heard } = ears(b)
    await b.subscribe(['x'])
    for (let i = 0; i < 50; i++) a.publish('x', text(i))
    await sleep(5)
    expect(heard.length).toBeLessThan(25)
    await until(() => expect(heard).toHaveLength(50))
    expect(heard).not.toEqual([...heard].sort())
  })

  test('one instance alone loses its connection', async () => {
    const exchange = createMemoryExchange()
    const [a, b] = [make(exchange), make(exchange)]
    const [inA, inB] = [ears(a), ears(b)]
    await a.subscribe(['x'])
    await b.subscribe(['x'])
    exchange.disconnect(a)
    b.publish('x', text(1))
    await until(() => expect(inB.heard).toEqual(['x 1']))
    expect([a.connected, b.connected]).toEqual([false, true])
    exchange.reconnect(a)
    await until(() => expect(inA.gaps).toHaveBeenCalledTimes(1))
    b.publish('x', text(2))
    await until(() => expect(inA.heard).toEqual(['x 2']))
    expect(inB.gaps).not.toHaveBeenCalled()
  })

  test('a reader that does not keep up is told of a gap', async () => {
    const exchange = createMemoryExchange()
    const a = make(exchange)
    const b = createMemoryBus(exchange, { maxQueued: 10 })
    buses.push(b)
    const { heard, gaps } = ears(b)
    await b.subscribe(['x'])
    for (let i = 0; i < 50; i++) a.publish('x', text(i))
    await until(() => expect(gaps).toHaveBeenCalled())
    expect(heard.length).toBeLessThan(50)
  })
})
