import { afterAll, beforeAll, expect, test } from 'vitest'
import { maxQueuedBytes } from '../src/realtime/outbox.ts'
import { type Account, startServers, type TestServers } from './support/server.ts'
import { until, Wire } from './support/wire.ts'

/** A peer that does not read costs its own connection, a bounded amount of memory, and nobody else anything. */

let servers: TestServers
beforeAll(async () => {
  servers = await startServers()
})
afterAll(() => servers.close())

const closes = async (reason: string) => {
  const text = await (await fetch(`${servers.instances[0]!.url}/metrics`)).text()
  return Number(new RegExp(`parley_websocket_closes_total\\{reason="${reason}"\\} (\\d+)`).exec(text)?.[1] ?? 0)
}

test('whoever stops reading is closed at the bound, while the others get everything', async () => {
  const [anna, ben, carl] = (await Promise.all(['anna', 'ben', 'carl'].map((name) => servers.register(name)))) as [
    Account,
    Account,
    Account,
  ]
  const chat_id = await servers.group(anna, [ben, carl])
  const url = servers.instances[0]!.url
  const open = async (account: Account) => {
    const wire = new Wire(url, `/ws?token=${account.token}`)
    await wire.type('user_chats')
    return wire
  }
  const sender = await open(anna)
  const reader = await open(carl)
  const deaf = await Promise.all(Array.from({ length: 10 }, () => open(ben)))
  for (const wire of deaf) wire.socket.pause()
  const before = process.memoryUsage()
  const before4008 = await closes('too_slow')

  // The kernel takes some megabytes of each connection by itself.
  const content = 'x'.repeat(10_000)
  let sent = 0
  let most = 0
  while ((await closes('too_slow')) < before4008 + deaf.length) {
    const acks = Array.from({ length: 50 }, () => sender.ask({ type: 'message', chat_id, content }))
    for (const ack of await Promise.all(acks)) expect(ack.type).toBe('ack')
    sent += acks.length
    const { arrayBuffers, heapUsed } = process.memoryUsage()
    most = Math.max(most, arrayBuffers + heapUsed - before.arrayBuffers - before.heapUsed)
    // What this very process holds as the clients' frames is not the server's.
    for (const wire of [sender, reader]) for (const frame of wire.frames) delete frame.message
    expect(sent * content.length, 'bytes sent until all were closed').toBeLessThan(60_000_000)
  }
  // Ten queues of 1 MiB, and what garbage there is; without a bound it would be ten times what was sent.
  expect(most).toBeLessThan(10 * maxQueuedBytes + 200_000_000)
  await until(
    () => reader.frames.filter((frame) => frame.type === 'new_message').length === sent,
    'the other member got everything',
  )
  expect(reader.code).toBeUndefined()
  expect(await sender.ask({ type: 'ping' })).toMatchObject({ type: 'pong' })
  // They come back and catch up.
  for (const wire of deaf) wire.socket.resume()
  for (const wire of deaf) expect([4008, 1006]).toContain(await wire.closed())
  const back = await open(ben)
  const answer = await back.ask({ type: 'sync', chats: {}, limit: 5 })
  expect(answer).toMatchObject({ type: 'ack', chats: [{ chat: { last_seq: sent + 1 } }] })
  for (const wire of [sender, reader, back]) wire.end()
}, 60_000)

test('whoever asks for more than they read is closed as well', async () => {
  const anna = await servers.register('anna')
  const chat_id = await servers.dm(anna, anna)
  const wire = new Wire(servers.instances[0]!.url, `/ws?token=${anna.token}`)
  await wire.type('user_chats')
  // Escapes make the answer six times as long as the text; still each fits through the queue.
  for (let n = 0; n < 60; n += 1) await wire.ask({ type: 'message', chat_id, content: '\u0001'.repeat(10_000) })
  const answer = await wire.ask({ type: 'sync', chats: {}, limit: 100 })
  expect(answer.type).toBe('ack')
  expect(JSON.stringify(answer).length).toBeLessThan(maxQueuedBytes)
  wire.frames.length = 0
  wire.socket.pause()
  const before = await closes('too_slow')
  for (let n = 0; n < 40; n += 1) wire.send({ type: 'sync', id: `${n}`, chats: {}, limit: 100 })
  await until(async () => (await closes('too_slow')) > before, 'closed')
  wire.socket.resume()
  expect([4008, 1006]).toContain(await wire.closed())
}, 60_000)
