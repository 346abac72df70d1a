import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { ReactionList } from '../src/modules/messages/schema.ts'
import { sql } from '../src/platform/db/db.ts'
import { Done } from '../src/platform/http/answers.ts'
import { Chat, ChatWithMembers, Message, SyncAnswer } from '../src/protocol/resources.ts'
import { channels } from './support/channels.ts'
import { checkChat, connect, ok, refusal, rest } from './support/check.ts'
import { startServers, type TestServers } from './support/server.ts'

/** What is counted and told of those who read a channel: views, reactions, and nothing of who they are. */

let servers: TestServers
beforeAll(async () => {
  servers = await startServers({ instances: 2 })
})
afterAll(() => servers.close())

const { get, post, remove, people } = rest(() => servers)
const { channel, say, read, role, subscribe, unsubscribe } = channels(() => servers)
const check = (id: string) => checkChat(servers.instances[0]!.context.db, id)
const no = '403 forbidden'

test('views: how many have read past a message, since they subscribed, and never fewer', async () => {
  const [owner, a, b, c, admin] = await people(5)
  const id = await channel(owner)
  for (let n = 2; n <= 5; n += 1) await say(owner, id, `${n}`)
  await ok(subscribe(a, id), Chat, 201)
  for (let n = 6; n <= 80; n += 1) await say(owner, id, `${n}`)
  await ok(subscribe(b, id), Chat, 201)
  await ok(subscribe(c, id), Chat, 201)
  await ok(subscribe(admin, id), Chat, 201)
  await ok(role(owner, id, admin, 'admin'), Done)
  for (let n = 81; n <= 90; n += 1) await say(owner, id, `${n}`)
  const views = async () => {
    const pages = await Promise.all([1, 51].map((after) => get(owner, `/chats/${id}/messages?after=${after - 1}&limit=50`)))
    return pages.flatMap(({ body }) => (body as { messages: Message[] }).messages.map((m) => m.view_count))
  }
  const truth = (seen: [from: number, to: number][]) =>
    Array.from({ length: 90 }, (_, n) => seen.filter(([from, to]) => n + 1 > from && n + 1 <= to).length)
  expect(await views()).toEqual(truth([]))
  await read(a, id, 7)
  await read(a, id, 70)
  await read(b, id, 85)
  expect(await views()).toEqual(
    truth([
      [5, 70],
      [80, 85],
    ]),
  )
  // Reading backwards, reading again and the reading of owner and admins change nothing.
  for (const seq of [3, 70]) await read(a, id, seq)
  for (const staff of [owner, admin]) await read(staff, id)
  expect(await views()).toEqual(
    truth([
      [5, 70],
      [80, 85],
    ]),
  )
  // Who leaves has seen what they have seen, and sees nothing twice.
  await ok(unsubscribe(b, id), Done)
  await ok(subscribe(b, id), Chat, 201)
  await read(b, id)
  await Promise.all([read(a, id), read(c, id)])
  expect(await views()).toEqual(
    truth([
      [5, 90],
      [80, 85],
      [80, 90],
    ]),
  )
  const { id: last } = await say(owner, id, 'new')
  expect((await say(owner, id, 'newer')).view_count).toBe(0)
  await read(b, id)
  expect((await ok(get(c, `/messages/${last}`), Message)).view_count).toBe(1)
  const moves = await servers.instances[0]!.context.db.query(sql`SELECT 1 FROM cursor_moves WHERE chat_id = ${id}`)
  expect(moves).toEqual([])
  const group = await servers.group(owner, [a])
  expect((await say(owner, group, 'x')).view_count).toBeNull()
})

test('nobody is told who reads, writes or looks; mentions call, mine are marked read on my own devices', async () => {
  const [owner, reader, other] = await people(3)
  const id = await channel(owner)
  for (const who of [reader, other]) await ok(subscribe(who, id), Chat, 201)
  const [o, r1, r2, x] = await Promise.all([owner, reader, reader, other].map((who, n) => connect(servers, who, { at: n % 2 })))
  const { seq, id: said } = await say(owner, id, `for @${reader.username} and @nobody_here`)
  await vi.waitFor(
    () => expect([r1!.state.mentions(id), r2!.state.mentions(id), x!.state.mentions(id)]).toEqual([1, 1, 0]),
    5_000,
  )
  await r1!.ask({ type: 'delivered', chat_id: id })
  expect((await ok(get(reader, `/chats/${id}`), ChatWithMembers)).my.delivered_seq).toBe(1)
  await r1!.ask({ type: 'typing', chat_id: id })
  expect((await r1!.ask({ type: 'join_chat', chat_id: id })).user_ids).toEqual([])
  expect((await o!.ask({ type: 'join_chat', chat_id: id })).user_ids).toEqual([])
  await r1!.ask({ type: 'read', chat_id: id, seq })
  await r2!.waitFor('my_updated', (e) => e.chat_id === id && e.my.read_seq === seq && e.unread_count === 0)
  await r2!.waitFor('read', (e) => e.user_id === reader.id && e.read_seq === seq && e.unread_count === 0)
  await say(owner, id, 'later')
  await x!.waitFor('new_message', (e) => e.message.content === 'later')
  // More than it takes to tell receipts.
  await new Promise((resolve) => setTimeout(resolve, 800))
  const quiet = ['read', 'delivered', 'typing', 'chat_presence', 'online_status', 'member_joined']
  for (const client of [o, x]) expect(client!.events.filter((e) => quiet.includes(e.type))).toEqual([])
  expect(await refusal(get(owner, `/messages/${said}/receipts`))).toBe(no)
  const ticks = await ok(
    post(owner, '/sync', { chats: { [id]: (await check(id)).version }, ticks: [id], user_version: o!.state.userVersion }),
    SyncAnswer,
  )
  expect(ticks.chats).toEqual([])
  const shown = await ok(get(owner, `/messages/${said}`), Message)
  expect([shown.status, shown.read_count, shown.delivered_count, shown.view_count]).toEqual(['sent', 0, 0, 1])
})

test('reactions count at once and are told together: one event for what came within a second', async () => {
  const everybody = await people(32)
  const [owner] = everybody
  const readers = everybody.slice(1)
  const id = await channel(owner)
  await Promise.all(readers.map((who, n) => subscribe(who, id, n % 2)))
  const watcher = await connect(servers, readers[0]!, { at: 1 })
  const { id: said, seq } = await say(owner, id, 'react!')
  const { version } = await check(id)
  const began = Date.now()
  const answers = await Promise.all(
    readers.map((who, n) => post(who, `/messages/${said}/reactions`, { emoji: n % 3 ? '👍' : '🎉' }, n % 2)),
  )
  const took = Date.now() - began
  expect(answers.map(({ status }) => status)).toEqual(readers.map(() => 200))
  const counts = (m: Pick<Message, 'reactions'>) => Object.fromEntries(m.reactions.map((r) => [r.emoji, r.count]))
  const all = { '👍': 20, '🎉': 11 }
  expect(counts(await ok(get(owner, `/messages/${said}`), Message))).toEqual(all)
  // Own devices hear of their own at once.
  await watcher.waitFor('my_reaction', (e) => e.message_id === said && e.emoji === '🎉' && !e.removed)
  const isLast = (m: Pick<Message, 'reactions'>) => counts(m)['👍'] === 20 && counts(m)['🎉'] === 11
  const { message } = await watcher.waitFor('message_edited', (e) => e.message.id === said && isLast(e.message), 10_000)
  expect(message.is_edited).toBe(false)
  await vi.waitFor(async () => {
    const due = await servers.instances[0]!.context.db.query(sql`SELECT 1 FROM channel_reactions_due WHERE chat_id = ${id}`)
    expect([due, watcher.state.chats.get(id)!.version]).toEqual([[], (await check(id)).version])
  }, 10_000)
  const told = watcher.events.filter((e) => e.type === 'message_edited')
  // What straddles a second is told in two, on however slow a machine.
  expect(told.length).toBeLessThanOrEqual(2 + Math.floor(took / 1_000))
  expect((await check(id)).version).toBe(version + told.length)
  expect(watcher.events.filter((e) => e.type === 'reaction')).toEqual([])
  const fresh = await connect(servers, readers[0]!)
  const held = (client: typeof fresh) => client.state.chats.get(id)!.messages.get(seq)!.reactions
  expect(held(watcher)).toEqual(held(fresh))
  expect(held(fresh).map((r) => [r.emoji, r.me])).toEqual(
    expect.arrayContaining([
      ['🎉', true],
      ['👍', false],
    ]),
  )

  // Twice is once; taken back it is told as well; a guest, a stranger and a deleted message are refused.
  await ok(post(readers[0]!, `/messages/${said}/reactions`, { emoji: '🎉' }), ReactionList)
  const back = await ok(remove(readers[0]!, `/messages/${said}/reactions/${encodeURIComponent('🎉')}`), ReactionList)
  expect(back.reactions.find((r) => r.emoji === '🎉')).toEqual({ emoji: '🎉', count: 10, me: false })
  await vi.waitFor(() => expect(held(watcher).find((r) => r.emoji === '🎉')).toMatchObject({ count: 10, me: false }), 5_000)
  await ok(remove(owner, `/messages/${said}`), Done)
  expect(await refusal(post(readers[0]!, `/messages/${said}/reactions`, { emoji: '🎉' }))).toBe('409 message_deleted')
  const left = await servers.instances[0]!.context.db.query(sql`SELECT 1 FROM message_reactions WHERE chat_id = ${id}`)
  expect(left).toEqual([])
  await check(id)
})
