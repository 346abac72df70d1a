import { randomUUID } from 'node:crypto'
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest'
import type { Bus } from '../src/platform/bus/bus.ts'
import { createClusterBus } from '../src/platform/bus/cluster.ts'
import { type Cluster, isCluster, openCluster } from '../src/platform/cluster.ts'
import { createClusterLimits } from '../src/platform/limits/redis.ts'
import { createRedisPresence } from '../src/platform/presence/redis.ts'
import { presenceTag } from '../src/platform/presence/scripts.ts'
import { slotOf } from '../src/platform/slot.ts'
import { compare } from './model/compare.ts'
import { connect, heard } from './support/check.ts'
import { launch } from './support/process.ts'
import { freePort, type PrivateRedis, startRedis } from './support/redis.ts'
import { type PrivateCluster, startCluster } from './support/redis-cluster.ts'
import { type Account, startServers, type TestServers } from './support/server.ts'
import { createDatabase } from './support/services.ts'

/** A real Redis Cluster of three masters: news, presence and limits over it, and what becomes of them when a node goes or a slot moves. */

let redis: PrivateCluster
const closers: (() => unknown)[] = []
beforeAll(async () => {
  redis = await startCluster()
})
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
})
afterAll(() => redis?.close())

const until = (check: () => unknown, timeout = 15_000) => vi.waitFor(check, { timeout, interval: 20 })
const text = (value: unknown) => Buffer.from(String(value))

async function cluster(): Promise<Cluster> {
  const opened = await openCluster(redis.url)
  closers.push(() => opened.close())
  return opened
}
async function bus(prefix: string) {
  const made: Bus = await createClusterBus({ cluster: await cluster(), prefix })
  closers.push(() => made.close())
  const heard: string[] = []
  const gaps = vi.fn()
  made.onMessage((channel, payload) => heard.push(`${channel} ${payload}`))
  made.onGap(gaps)
  return { bus: made, heard, gaps }
}
/** Channels that lie on this node. */
async function channelsOn(node: PrivateRedis, prefix: string, count: number): Promise<string[]> {
  const found: string[] = []
  for (let n = 0; found.length < count; n += 1) {
    const channel = `chat:${n}`
    if ((await redis.ownerOf(prefix + channel)) === node) found.push(channel)
  }
  return found
}

test('it is recognised by asking, and slots are those that Redis says', async () => {
  expect(await isCluster(redis.url)).toBe(true)
  const single = await startRedis()
  closers.push(() => single.stop())
  expect(await isCluster(single.url)).toBe(false)
  expect(await isCluster(`redis://127.0.0.1:${await freePort()}`)).toBeUndefined()
  const keys = ['', 'x', 'chat:018f', '{tag}:a', '{tag}:b', 'a{tag}', '{}x', 'a{}b{c}', '{open', 'é\u{1f600}', '}{', '{a}{b}']
  for (const key of keys) expect(slotOf(key), key).toBe(Number(await redis.cli(redis.nodes[0]!, 'CLUSTER', 'KEYSLOT', key)))
  const found = await cluster()
  expect(found.masters.size).toBe(3)
  for (const key of keys) expect(found.ownerOf(key)).toBe((await redis.ownerOf(key)).url)
})

test('publications reach who subscribed, each by the node of its channel, and no other', async () => {
  const prefix = `${randomUUID()}:`
  const [a, b, c] = [await bus(prefix), await bus(prefix), await bus(prefix)]
  const channels = Array.from({ length: 60 }, (_, n) => `chat:${n}`)
  expect(await a.bus.subscribe(channels)).toBe(true)
  expect(await b.bus.subscribe(channels.slice(0, 30))).toBe(true)
  for (let n = 0; n < 3; n += 1) for (const channel of channels) c.bus.publish(channel, text(n))
  await until(() => expect(a.heard).toHaveLength(180))
  await until(() => expect(b.heard).toHaveLength(90))
  for (const channel of channels)
    expect(a.heard.filter((one) => one.startsWith(`${channel} `)).map((one) => one.at(-1))).toEqual(['0', '1', '2'])
  expect(c.heard).toEqual([])
  // Sharded: the nodes know their own channels, and of no ordinary ones but that of the gaps.
  for (const node of redis.nodes) {
    const shard = (await redis.cli(node, 'PUBSUB', 'SHARDCHANNELS', `${prefix}*`)).split('\n').filter(Boolean)
    expect(shard.length).toBeGreaterThan(0)
    for (const name of shard) expect(await redis.ownerOf(name)).toBe(node)
    expect(await redis.cli(node, 'PUBSUB', 'CHANNELS', `${prefix}*`)).toBe(`${prefix}~company`)
  }
  a.bus.unsubscribe(channels)
  b.bus.publish(channels[0]!, text('after'))
  b.bus.publish(channels[1]!, text('after'))
  await until(() => expect(b.heard.filter((one) => one.endsWith('after'))).toHaveLength(2))
  expect(a.heard).toHaveLength(180)
  for (const one of [a, b, c]) expect([one.gaps.mock.calls.length, one.bus.connected, one.bus.dropped]).toEqual([0, true, 0])
})

test('a master that goes and comes back leaves a gap that everybody hears of, and everything passes again', async () => {
  const prefix = `${randomUUID()}:`
  const [a, b, c] = [await bus(prefix), await bus(prefix), await bus(prefix)]
  const node = redis.nodes[1]!
  const [onIt] = await channelsOn(node, prefix, 1)
  const [elsewhere] = await channelsOn(redis.nodes[2]!, prefix, 1)
  for (const one of [a, b]) expect(await one.bus.subscribe([onIt!, elsewhere!])).toBe(true)
  await node.stop()
  await until(() => expect([a, b, c].map((one) => one.bus.connected)).toEqual([false, false, false]))
  c.bus.publish(onIt!, text('lost'))
  expect(c.bus.dropped).toBe(1)
  await node.start()
  await redis.whole()
  for (const one of [a, b, c]) await until(() => expect(one.gaps).toHaveBeenCalled())
  await until(() => expect([a, b, c].map((one) => one.bus.connected)).toEqual([true, true, true]))
  await until(() => {
    c.bus.publish(onIt!, text('again'))
    c.bus.publish(elsewhere!, text('again'))
    for (const one of [a, b]) expect(one.heard).toEqual(expect.arrayContaining([`${onIt} again`, `${elsewhere} again`]))
  })
  expect([...a.heard, ...b.heard]).not.toContain(`${onIt} lost`)
}, 60_000)

test('a node that hangs counts as away, and no publication waits for it', async () => {
  const prefix = `${randomUUID()}:`
  const [a, b] = [await bus(prefix), await bus(prefix)]
  const node = redis.nodes[0]!
  const [onIt] = await channelsOn(node, prefix, 1)
  expect(await a.bus.subscribe([onIt!])).toBe(true)
  node.pause()
  try {
    await until(() => expect([a.bus.connected, b.bus.connected]).toEqual([false, false]), 5_000)
    b.bus.publish(onIt!, text('lost'))
    await until(() => expect(b.bus.dropped).toBe(1))
  } finally {
    node.resume()
  }
  await redis.whole()
  await until(() => expect([a.bus.connected, b.bus.connected]).toEqual([true, true]))
  await until(() => expect(a.gaps).toHaveBeenCalled())
  await until(() => {
    b.bus.publish(onIt!, text('again'))
    expect(a.heard).toContain(`${onIt} again`)
  })
}, 60_000)

test('a channel whose slot moves is heard where it went, and everybody has a gap', async () => {
  const prefix = `${randomUUID()}:`
  const [a, b] = [await bus(prefix), await bus(prefix)]
  const [from, to] = [redis.nodes[2]!, redis.nodes[0]!]
  const [channel, other] = await channelsOn(from, prefix, 2)
  expect(await a.bus.subscribe([channel!, other!])).toBe(true)
  b.bus.publish(channel!, text('before'))
  await until(() => expect(a.heard).toContain(`${channel} before`))
  await redis.moveSlot(prefix + channel, to)
  for (const one of [a, b]) await until(() => expect(one.gaps).toHaveBeenCalled())
  await until(async () => {
    b.bus.publish(channel!, text('after'))
    b.bus.publish(other!, text('after'))
    expect(a.heard).toEqual(expect.arrayContaining([`${channel} after`, `${other} after`]))
  })
  expect(await redis.cli(to, 'PUBSUB', 'SHARDCHANNELS', prefix + channel)).toBe(prefix + channel)
  expect([a.bus.connected, b.bus.connected]).toEqual([true, true])
  await redis.moveSlot(prefix + channel, from)
  await until(() => {
    b.bus.publish(channel!, text('back'))
    expect(a.heard).toContain(`${channel} back`)
  })
}, 60_000)

test('limits are counted together by all instances, on the nodes of their keys, and locally while one is away', async () => {
  const prefix = `${randomUUID()}:`
  const fallbacks = vi.fn()
  const make = async () => {
    const made = await createClusterLimits({ cluster: await cluster(), prefix, onFallback: fallbacks })
    closers.push(() => made.close())
    return made
  }
  const [a, b] = [await make(), await make()]
  const rule = { points: 10, windowMs: 60_000 }
  const users = Array.from({ length: 20 }, (_, n) => `user${n}`)
  for (const user of users) {
    const states = await Promise.all(Array.from({ length: 20 }, (_, n) => (n % 2 ? a : b).hit('message', user, rule)))
    expect(states.filter(({ allowed }) => allowed)).toHaveLength(10)
  }
  expect(fallbacks).not.toHaveBeenCalled()
  const sizes = await Promise.all(redis.nodes.map((node) => redis.cli(node, 'KEYS', `${prefix}limit:*`)))
  for (const keys of sizes) expect(keys).not.toBe('')
  await a.reset('message', 'user0')
  expect((await b.hit('message', 'user0', rule)).allowed).toBe(true)

  const user = (
    await Promise.all(users.map(async (u) => ((await redis.ownerOf(`${prefix}limit:message:${u}`)) === redis.nodes[1] ? u : '')))
  ).find(Boolean)!
  const moved = `${prefix}limit:message:${user}`
  await redis.moveSlot(moved, redis.nodes[0]!)
  // Counted locally until it is found where it went, and then the count is the one that it had.
  await until(async () => expect((await a.hit('message', user, rule)).allowed).toBe(false))
  await redis.moveSlot(moved, redis.nodes[1]!)
})

test('presence: leases, whose screen, an instance that goes; and all of it follows its slot', async () => {
  const prefix = `${randomUUID()}:`
  const make = async () => {
    const made = await createRedisPresence({ url: redis.url, prefix, cluster: await cluster() })
    closers.push(() => made.close())
    return made
  }
  const [a, b] = [await make(), await make()]
  const gone = vi.fn()
  b.onInstanceGone(gone)
  const who = async (...users: string[]) => [...(await b.online(users))].sort()
  await a.add(['ann', 'bob'])
  await b.add(['cyd'])
  await a.openChat('x', 'ann')
  await until(async () => expect(await who('ann', 'bob', 'cyd', 'dan')).toEqual(['ann', 'bob', 'cyd']))
  await until(async () => expect(await b.openUsers('x')).toEqual(['ann']))

  const from = await redis.ownerOf(presenceTag(prefix))
  const to = redis.nodes.find((node) => node !== from)!
  await redis.moveSlot(presenceTag(prefix), to)
  await a.remove(['bob'])
  await until(async () => expect(await who('ann', 'bob', 'cyd')).toEqual(['ann', 'cyd']))
  // Longer than a lease: they are renewed where they are now.
  await new Promise((resolve) => setTimeout(resolve, 3_500))
  expect(await who('ann', 'cyd')).toEqual(['ann', 'cyd'])
  expect(gone).not.toHaveBeenCalled()

  // The node of all presence is lost with what it held, and everybody writes anew what they know.
  await to.stop()
  await until(async () => expect(await who('ann')).toEqual([]))
  await to.start()
  await redis.whole()
  await until(async () => expect(await who('ann', 'cyd')).toEqual(['ann', 'cyd']))
  await a.close()
  await until(async () => expect(await who('ann', 'cyd')).toEqual(['cyd']))
  await until(() => expect(gone).toHaveBeenCalled())
  await redis.moveSlot(presenceTag(prefix), from)
}, 60_000)

test('a cluster that was away at the start, and so was not recognised, ends the server with a line that says so', async () => {
  const database = await createDatabase()
  const node = redis.nodes[0]!
  await node.stop()
  const server = launch({ DATABASE_URL: database.url, JWT_SECRET: 'a secret for tests that is long enough', REDIS_URL: node.url })
  closers.push(async () => {
    server.kill()
    await server.exited
    await database.drop()
  })
  await server.ready()
  await node.start()
  expect(await server.exited).toBe(1)
  expect(server.stderr).toContain('REDIS_URL names a Redis Cluster, which did not answer at the start.')
  await redis.whole()
}, 60_000)

test('two servers over the cluster: messages pass, who is removed hears nothing, limits are one, and a lost master is healed', async () => {
  const servers: TestServers = await startServers({ instances: 2, redis: redis.url, env: { RATE_LIMIT_MESSAGE: '2000/1h' } })
  closers.push(() => servers.close())
  const people: Account[] = []
  for (let n = 0; n < 4; n += 1) people.push(await servers.register())
  const [anna, ben, carl] = people as [Account, Account, Account]
  // Many chats, so that every node has some.
  const chats: string[] = []
  for (let n = 0; n < 12; n += 1) chats.push(await servers.group(anna, [ben, carl], `Chat ${n}`))
  const [a, b, c] = await Promise.all([
    connect(servers, anna, { at: 0, reconnect: true }),
    connect(servers, ben, { at: 1, reconnect: true }),
    connect(servers, carl, { at: 1, reconnect: true }),
  ])
  const health = async (at: number) =>
    (await servers.call<{ services: { redis: string } }>('GET', '/health', { at })).body.services.redis
  for (const at of [0, 1]) expect(await health(at)).toBe('connected')
  for (const chat of chats) await a.send(chat, 'hello')
  for (const chat of chats) await until(() => expect(heard(b, chat)).toContain('hello'))
  await b.waitFor('online_status', (e) => e.user_id === anna.id && e.is_online)

  await servers.call('DELETE', `/chats/${chats[0]}/members/${carl.id}`, { as: anna })
  await a.send(chats[0]!, 'not for carl')
  await c.waitFor('chat_removed', (e) => e.chat_id === chats[0])
  await until(() => expect(heard(b, chats[0]!)).toContain('not for carl'))
  expect(heard(c, chats[0]!)).not.toContain('not for carl')

  // Each master once: what is said meanwhile is told when it is back, without anybody connecting anew.
  for (const node of redis.nodes) {
    await node.stop()
    await until(async () => expect([await health(0), await health(1)]).not.toContain('connected'))
    for (const chat of chats) await a.send(chat, `without ${node.port}`)
    await node.start()
    await redis.whole()
    for (const chat of chats) await until(() => expect(heard(b, chat)).toContain(`without ${node.port}`))
    await until(async () => expect([await health(0), await health(1)]).toEqual(['connected', 'connected']))
  }
  expect(b.events.filter((e) => e.type === 'ready')).toHaveLength(1)
  for (const chat of chats) await a.send(chat, 'live again')
  for (const chat of chats) await until(() => expect(heard(b, chat).at(-1)).toBe('live again'))
  expect(heard(c, chats[0]!).filter(Boolean)).toEqual(['hello'])
  const fresh = await connect(servers, ben, { at: 0 })
  await b.sync()
  expect(compare(b.state, fresh.state).stamped).toEqual([])
}, 120_000)

// The last one: it leaves a node more.
test('a replica that takes over has the channels of its master, and everybody catches up', async () => {
  const prefix = `${randomUUID()}:`
  const [a, b, c] = [await bus(prefix), await bus(prefix), await bus(prefix)]
  const limits = await createClusterLimits({ cluster: await cluster(), prefix })
  closers.push(() => limits.close())
  const master = redis.nodes[1]!
  const [onIt] = await channelsOn(master, prefix, 1)
  expect(await a.bus.subscribe([onIt!])).toBe(true)
  expect(await b.bus.subscribe([onIt!])).toBe(true)
  const replica = await redis.addReplica(master)
  await master.stop()
  await until(async () => expect(await redis.cli(replica, 'ROLE')).toMatch(/^master/), 20_000)
  for (const one of [a, b, c]) {
    await until(() => expect(one.gaps).toHaveBeenCalled())
    await until(() => expect(one.bus.connected).toBe(true))
  }
  await until(() => {
    c.bus.publish(onIt!, text('again'))
    for (const one of [a, b]) expect(one.heard).toContain(`${onIt} again`)
  })
  expect(await redis.cli(replica, 'PUBSUB', 'SHARDCHANNELS', `${prefix}*`)).toContain(onIt)
  const dropped = c.bus.dropped
  c.bus.publish(onIt!, text('and again'))
  await until(() => expect(a.heard).toContain(`${onIt} and again`))
  // What was lost on lines that are closed still counts, and nothing more is.
  expect(c.bus.dropped).toBe(dropped)
}, 60_000)
