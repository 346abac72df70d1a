import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { Forwarded } from '../src/modules/messages/schema.ts'
import { sql } from '../src/platform/db/db.ts'
import { Done } from '../src/platform/http/answers.ts'
import { Message } from '../src/protocol/resources.ts'
import { checkChat, connect, ok, rest } from './support/check.ts'
import { loseDatabase } from './support/lose-database.ts'
import { type Account, startServers, type TestServers } from './support/server.ts'

/** A forward to several chats reaches all of them or none, once, whatever else happens at the same moment. */

let servers: TestServers
beforeAll(async () => {
  servers = await startServers({ instances: 2 })
})
afterAll(() => servers.close())

const { post, remove, people } = rest(() => servers)
const db = () => servers.instances[0]!.context.db
const say = (as: Account, chat_id: string, content = 'x') => ok(post(as, '/messages', { chat_id, content }), Message, 201)
/** What somebody sent on into a chat, by its client_id. */
const forwarded = async (by: Account, chat: string) => {
  const rows = await db().query<{ client_id: string }>(
    sql`SELECT client_id FROM messages WHERE chat_id = ${chat} AND sender_id = ${by.id} AND forward_sender_id IS NOT NULL`,
  )
  return rows.map((row) => row.client_id).sort()
}

test('a removal against forwards to two chats: each arrives in both or in none', async () => {
  const [owner, out] = await people(2)
  const [home, away] = [await servers.group(owner, [out]), await servers.group(owner, [out])]
  const { id } = await say(out, await servers.dm(out, out), 'pass it on')
  const [both, none] = [new Set<string>(), new Set<string>()]
  for (let round = 0; round < 40; round += 1) {
    const forwards = Array.from({ length: 4 }, async (_, n) => {
      const client_id = randomUUID()
      if (n > 1) await sleep(n)
      const given = { chat_ids: n % 2 ? [home, away] : [away, home], client_id }
      const { status } = await post(out, `/messages/${id}/forward`, given, n % 2)
      expect([201, 404]).toContain(status)
      ;(status === 201 ? both : none).add(client_id)
    })
    await sleep(round % 4)
    await ok(remove(owner, `/chats/${away}/members/${out.id}`, round % 2), Done)
    await Promise.all(forwards)
    expect((await post(owner, `/chats/${away}/members`, { user_ids: [out.id] })).status).toBe(200)
  }
  expect(Math.min(both.size, none.size)).toBeGreaterThan(5)
  for (const chat of [home, away]) {
    expect(await forwarded(out, chat)).toEqual([...both].sort())
    await checkChat(db(), chat)
  }
})

test('the same forward and a plain send under its client_id at once, over both instances: each chat has one message', async () => {
  const [x, y] = await people(2)
  const chats = [await servers.dm(x, y), await servers.group(x, [y]), await servers.group(y, [x])]
  const seqs = await Promise.all(chats.map(async (chat) => (await checkChat(db(), chat)).last_seq))
  const { id } = await say(x, await servers.dm(x, x), 'pass it on')
  const device = await connect(servers, y, { at: 1 })
  for (let round = 0; round < 20; round += 1) {
    const client_id = randomUUID()
    const orders = [chats, chats.toReversed(), [chats[1]!, chats[2]!, chats[0]!], chats]
    const others = chats.map((chat_id, n) => post(y, '/messages', { chat_id, content: 'y' }, n % 2))
    const plain = post(x, '/messages', { chat_id: chats[round % 3]!, content: 'plain', client_id }, round % 2)
    const forwards = await Promise.all(
      orders.map((chat_ids, n) => ok(post(x, `/messages/${id}/forward`, { chat_ids, client_id }, n % 2), Forwarded, 201)),
    )
    const { id: first } = (await plain).body as unknown as Message
    const ids = forwards.map(({ messages }) => new Map(messages.map((m) => [m.chat_id, m.id])))
    for (const chat of chats) expect(new Set(ids.map((mine) => mine.get(chat))).size).toBe(1)
    expect(ids[0]!.get(chats[round % 3]!)).toBe(first)
    for (const [n, { messages }] of forwards.entries()) expect(messages.map((m) => m.chat_id)).toEqual(orders[n])
    for (const { status } of await Promise.all(others)) expect(status).toBe(201)
  }
  for (const [n, chat] of chats.entries()) {
    const { last_seq } = await checkChat(db(), chat)
    expect(last_seq).toBe(seqs[n]! + 40)
    await vi.waitFor(() => expect(device.state.chats.get(chat)?.lastSeq).toBe(last_seq), 5_000)
    const told = device.events.flatMap((e) => (e.type === 'new_message' && e.chat_id === chat ? [e.message.seq] : []))
    expect(told).toEqual(Array.from({ length: 40 }, (_, k) => seqs[n]! + 1 + k))
  }
})

test('a forward that waits for a busy chat holds up nobody in the others', async () => {
  const [x, y] = await people(2)
  // In the order in which locks are taken, the busy one is neither first nor last.
  const chats = [await servers.group(x, [y]), await servers.group(x, [y]), await servers.group(x, [y])]
  const [first, busy, last] = chats as [string, string, string]
  const { id } = await say(x, await servers.dm(x, x), 'pass it on')
  const waiting = async () =>
    (await db().query(sql`SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`)).length
  const { forward } = await db().transaction(async (tx) => {
    await tx.query(sql`SELECT 1 FROM chat_counters WHERE chat_id = ${busy} FOR UPDATE`)
    const forward = ok(post(x, `/messages/${id}/forward`, { chat_ids: chats }), Forwarded, 201)
    await vi.waitFor(async () => expect(await waiting()).toBe(1), 5_000)
    for (const chat of [first, last]) await say(y, chat)
    return { forward }
  })
  expect((await forward).messages.map((m) => m.seq)).toEqual(
    await Promise.all(chats.map(async (chat) => (await checkChat(db(), chat)).last_seq)),
  )
})

test('a database that is lost before the commit, and stays away for a while: the forward waits, and is there once', async () => {
  const [x, y] = await people(2)
  const chats = [await servers.dm(x, y), await servers.group(x, [y])]
  const { id } = await say(x, await servers.dm(x, x), 'pass it on')
  const database = loseDatabase(db(), async () => {})
  const client_id = randomUUID()
  try {
    const { messages } = await ok(post(x, `/messages/${id}/forward`, { chat_ids: chats, client_id }), Forwarded, 201)
    expect(messages.map((m) => [m.chat_id, m.client_id])).toEqual(chats.map((chat) => [chat, client_id]))
  } finally {
    database.restore()
  }
  expect(database.refused).toBe(3)
  for (const chat of chats) {
    expect(await forwarded(x, chat)).toEqual([client_id])
    await checkChat(db(), chat)
  }
})

test('a commit whose answer is lost: it is found and told, and answered though its sender was removed since', async () => {
  const [x, y] = await people(2)
  const chats = [await servers.dm(x, y), await servers.group(y, [x])]
  const { id } = await say(x, await servers.dm(x, x), 'pass it on')
  const device = await connect(servers, y, { at: 1 })
  // Told, not found by looking.
  for (const { server } of servers.instances) server.hub.sweep = async () => {}
  const { query } = db()
  const database = loseDatabase(db(), async (batch) => {
    await query(batch)
    await ok(remove(y, `/chats/${chats[1]}/members/${x.id}`, 1), Done)
  })
  const client_id = randomUUID()
  try {
    const { messages } = await ok(post(x, `/messages/${id}/forward`, { chat_ids: chats, client_id }), Forwarded, 201)
    expect(messages.map((m) => [m.chat_id, m.client_id])).toEqual(chats.map((chat) => [chat, client_id]))
  } finally {
    database.restore()
  }
  for (const chat of chats) {
    expect(await forwarded(x, chat)).toEqual([client_id])
    await checkChat(db(), chat)
  }
  await device.waitFor('new_message', (e) => e.chat_id === chats[0] && e.message.client_id === client_id)
})
