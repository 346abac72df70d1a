import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { ReadAnswer } from '../src/modules/chats/schema.ts'
import { StatusAnswer } from '../src/modules/messages/schema.ts'
import { sql } from '../src/platform/db/db.ts'
import { ChatWithMembers, Message } from '../src/protocol/resources.ts'
import type { Client } from './client/client.ts'
import { connect, nobody, ok, refusal, rest } from './support/check.ts'
import { type Account, startServers, type TestServers } from './support/server.ts'

/** Who has received and read what, and what is unread. */

let servers: TestServers
beforeAll(async () => {
  servers = await startServers({ instances: 2 })
})
afterAll(() => servers.close())

const { get, post, people } = rest(() => servers)
const say = (as: Account, chat_id: string, content = 'x') => ok(post(as, '/messages', { chat_id, content }), Message, 201)
const read = (as: Account, id: string, seq?: number) =>
  ok(post(as, `/chats/${id}/read`, seq === undefined ? {} : { seq }), ReadAnswer)
const mark = (as: Account, message_id: string, status: string) =>
  ok(post(as, '/messages/status', { message_id, status }), StatusAnswer)
const view = (as: Account, id: string) => ok(get(as, `/chats/${id}`), ChatWithMembers)
const message = (as: Account, id: string) => ok(get(as, `/messages/${id}`), Message)

/** What this client heard of others' cursors in a chat. */
const receipts = (client: Client, id: string) =>
  client.events.flatMap((e): object[] =>
    e.type === 'read' && e.chat_id === id && e.unread_count === undefined
      ? [{ read: e.read_seq, by: e.user_id, message_id: e.message_id }]
      : e.type === 'delivered' && e.chat_id === id
        ? [{ delivered: e.delivered_seq, by: e.user_id }]
        : [],
  )
/** Longer than receipts are gathered, and passed on. */
const quiet = () => sleep(900)

test('cursors go forward, as far as there are messages', async () => {
  const [x, y, stranger] = await people(3)
  const id = await servers.dm(x, y)
  expect(await read(y, id)).toEqual({ message: 'Marked as read', unread_count: 0, read_seq: 0 })
  expect(await read(y, id, 100)).toMatchObject({ read_seq: 0 })
  for (let n = 0; n < 5; n += 1) await say(x, id)
  expect(await read(y, id, 3)).toEqual({ message: 'Marked as read', unread_count: 2, read_seq: 3 })
  for (const seq of [0, 1, 2, 3]) expect(await read(y, id, seq)).toMatchObject({ unread_count: 2, read_seq: 3 })
  expect(await read(y, id, Number.MAX_SAFE_INTEGER)).toMatchObject({ unread_count: 0, read_seq: 5 })
  await say(x, id)
  expect(await read(y, id, 5)).toMatchObject({ unread_count: 1, read_seq: 5 })
  expect(await read(y, id)).toMatchObject({ unread_count: 0, read_seq: 6 })
  expect((await view(y, id)).my).toMatchObject({ read_seq: 6, delivered_seq: 6 })
  expect((await view(x, id)).my).toMatchObject({ read_seq: 0, delivered_seq: 0 })

  for (const seq of [-1, 1.5, '1', null, 2 ** 53])
    expect(await refusal(post(y, `/chats/${id}/read`, { seq }))).toBe('400 invalid_input')
  for (const chat of [id, nobody]) expect(await refusal(post(stranger, `/chats/${chat}/read`, {}))).toBe('404 chat_not_found')
  const device = await connect(servers, stranger, { at: 1 })
  for (const type of ['read', 'delivered'])
    await expect(device.ask({ type, chat_id: id })).rejects.toMatchObject({ code: 'chat_not_found' })
})

test('sent, delivered, read: each to its author alone, and never back', async () => {
  const [x, y, z] = await people(3)
  const id = await servers.group(x, [y, z])
  const one = await say(x, id)
  const two = await say(y, id)
  expect([one.seq, two.seq]).toEqual([2, 3])
  const [atX, atY, atZ] = await Promise.all([connect(servers, x), connect(servers, y, { at: 1 }), connect(servers, z, { at: 1 })])
  // Received as far as y's message, read as far as x's: each is told what concerns them.
  expect(await mark(z, two.id, 'delivered')).toMatchObject({ delivered_seq: 3, read_seq: 0 })
  expect(await mark(z, one.id, 'read')).toMatchObject({ delivered_seq: 3, read_seq: 2 })
  await atX.waitFor('read', (e) => e.user_id === z.id)
  await quiet()
  const delivered = { delivered: 3, by: z.id }
  expect(receipts(atX, id)).toEqual([delivered, { read: 2, by: z.id, message_id: one.id }])
  expect(receipts(atY, id)).toEqual([delivered])
  expect(receipts(atZ, id)).toEqual([])
  const counts = async (m: Message) => {
    const { status, delivered_count, read_count } = await message(x, m.id)
    return [status, delivered_count, read_count]
  }
  // Two others each; y has not said that they have it.
  expect([await counts(one), await counts(two)]).toEqual([
    ['sent', 1, 1],
    ['sent', 1, 0],
  ])
  await atY.ask({ type: 'delivered', chat_id: id })
  expect(await counts(one)).toEqual(['delivered', 2, 1])
  await atY.ask({ type: 'read', chat_id: id, seq: 2 })
  expect(await counts(one)).toEqual(['read', 2, 2])
  // Read is not undone by a late "delivered".
  expect(await atY.ask({ type: 'delivered', chat_id: id, seq: 1 })).toMatchObject({ read_seq: 2, delivered_seq: 3 })
  expect(await mark(y, one.id, 'delivered')).toMatchObject({ read_seq: 2, delivered_seq: 3 })
  expect(await counts(one)).toEqual(['read', 2, 2])
  await vi.waitFor(() => expect(atX.state.status(id, one.seq)).toBe('read'), 5_000)
  const heard = receipts(atX, id).length
  await read(y, id, 2)
  await quiet()
  expect(receipts(atX, id)).toHaveLength(heard)
})

test('what is read on one device is read on the others', async () => {
  const [x, y] = await people(2)
  const id = await servers.dm(x, y)
  const devices = await Promise.all([0, 1].map((at) => connect(servers, y, { at })))
  for (let n = 0; n < 4; n += 1) await say(x, id)
  for (const device of devices) await vi.waitFor(() => expect(device.state.unread(id)).toBe(4), 5_000)
  await devices[0]!.ask({ type: 'read', chat_id: id, seq: 3 })
  for (const device of devices) {
    const told = await device.waitFor('my_updated', (e) => e.my.read_seq === 3)
    expect([told.chat_id, told.unread_count, told.mention_count]).toEqual([id, 1, 0])
    expect(device.state.unread(id)).toBe(1)
    const own = await device.waitFor('read', (e) => e.chat_id === id)
    expect(own).toMatchObject({ user_id: y.id, read_seq: 3, unread_count: 1, message_id: null })
  }
})

test("unread are others' messages, not one's own, and not what the system says", async () => {
  const [x, y, z] = await people(3)
  const id = await servers.group(x, [y])
  await say(x, id)
  await ok(post(x, `/chats/${id}/members`, { user_ids: [z.id] }), ChatWithMembers)
  await say(y, id)
  await say(x, id)
  const unread = async () => Promise.all([x, y, z].map(async (who) => (await view(who, id)).unread_count))
  // Who came later starts with what was said since.
  expect(await unread()).toEqual([1, 2, 2])
  expect(await read(y, id, 2)).toMatchObject({ unread_count: 1 })
  await read(z, id)
  expect(await unread()).toEqual([1, 1, 0])
  expect(
    (await servers.call<{ chats: { unread_count: number }[] }>('GET', '/chats', { as: x })).body.chats[0]!.unread_count,
  ).toBe(1)
})

test('who joined later does not count for the ticks of what was said before', async () => {
  const [x, y, z] = await people(3)
  const id = await servers.group(x, [y])
  const early = await say(x, id)
  const device = await connect(servers, x, { at: 1 })
  await ok(post(x, `/chats/${id}/members`, { user_ids: [z.id] }), ChatWithMembers)
  const late = await say(x, id)
  await read(y, id)
  expect([(await message(x, early.id)).status, (await message(x, late.id)).status]).toEqual(['read', 'sent'])
  expect(await message(x, late.id)).toMatchObject({ read_count: 1, delivered_count: 1 })
  await vi.waitFor(() => expect([early, late].map((m) => device.state.status(id, m.seq))).toEqual(['read', 'sent']), 5_000)
  await mark(z, late.id, 'delivered')
  expect((await message(x, late.id)).status).toBe('delivered')
  // Nor do they once they are gone.
  await servers.call('DELETE', `/chats/${id}/members/${z.id}`, { as: x })
  expect((await message(x, late.id)).status).toBe('read')
  await vi.waitFor(() => expect(device.state.status(id, late.seq)).toBe('read'), 5_000)
})

test('reading while messages come: the count is always that of what comes after the cursor', async () => {
  const [x, y] = await people(2)
  const id = await servers.dm(x, y)
  const [writer, reader, other] = await Promise.all([
    connect(servers, x),
    connect(servers, y, { at: 1 }),
    connect(servers, y, { at: 0 }),
  ])
  let known = 0
  const sending = (async () => {
    for (let n = 0; n < 30; n += 1) await Promise.all(Array.from({ length: 5 }, () => writer.send(id, 'x')))
  })()
  const reading = (async () => {
    for (let n = 0; n < 60; n += 1) {
      const { read_seq, unread_count } = await read(y, id, n % 2 ? undefined : Math.floor(Math.random() * 150))
      expect(read_seq).toBeGreaterThanOrEqual(known)
      expect(read_seq + unread_count).toBeLessThanOrEqual(150)
      known = read_seq
    }
  })()
  await Promise.all([sending, reading])
  await read(y, id, 140)
  const { my, unread_count, last_seq } = await view(y, id)
  expect([last_seq, unread_count]).toEqual([150, 150 - my.read_seq])
  for (const device of [reader, other]) {
    await vi.waitFor(() => {
      expect([device.state.unread(id), device.state.chats.get(id)?.my.read_seq]).toEqual([unread_count, my.read_seq])
    }, 10_000)
    const moves = device.events.flatMap((e) => (e.type === 'my_updated' ? [e.my.read_seq] : []))
    expect(moves).toEqual(moves.toSorted((a, b) => a - b))
  }
  await vi.waitFor(() => expect(writer.state.chats.get(id)?.cursors.get(y.id)?.read_seq).toBe(my.read_seq), 5_000)
})

test('two devices mark the same chat at once, forwards and backwards: the furthest stands, and nobody ever sees it go back', async () => {
  const [x, y] = await people(2)
  const id = await servers.dm(x, y)
  const writer = await connect(servers, x)
  const devices = await Promise.all([0, 1].map((at) => connect(servers, y, { at })))
  const { db } = servers.instances[0]!.context
  const waiting = async () =>
    (await db.query(sql`SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`)).length
  const rounds = 20
  for (let n = 0; n < rounds; n += 1) await writer.send(id, 'x')
  let stands = 0
  for (let round = 1; round <= rounds; round += 1) {
    const near = [round, Math.max(0, round - 3)]
    const far = [round - 1, Math.max(0, round - 2)]
    const seqs = round % 3 ? [...near, ...far] : [...far, ...near]
    const move = async (seq: number, n: number) => {
      if (n % 2 === round % 2) return (await devices[n >> 1]!.ask({ type: 'read', chat_id: id, seq })).read_seq as number
      return (await ok(post(y, `/chats/${id}/read`, { seq }, n >> 1), ReadAnswer)).read_seq
    }
    // Both instances wait for the same row, and are let go at the same moment.
    const { moves } = await db.transaction(async (tx) => {
      await tx.query(sql`SELECT 1 FROM chat_members WHERE chat_id = ${id} AND user_id = ${y.id} FOR UPDATE`)
      const moves = seqs.map(move)
      await vi.waitFor(async () => expect(await waiting()).toBe(2), { timeout: 5_000, interval: 5 })
      return { moves }
    })
    for (const [n, read_seq] of (await Promise.all(moves)).entries()) expect(read_seq).toBeGreaterThanOrEqual(seqs[n]!)
    const { my, unread_count } = await view(y, id)
    expect(my.read_seq).toBeGreaterThanOrEqual(stands)
    expect([my.read_seq, unread_count]).toEqual([round, rounds - round])
    stands = my.read_seq
  }
  for (const device of devices) {
    await vi.waitFor(() => expect([device.state.unread(id), device.state.chats.get(id)?.my.read_seq]).toEqual([0, rounds]), 5_000)
    const told = device.events.flatMap((e) => (e.type === 'my_updated' ? [e.my.read_seq] : []))
    expect(told).toEqual(told.toSorted((a, b) => a - b))
  }
  await vi.waitFor(() => expect(writer.state.chats.get(id)?.cursors.get(y.id)?.read_seq).toBe(rounds), 5_000)
})
