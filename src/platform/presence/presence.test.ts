import { type ChildProcess, fork } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Redis } from 'ioredis'
import { describe, expect, type TestContext, test, vi } from 'vitest'
import { atOnce } from '../../../test/support/at-once.ts'
import { type PrivateRedis, redisUrl, startRedis } from '../../../test/support/services.ts'
import { createMemoryPresence, createMemoryPresenceHub } from './memory.ts'
import type { PresenceStore } from './presence.ts'
import { createRedisPresence } from './redis.ts'
import { presenceKeys } from './scripts.ts'

/** Tests here mostly wait for leases, so they run side by side; each clears up after itself. */
type OnFinish = TestContext['onTestFinished']

/** What a store told, by kind. (No mocks: the start of a test beside this one would clear them.) */
function ears(store: PresenceStore) {
  const heard = { ended: [] as string[][], gone: 0, returned: [] as string[][] }
  store.onLeaseEnded((users) => heard.ended.push(users))
  store.onInstanceGone(() => heard.gone++)
  store.onReturned((users) => heard.returned.push(users))
  return heard
}

async function kept(onFinish: OnFinish, making: Promise<PresenceStore>) {
  const store = await making
  onFinish(() => store.close())
  return store
}
const until = (check: () => unknown, timeout = 5_000) => vi.waitFor(check, { timeout, interval: 20 })
/** Presence is best effort: a busy machine may hold a command up, and it is mended by the next poll. */
const soon = <T>(look: () => Promise<T>) => ({
  // Not `expect.poll`, which does not find its test where several run at once.
  toEqual: (wanted: T) => until(async () => expect(await look()).toEqual(wanted), 10_000),
})
const who = async (store: PresenceStore, ...users: string[]) => [...(await store.online(users))].sort()

async function instanceOf(onFinish: OnFinish, url: string, prefix: string, ...users: string[]) {
  const file = fileURLToPath(new URL('./presence.fixture.ts', import.meta.url))
  const child = fork(file, [url, prefix, ...users], { execArgv: [] })
  onFinish(() => end(child))
  expect(await message(child)).toBe('ready')
  return child
}
async function end(child: ChildProcess) {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exited = once(child, 'exit')
  child.kill('SIGKILL')
  await exited
}
const message = async (child: ChildProcess) => (await once(child, 'message'))[0] as unknown

describe.concurrent.each([
  [
    'memory',
    () => {
      const hub = createMemoryPresenceHub()
      return async () => createMemoryPresence(hub)
    },
  ],
  [
    'redis',
    () => {
      const options = { url: redisUrl(), prefix: `${randomUUID()}:` }
      return () => createRedisPresence(options)
    },
  ],
])('presence (%s)', (_kind, world) => {
  async function two(onFinish: OnFinish) {
    const make = world()
    return [await kept(onFinish, make()), await kept(onFinish, make())] as const
  }

  test('users of any instance are online, until none has them', async ({ onTestFinished }) => {
    const [a, b] = await two(onTestFinished)
    await a.add(['ann', 'bob'])
    await b.add(['bob', 'cyd'])
    await b.add(['cyd'])
    for (const store of [a, b]) await soon(() => who(store, 'ann', 'bob', 'cyd', 'dan')).toEqual(['ann', 'bob', 'cyd'])
    await a.remove(['ann', 'bob'])
    await a.remove(['never there'])
    for (const store of [a, b]) await soon(() => who(store, 'ann', 'bob', 'cyd')).toEqual(['bob', 'cyd'])
    await soon(() => who(a)).toEqual([])
  })

  test('thousands at once', async ({ onTestFinished }) => {
    const [a, b] = await two(onTestFinished)
    const users = Array.from({ length: 4_500 }, (_, i) => `user${i}`)
    await a.add(users)
    await soon(async () => (await b.online([...users, 'nobody'])).size).toEqual(4_500)
    await a.remove(users.slice(1))
    await soon(async () => [...(await b.online(users))]).toEqual(['user0'])
  })

  test('changes in quick succession end as the last one says', async ({ onTestFinished }) => {
    const [a, b] = await two(onTestFinished)
    const changes: Promise<void>[] = []
    for (let i = 0; i < 100; i++) changes.push(a.add(['ann']), a.remove(['ann']), a.remove(['bob']), a.add(['bob']))
    await Promise.all(changes)
    await soon(() => who(b, 'ann', 'bob')).toEqual(['bob'])
    await soon(() => who(a, 'ann', 'bob')).toEqual(['bob'])
  })

  test('open chats of all instances', async ({ onTestFinished }) => {
    const [a, b] = await two(onTestFinished)
    await a.openChat('c1', 'ann')
    await a.openChat('c1', 'ann')
    await b.openChat('c1', 'ann')
    await b.openChat('c1', 'bob')
    await b.openChat('c2', 'cyd')
    for (const store of [a, b]) await soon(async () => (await store.openUsers('c1')).sort()).toEqual(['ann', 'bob'])
    await a.closeChat('c1', 'ann')
    await a.closeChat('c3', 'ann')
    await b.closeChat('c1', 'bob')
    for (const store of [a, b]) await soon(() => store.openUsers('c1')).toEqual(['ann'])
    await soon(() => a.openUsers('c3')).toEqual([])
  })

  test('of a crowd at one chat 1,000 are named', async ({ onTestFinished }) => {
    const [a, b] = await two(onTestFinished)
    await Promise.all(Array.from({ length: 1_500 }, (_, i) => a.openChat('crowd', `user${i}`)))
    for (const store of [a, b]) await soon(async () => new Set(await store.openUsers('crowd')).size).toEqual(1_000)
  })

  test('close gives everything back at once, and is no ended lease', async ({ onTestFinished }) => {
    const [a, b] = await two(onTestFinished)
    const heard = ears(b)
    await a.add(['ann'])
    await a.openChat('c', 'ann')
    // Long enough to be known to the other, and for it to have settled.
    await sleep(2_600)
    await a.close()
    await a.close()
    expect(await who(b, 'ann')).toEqual([])
    expect(await b.openUsers('c')).toEqual([])
    await until(() => expect(heard.gone).toBe(1))
    await sleep(200)
    expect(heard.ended).toEqual([])
  })
})

test('in memory an instance dies: one other is told of its users, all of its going; and it may come back', async () => {
  const hub = createMemoryPresenceHub({ leaseMs: 30 })
  const [a, b, c] = [createMemoryPresence(hub), createMemoryPresence(hub), createMemoryPresence(hub)]
  const [inA, inB, inC] = [ears(a), ears(b), ears(c)]
  await a.add(['ann', 'bob'])
  await b.add(['bob'])
  hub.kill(a)
  expect(await who(b, 'ann')).toEqual(['ann'])
  await until(() => expect(inB.gone).toBe(1))
  expect([...inB.ended, ...inC.ended]).toEqual([['ann']])
  expect(inC.gone).toBe(1)
  expect(await who(c, 'ann', 'bob')).toEqual(['bob'])
  hub.revive(a)
  expect(inA.returned).toEqual([['ann', 'bob']])
  expect(await who(c, 'ann', 'bob')).toEqual(['ann', 'bob'])
})

describe.concurrent('presence over Redis', () => {
  const setting = () => ({ url: redisUrl(), prefix: `${randomUUID()}:` })
  async function privateRedis(onFinish: OnFinish): Promise<PrivateRedis> {
    const redis = await startRedis()
    onFinish(() => redis.stop())
    return redis
  }

  test('a killed instance: within 3 s exactly one other is told of its users, and all of its going', async ({
    onTestFinished,
  }) => {
    const options = setting()
    const [a, b] = [
      await kept(onTestFinished, createRedisPresence(options)),
      await kept(onTestFinished, createRedisPresence(options)),
    ]
    const [inA, inB] = [ears(a), ears(b)]
    const child = await instanceOf(onTestFinished, options.url, options.prefix, 'ann', 'bob')
    await a.add(['bob'])
    await a.openChat('c', 'bob')
    expect(await who(b, 'ann', 'bob')).toEqual(['ann', 'bob'])
    await sleep(2_500)
    child.kill('SIGKILL')
    await until(() => expect([inA.gone, inB.gone]).toEqual([1, 1]), 3_000)
    await until(() => expect([...inA.ended, ...inB.ended]).toEqual([['ann']]), 500)
    expect(await who(b, 'ann', 'bob')).toEqual(['bob'])
    await sleep(1_000)
    expect(inA.ended.length + inB.ended.length).toBe(1)
    expect([inA.returned, inB.returned]).toEqual([[], []])
  })

  test('an event loop blocked for 3 s does not lose the lease', async ({ onTestFinished }) => {
    const redis = await privateRedis(onTestFinished)
    const options = { url: redis.url, prefix: `${randomUUID()}:` }
    const a = await kept(onTestFinished, createRedisPresence(options))
    const heard = ears(a)
    const child = await instanceOf(onTestFinished, options.url, options.prefix, 'ann')
    const admin = new Redis(redis.url)
    onTestFinished(() => admin.disconnect())
    // A thread takes its time to start, on a busy machine seconds. From here on both have renewed their leases.
    await until(async () => {
      const clients = String(await admin.client('LIST')).split('\n')
      expect(clients.filter((line) => /name=parley-lease .* cmd=eval /.test(line))).toHaveLength(2)
    }, 30_000)
    await soon(() => who(a, 'ann')).toEqual(['ann'])
    const answer = message(child)
    child.send('block')
    let unblocked = false
    void answer.then(() => {
      unblocked = true
    })
    let looks = 0
    // Of Redis itself, which a busy test may wait for longer than presence has patience.
    for (; !unblocked; looks += 1) {
      await sleep(50)
      const [seconds, micros] = (await admin.time()).map(Number) as [number, number]
      const live = await admin.zcount(presenceKeys(options.prefix).instances, seconds * 1_000 + micros / 1_000, '+inf')
      if (!unblocked) expect(live).toBe(2)
    }
    expect(looks).toBeGreaterThan(3)
    expect(await answer).toBe('unblocked')
    await sleep(1_000)
    await soon(() => who(a, 'ann')).toEqual(['ann'])
    expect([heard.ended, heard.gone]).toEqual([[], 0])
  })

  test('a frozen process loses its lease; when it goes on it is back and knows it', async ({ onTestFinished }) => {
    const options = setting()
    const a = await kept(onTestFinished, createRedisPresence(options))
    const heard = ears(a)
    const child = await instanceOf(onTestFinished, options.url, options.prefix, 'ann')
    await sleep(2_100)
    child.kill('SIGSTOP')
    await until(() => expect(heard.ended).toEqual([['ann']]))
    expect(await who(a, 'ann')).toEqual([])
    const answer = message(child)
    child.kill('SIGCONT')
    expect(await answer).toEqual({ returned: ['ann'] })
    expect(await who(a, 'ann')).toEqual(['ann'])
  })

  test('Redis loses everything: each instance writes its users anew, and nobody is given up', async ({ onTestFinished }) => {
    const options = setting()
    const redis = await privateRedis(onTestFinished)
    options.url = redis.url
    const [a, b] = [
      await kept(onTestFinished, createRedisPresence(options)),
      await kept(onTestFinished, createRedisPresence(options)),
    ]
    const [inA, inB] = [ears(a), ears(b)]
    await a.add(['ann', 'bob'])
    await b.add(['cyd'])
    await a.openChat('c', 'ann')
    await sleep(2_100)
    const admin = new Redis(redis.url)
    await admin.flushall()
    admin.disconnect()
    await until(async () => expect(await who(b, 'ann', 'bob', 'cyd')).toEqual(['ann', 'bob', 'cyd']), 1_000)
    await until(async () => expect(await b.openUsers('c')).toEqual(['ann']), 1_000)
    await until(() => expect(inA.returned).toEqual([['ann', 'bob']]))
    await sleep(2_500)
    expect([inA.ended, inB.ended, inA.gone, inB.gone]).toEqual([[], [], 0, 0])
  })

  test('Redis away: nothing rejects or waits, one knows one’s own; back again, everything is written', async ({
    onTestFinished,
  }) => {
    const redis = await privateRedis(onTestFinished)
    const options = { url: redis.url, prefix: `${randomUUID()}:` }
    const [a, b] = [
      await kept(onTestFinished, createRedisPresence(options)),
      await kept(onTestFinished, createRedisPresence(options)),
    ]
    const [inA, inB] = [ears(a), ears(b)]
    await a.add(['ann', 'eve'])
    await b.add(['bob'])
    await redis.stop()
    // That it is away has been noticed: who is only at the other instance is not asked for any more.
    await until(async () => expect(await atOnce(() => a.online(['bob']))).toBe(true))
    const waitedForNothing = await atOnce(async () => {
      await a.add(['cyd'])
      await a.remove(['eve'])
      await a.openChat('c', 'cyd')
      expect(await who(a, 'ann', 'bob', 'cyd', 'eve')).toEqual(['ann', 'cyd'])
      expect(await a.openUsers('c')).toEqual(['cyd'])
    })
    expect(waitedForNothing).toBe(true)
    await redis.start()
    await until(async () => expect(await who(b, 'ann', 'bob', 'cyd', 'eve')).toEqual(['ann', 'bob', 'cyd']))
    await until(async () => expect(await b.openUsers('c')).toEqual(['cyd']))
    await sleep(2_500)
    expect([inA.ended, inB.ended, inA.gone, inB.gone]).toEqual([[], [], 0, 0])
  })

  test.for([1_400, 4_000])('Redis hangs for %i ms: nobody is taken for gone', async (ms, { onTestFinished }) => {
    const redis = await privateRedis(onTestFinished)
    const options = { url: redis.url, prefix: `${randomUUID()}:` }
    const [a, b] = [
      await kept(onTestFinished, createRedisPresence(options)),
      await kept(onTestFinished, createRedisPresence(options)),
    ]
    const [inA, inB] = [ears(a), ears(b)]
    await a.add(['ann'])
    await b.add(['bob'])
    await sleep(2_600)
    redis.pause()
    const begun = performance.now()
    expect(await who(a, 'ann', 'bob')).toEqual(['ann'])
    expect(performance.now() - begun).toBeLessThan(1_000)
    await sleep(ms - 600)
    redis.resume()
    await until(async () => expect(await who(a, 'ann', 'bob')).toEqual(['ann', 'bob']))
    await sleep(2_500)
    expect([inA.ended, inB.ended, inA.gone, inB.gone]).toEqual([[], [], 0, 0])
  })

  test('after a standstill of Redis an ended lease has two seconds to be renewed', async ({ onTestFinished }) => {
    const options = setting()
    const admin = new Redis(options.url)
    onTestFinished(() => admin.disconnect())
    const instances = presenceKeys(options.prefix).instances
    // Another instance, of which only its traces in Redis are there.
    const lease = (ms: number) => admin.zadd(instances, Date.now() + ms, 'other')
    await admin.hset(`${presenceKeys(options.prefix).users}other`, 'ann', 1, '', 1)
    await lease(-1_000)
    await admin.set(presenceKeys(options.prefix).polled, Date.now() - 5_000)
    const a = await kept(onTestFinished, createRedisPresence(options))
    const heard = ears(a)
    await sleep(1_300)
    expect(heard.ended).toEqual([])
    await lease(60_000)
    await sleep(1_500)
    expect(await who(a, 'ann')).toEqual(['ann'])
    // Once more, now that it is known: Redis comes back without what it knew of it.
    await admin.multi().del(presenceKeys(options.prefix).polled).zrem(instances, 'other').exec()
    await sleep(1_200)
    await lease(60_000)
    await sleep(1_500)
    expect([heard.ended, heard.gone]).toEqual([[], 0])
    await lease(-1)
    await until(() => expect([heard.ended, heard.gone]).toEqual([[['ann']], 1]))
  })

  test('what a dead process left behind is cleared up by the next one', async ({ onTestFinished }) => {
    const options = setting()
    const child = await instanceOf(onTestFinished, options.url, options.prefix, 'ann', 'bob')
    await end(child)
    const next = await kept(onTestFinished, createRedisPresence(options))
    const heard = ears(next)
    await next.add(['bob'])
    await until(() => expect(heard.ended).toEqual([['ann']]))
    expect(await who(next, 'ann', 'bob')).toEqual(['bob'])
  })

  test('close leaves no lease, no key of its own and no thread: the process ends', async ({ onTestFinished }) => {
    const options = setting()
    const child = await instanceOf(onTestFinished, options.url, options.prefix, 'ann')
    const answer = message(child)
    child.send('close')
    expect(await answer).toBe('closed')
    const redis = new Redis(options.url)
    expect(await redis.zcard(presenceKeys(options.prefix).instances)).toBe(0)
    expect(await redis.keys(`${presenceKeys(options.prefix).users}*`)).toEqual([])
    redis.disconnect()
    const exited = once(child, 'exit')
    child.disconnect()
    expect(await exited).toEqual([0, null])
  })
})
