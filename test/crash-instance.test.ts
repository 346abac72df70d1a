import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Message } from '../src/protocol/resources.ts'
import { account, launch, type Process, rest } from './support/process.ts'
import { everything, faults, post, type Sent, sendOverRest, sendOverSocket } from './support/senders.ts'
import { createDatabase, type PrivateRedis, startRedis, type TestDatabase } from './support/services.ts'
import { until, Wire } from './support/wire.ts'

/** One of two instances dies in the middle of it all: the other's clients hear whatever was committed, without being told. */

let database: TestDatabase
let redis: PrivateRedis
const started: Process[] = []

beforeAll(async () => {
  database = await createDatabase()
  redis = await startRedis()
})
afterAll(async () => {
  for (const server of started) server.kill()
  await Promise.all(started.map((server) => server.exited))
  await redis.stop()
  await database.drop()
})

async function instance(): Promise<Process> {
  const server = launch({
    DATABASE_URL: database.url,
    JWT_SECRET: 'a secret for tests that is long enough',
    REDIS_URL: redis.url,
  })
  started.push(server)
  return server.ready()
}

test('what an instance committed and could not tell any more is heard at the others', async () => {
  const survivor = await instance()
  const [anna, ben] = await Promise.all([account(survivor.url), account(survivor.url)])
  const { body } = await rest<{ id: string }>(survivor.url, 'GET', `/chats/dm/${ben.user_id}`, { token: anna.token })
  const listener = new Wire(survivor.url, `/ws?token=${ben.token}`)
  await listener.type('user_chats')
  const log: Sent[] = []
  for (let round = 0; round < 3; round += 1) {
    const victim = await instance()
    let going = true
    const still = () => going
    const before = log.length
    const senders = [
      sendOverSocket(victim.url, log, body.id, anna.token, still),
      sendOverRest(victim.url, log, body.id, ben.token, still, 4),
      sendOverSocket(survivor.url, log, body.id, anna.token, still),
    ]
    await until(() => log.length > before + 200 + Math.random() * 600, 'messages are being sent')
    victim.kill()
    await victim.exited
    going = false
    await Promise.all(senders)
    // Nobody says anything any more. What was committed is heard, in order, by events alone.
    const history = await everything(survivor.url, ben.token, body.id)
    const heard = () => listener.frames.filter((frame) => frame.type === 'new_message')
    await until(() => heard().length >= history.length, 'everything that was committed', 15_000)
    expect(heard().map((frame) => (frame.message as Message).id)).toEqual(history.map((message) => message.id))
    // The same sends again, at another instance.
    for (const sent of log.filter((sent) => sent.outcome === 'unknown')) {
      expect([200, 201]).toContain(await post(survivor.url, sent))
    }
  }
  const history = await everything(survivor.url, ben.token, body.id)
  expect(faults(log, history)).toEqual([])
  expect(history).toHaveLength(log.length)
  await until(() => listener.frames.filter((frame) => frame.type === 'new_message').length === history.length, 'each once')
  console.log(`an instance killed three times: ${log.length} messages sent, ${history.length} found`)
  listener.end()
}, 90_000)

test('who was connected to an instance that dies has gone, for their contacts elsewhere; those with a device elsewhere have not', async () => {
  const [survivor, victim] = [await instance(), await instance()]
  const [anna, ben, carl] = await Promise.all([account(survivor.url), account(survivor.url), account(survivor.url)])
  for (const other of [ben, carl]) {
    const { body } = await rest<{ id: string }>(survivor.url, 'POST', '/contacts/requests', {
      token: other.token,
      body: { user_id: anna.user_id },
    })
    const accepted = await rest(survivor.url, 'POST', `/contacts/requests/${body.id}/accept`, { token: anna.token, body: {} })
    expect(accepted.status).toBe(200)
  }
  const listener = new Wire(survivor.url, `/ws?token=${anna.token}`)
  await listener.type('user_chats')
  const states = (who: { user_id: string }) =>
    listener.frames.filter((frame) => frame.type === 'online_status' && frame.user_id === who.user_id).map((f) => f.is_online)
  const devices = [
    new Wire(victim.url, `/ws?token=${ben.token}`),
    new Wire(victim.url, `/ws?token=${carl.token}`),
    new Wire(survivor.url, `/ws?token=${carl.token}`),
  ]
  await Promise.all(devices.map((device) => device.type('user_chats')))
  await until(() => states(ben).at(-1) === true && states(carl).at(-1) === true, 'both have come')
  victim.kill()
  await victim.exited
  await until(() => states(ben).at(-1) === false, 'the one who was there alone has gone')
  expect(states(carl)).not.toContain(false)
  const { body } = await rest<{ contacts: { id: string; is_online: boolean }[] }>(survivor.url, 'GET', '/contacts', {
    token: anna.token,
  })
  expect(body.contacts.map(({ id, is_online }) => [id, is_online])).toEqual([
    [carl.user_id, true],
    [ben.user_id, false],
  ])
  listener.end()
  devices[2]!.end()
}, 60_000)
