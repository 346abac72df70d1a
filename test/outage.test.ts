import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Client } from './client/client.ts'
import { everything, faults, post, type Sent, sendOverRest, sendOverSocket } from './support/senders.ts'
import { type Account, startServers, type TestServers } from './support/server.ts'
import { type PrivateRedis, startRedis } from './support/services.ts'
import { until, Wire } from './support/wire.ts'

/** Redis and PostgreSQL go away and come back under two instances. */

let redis: PrivateRedis
let servers: TestServers
beforeAll(async () => {
  redis = await startRedis()
  servers = await startServers({ instances: 2, redis: redis.url, env: { RATE_LIMIT_MESSAGE: '1000/1s' } })
})
afterAll(async () => {
  await servers.close()
  await redis.stop()
})

const health = async (at: number) => {
  const { status, body } = await servers.call<{ status: string; services: { redis: string } }>('GET', '/health', { at })
  return `${status} ${body.status} ${body.services.redis}`
}
const metric = async (at: number, name: string) => {
  const text = await (await fetch(`${servers.instances[at]!.url}/metrics`)).text()
  return Number(new RegExp(`^${name} (\\d+)`, 'm').exec(text)?.[1] ?? Number.NaN)
}
/** The texts that this client holds, in the order of seq. */
const texts = (client: Client, chat: string) =>
  [...(client.state.chats.get(chat)?.messages.values() ?? [])].sort((a, b) => a.seq - b.seq).map((message) => message.content)

test('without Redis everything goes on here, and after its return there', async () => {
  const [anna, ben, carl] = (await Promise.all(['anna', 'ben', 'carl'].map((name) => servers.register(name)))) as [
    Account,
    Account,
    Account,
  ]
  const chat = await servers.group(anna, [ben, carl])
  const quiet = await servers.dm(anna, ben)
  const a = await servers.connect(anna, { at: 0 })
  const b = await servers.connect(ben, { at: 1 })
  const local = await servers.connect(carl, { at: 0 })
  await a.send(chat, 'before')
  await b.waitFor('new_message', (event) => event.message.content === 'before')
  expect(await Promise.all([health(0), health(1)])).toEqual(['200 ok connected', '200 ok connected'])
  const second = await servers.login(ben)
  const ending = new Wire(servers.instances[1]!.url, `/ws?token=${second.token}`)
  await ending.type('ready')
  const fallbacks = await metric(0, 'parley_limit_fallbacks_total')

  await redis.stop()
  await until(async () => (await health(0)) === '200 degraded disconnected', 'degraded')
  await until(async () => (await health(1)) === '200 degraded disconnected', 'degraded')
  const sent = ['before']
  for (let n = 0; n < 30; n += 1) {
    const begun = Date.now()
    sent.push(`during ${n}`)
    if (n % 2) await a.send(chat, `during ${n}`)
    else {
      const answer = await servers.call('POST', '/messages', { as: ben, at: 1, body: { chat_id: chat, content: `during ${n}` } })
      expect(answer.status).toBe(201)
    }
    expect(Date.now() - begun).toBeLessThan(2_000)
  }
  await a.send(quiet, 'only one, and then nothing more')
  // On this instance they are heard at once, those of the other as soon as a hole shows.
  await local.waitFor('new_message', (event) => event.message.content === 'during 29', 2_000)
  expect(await metric(0, 'parley_limit_fallbacks_total')).toBeGreaterThan(fallbacks)
  expect(await metric(0, 'parley_bus_connected')).toBe(0)

  // A session that is ended while no news pass: found by asking.
  const ended = Date.now()
  expect((await servers.call('POST', '/auth/logout', { as: second, at: 0 })).status).toBe(200)
  expect(await ending.closed(5_000)).toBe(4001)
  expect(Date.now() - ended).toBeLessThan(3_500)
  expect(ending.frames.at(-1)).toMatchObject({ type: 'session_ended' })
  await until(
    async () => (await servers.call('GET', '/users/me', { as: second, at: 1 })).status === 401,
    'refused by REST',
    3_000,
  )
  // Signs of life may get lost; asking for them must not fail.
  expect(await a.ask({ type: 'join_chat', chat_id: chat })).toMatchObject({ type: 'ack' })
  expect(await a.ask({ type: 'typing', chat_id: chat })).toMatchObject({ type: 'ack' })
  expect(await a.ask({ type: 'leave_chat', chat_id: chat })).toMatchObject({ type: 'ack' })
  // Who comes now is let in and hears what is said here.
  const late = await servers.connect(await servers.login(carl), { at: 0 })
  sent.push('to the latecomer')
  await a.send(chat, 'to the latecomer')
  await late.waitFor('new_message', (event) => event.message.content === 'to the latecomer')

  await redis.start()
  for (const at of [0, 1]) await until(async () => (await health(at)) === '200 ok connected', 'ok again')
  // Nobody says anything: what was lost comes by itself.
  await until(() => texts(b, quiet).length === 1, 'the quiet chat', 8_000)
  for (const client of [a, b, local, late]) {
    await until(() => texts(client, chat).filter((text) => text !== '').length === sent.length, 'everything')
    expect(texts(client, chat).filter((text) => text !== '')).toEqual(sent)
  }
  for (const client of [a, b, local]) {
    const seqs = client.events.filter((event) => event.type === 'new_message').filter((event) => event.chat_id === chat)
    expect(seqs.map((event) => event.message.seq)).toEqual(seqs.map((_, n) => seqs[0]!.message.seq + n))
  }
  const after = await a.send(chat, 'after')
  await b.waitFor('new_message', (event) => event.message.id === after.id)
  await until(async () => (await metric(1, 'parley_bus_connected')) === 1, 'the bus')
  // And presence has mended itself.
  expect(await b.ask({ type: 'join_chat', chat_id: chat })).toMatchObject({ user_ids: [ben.id] })
}, 60_000)

test('a Redis that hangs delays nothing', async () => {
  const [anna, ben] = [await servers.register('anna'), await servers.register('ben')]
  const chat = await servers.dm(anna, ben)
  const a = await servers.connect(anna, { at: 0 })
  const b = await servers.connect(ben, { at: 1 })
  redis.pause()
  try {
    for (let n = 0; n < 20; n += 1) {
      const begun = Date.now()
      await a.send(chat, `while it hangs ${n}`)
      expect(Date.now() - begun).toBeLessThan(2_000)
    }
  } finally {
    redis.resume()
  }
  await until(() => texts(b, chat).length === 20, 'everything', 20_000)
}, 60_000)

test('PostgreSQL connections that are cut lose nothing and double nothing', async () => {
  const [anna, ben] = [await servers.register('anna'), await servers.register('ben')]
  const chat = await servers.dm(anna, ben)
  const [one, two] = servers.instances.map(({ url }) => url) as [string, string]
  // Who cannot be told of a new chat is sent away to come back and ask.
  const b = await servers.connect(ben, { at: 1, reconnect: true })
  const admin = new pg.Client({ connectionString: servers.databaseUrl })
  await admin.connect()
  const log: Sent[] = []
  let going = true
  const still = () => going
  const senders = [
    sendOverSocket(one, log, chat, anna.token, still),
    sendOverSocket(two, log, chat, ben.token, still),
    sendOverRest(one, log, chat, anna.token, still, 4),
    sendOverRest(two, log, chat, ben.token, still, 4),
  ]
  /** What else goes on meanwhile: each call is answered, or said to be unavailable. */
  const statuses: number[] = []
  const others = [
    () => servers.call('GET', '/chats', { as: ben }),
    () => servers.call('GET', `/chats/${chat}/messages?limit=10`, { as: ben, at: 1 }),
    () => servers.call('POST', '/sync', { as: anna, body: { chats: { [chat]: 1 }, limit: 5 } }),
    () => servers.call('PATCH', '/users/me', { as: anna, body: { bio: `It is ${Date.now()}` } }),
    () => servers.call('POST', '/chats', { as: anna, body: { type: 'group', name: 'Meanwhile', member_ids: [ben.id] } }),
    () => servers.call('POST', '/auth/login', { body: { login: ben.username, password: 'Secret123' }, at: 1 }),
    () => servers.call('GET', '/health'),
  ].map(async (call) => {
    while (going) statuses.push((await call()).status)
  })
  let cut = 0
  for (let round = 0; round < 12; round += 1) {
    await sleep(100 + Math.random() * 150)
    const { rows } = await admin.query<{ ended: boolean }>(
      `SELECT pg_terminate_backend(pid) AS ended FROM pg_stat_activity
       WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'`,
    )
    cut += rows.length
  }
  going = false
  await Promise.all([...senders, ...others])
  await admin.end()
  statuses.push(...log.flatMap((sent) => sent.statuses))
  expect(new Set(statuses)).toEqual(new Set([200, 201, 503].filter((status) => statuses.includes(status))))
  expect(cut).toBeGreaterThan(12)
  for (const sent of log.filter((sent) => sent.outcome === 'unknown')) expect([200, 201]).toContain(await post(one, sent))
  expect(log.filter((sent) => sent.outcome === 'refused')).toEqual([])
  const history = await everything(one, anna.token, chat)
  expect(faults(log, history)).toEqual([])
  expect(history).toHaveLength(log.length)
  console.log(`outage: ${cut} connections cut, ${log.length} messages sent, ${history.length} found`)
  // The live client heard each of them once, in order.
  await until(() => b.state.chats.get(chat)?.messages.size === history.length, 'the client has everything')
  const told = b.events.filter((event) => event.type === 'new_message').filter((event) => event.chat_id === chat)
  const seqs = told.map((event) => event.message.seq)
  expect(seqs).toEqual([...new Set(seqs)].sort((x, y) => x - y))
  for (const at of [0, 1]) await until(async () => (await health(at)) === '200 ok connected', 'ok')
}, 60_000)

test('an instance that is alone takes its lock again when the connection that held it is cut', async () => {
  const alone = await startServers()
  const admin = new pg.Client({ connectionString: alone.databaseUrl })
  await admin.connect()
  const others = `FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`
  for (let n = 0; n < 3; n += 1) {
    await admin.query(`SELECT pg_terminate_backend(pid) ${others}`)
    await until(async () => {
      const { rows } = await admin.query(`SELECT 1 ${others} AND application_name = 'parley-lock'`)
      return rows.length === 1
    }, 'the lock is held again')
    await until(() => alone.register().then(Boolean, () => false), 'an account is made')
  }
  await admin.end()
  await alone.close()
})
