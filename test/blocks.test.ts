import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { ReadAnswer } from '../src/modules/chats/schema.ts'
import { BlockList, ContactList, RequestAnswer, RequestList } from '../src/modules/contacts/schema.ts'
import { ReceiptList, StatusAnswer } from '../src/modules/messages/schema.ts'
import { FoundUsers } from '../src/modules/users/schema.ts'
import { Done } from '../src/platform/http/answers.ts'
import { Chat, ChatWithMembers, Me, Message, UserPublic } from '../src/protocol/resources.ts'
import type { Client } from './client/client.ts'
import { connect, nobody, ok, refusal, rest } from './support/check.ts'
import { type Account, startServers, type TestServers } from './support/server.ts'

/** What a block and what privacy do: to what is sent, counted and shown, and that who is blocked is told nothing. */

let servers: TestServers
beforeAll(async () => {
  servers = await startServers({ instances: 2 })
})
afterAll(() => servers.close())

const { get, post, patch, remove, people } = rest(() => servers)
const block = (as: Account, whom: Account, at = 0) => ok(servers.call('PUT', `/blocks/${whom.id}`, { as, at }), Done)
const unblock = (as: Account, whom: Account, at = 0) => ok(remove(as, `/blocks/${whom.id}`, at), Done)
const say = (as: Account, chat_id: string, content = 'x', at = 0) =>
  ok(post(as, '/messages', { chat_id, content }, at), Message, 201)
const befriend = async (a: Account, b: Account) => {
  const { id } = await ok(post(a, '/contacts/requests', { user_id: b.id }), RequestAnswer, 201)
  await ok(post(b, `/contacts/requests/${id}/accept`), UserPublic)
}
const contacts = async (as: Account) => (await ok(get(as, '/contacts'), ContactList)).contacts.map((user) => user.id)
const relation = async (as: Account, whom: Account) =>
  (await ok(get(as, `/users/search?q=${whom.username}`), FoundUsers)).users.find((user) => user.id === whom.id)?.relation
const profile = (as: Account, whom: Account) => ok(get(as, `/users/${whom.id}`), UserPublic)
const chat = (as: Account, id: string) => ok(get(as, `/chats/${id}`), ChatWithMembers)
const kinds = (client: Client) =>
  Object.fromEntries(Array.from(client.state.relations.values(), ({ user_id, relation }) => [user_id, relation]))

test('who is blocked cannot write, edit, react or pin in the direct chat, nor ask; deleting stays, and unblocking opens it', async () => {
  const [me, them] = await people(2)
  const id = await servers.dm(me, them)
  const mine = await say(me, id, 'mine')
  const theirs = await say(them, id, 'theirs')
  const device = await connect(servers, them, { at: 1 })
  // Known to be allowed, at both instances.
  for (const at of [0, 1]) await say(them, id, 'before', at)
  await block(me, them)
  await block(me, them, 1)
  for (const at of [0, 1]) {
    expect(await refusal(post(them, '/messages', { chat_id: id, content: 'x' }, at))).toBe('403 not_allowed')
    expect(await refusal(post(me, '/messages', { chat_id: id, content: 'x' }, at))).toBe('403 user_blocked')
  }
  await expect(device.send(id, 'x')).rejects.toMatchObject({ code: 'not_allowed' })
  const note = await servers.dm(them, them)
  const own = await say(them, note)
  const tries = (who: Account) => [
    patch(who, `/messages/${who === me ? mine.id : theirs.id}`, { content: 'y' }, 1),
    post(who, `/messages/${who === me ? theirs.id : mine.id}/reactions`, { emoji: '👍' }, 1),
    servers.call('PUT', `/chats/${id}/pins/${mine.id}`, { as: who }),
    post(who, `/messages/${theirs.id}/forward`, { chat_ids: [id] }),
  ]
  for (const answer of tries(them)) expect(await refusal(answer)).toBe('403 not_allowed')
  for (const answer of tries(me)) expect(await refusal(answer)).toBe('403 user_blocked')
  // All or nothing: the chat that would have been all right got nothing.
  expect(await refusal(post(them, `/messages/${own.id}/forward`, { chat_ids: [note, id] }))).toBe('403 not_allowed')
  expect((await chat(them, note)).last_seq).toBe(1)
  expect(await refusal(post(them, '/contacts/requests', { user_id: me.id }))).toBe('403 not_allowed')
  expect(await refusal(post(me, '/contacts/requests', { user_id: them.id }))).toBe('403 user_blocked')
  await ok(remove(them, `/messages/${theirs.id}`), Done)
  // The chat is there to be opened and read, by both.
  for (const [as, whom] of [
    [me, them],
    [them, me],
  ] as const)
    expect((await ok(get(as, `/chats/dm/${whom.id}`), Chat)).id).toBe(id)
  await unblock(me, them, 1)
  await unblock(me, them)
  for (const at of [0, 1]) for (const as of [me, them]) await say(as, id, 'after', at)
  expect((await device.send(id, 'after')).content).toBe('after')
})

test('both block each other: each has to unblock before anything is said', async () => {
  const [x, y] = await people(2)
  const id = await servers.dm(x, y)
  await block(x, y)
  await block(y, x)
  for (const as of [x, y]) expect(await refusal(post(as, '/messages', { chat_id: id, content: 'x' }))).toBe('403 user_blocked')
  await unblock(x, y)
  expect(await refusal(post(x, '/messages', { chat_id: id, content: 'x' }))).toBe('403 not_allowed')
  await unblock(y, x)
  await say(x, id)
})

test('a direct chat is not begun with who blocks me, whom I block, or who takes them from contacts alone', async () => {
  const [x, y, z] = await people(3)
  await block(y, x)
  for (const answer of [get(x, `/chats/dm/${y.id}`), post(x, '/chats', { type: 'dm', member_ids: [y.id] })])
    expect(await refusal(answer)).toBe('403 not_allowed')
  expect(await refusal(get(y, `/chats/dm/${x.id}`))).toBe('403 user_blocked')
  await ok(patch(z, '/users/me', { privacy: { dm: 'contacts' } }), Me)
  expect(await refusal(get(x, `/chats/dm/${z.id}`))).toBe('403 not_allowed')
  await befriend(x, z)
  await ok(get(x, `/chats/dm/${z.id}`), Chat, 201)
  // Once there, it is theirs.
  await ok(remove(x, `/contacts/${z.id}`), Done)
  await say(x, (await ok(get(x, `/chats/dm/${z.id}`), Chat)).id)
  expect(await refusal(servers.call('PUT', `/blocks/${x.id}`, { as: x }))).toBe('400 invalid_input')
  expect(await refusal(servers.call('PUT', `/blocks/${nobody}`, { as: x }))).toBe('404 user_not_found')
})

test('nobody is put into a group by somebody whom they block; who is in stays', async () => {
  const [x, y, z] = await people(3)
  const group = await servers.group(x, [y])
  await block(y, x)
  expect(await refusal(post(x, '/chats', { type: 'group', name: 'G', member_ids: [z.id, y.id] }))).toBe('403 not_allowed')
  const other = await servers.group(x, [])
  expect(await refusal(post(x, `/chats/${other}/members`, { user_ids: [z.id, y.id] }))).toBe('403 not_allowed')
  expect((await chat(x, other)).members.map((member) => member.user_id)).toEqual([x.id])
  // Named again, who is in already is left as they are.
  await ok(post(x, `/chats/${group}/members`, { user_ids: [y.id, z.id] }), ChatWithMembers)
  await say(x, group)
  await ok(post(y, '/chats', { type: 'group', name: 'Mine', member_ids: [x.id] }), ChatWithMembers, 201)
})

test('a block hides and tells nothing: the other side keeps contact and chat, and sees somebody who is offline', async () => {
  const [me, them] = await people(2)
  await befriend(me, them)
  const id = await servers.dm(me, them)
  const [mine, mineToo] = [await connect(servers, me, { at: 0 }), await connect(servers, me, { at: 1 })]
  const theirs = await connect(servers, them, { at: 1 })
  await vi.waitFor(async () => expect((await profile(them, me)).is_online).toBe(true), 5_000)
  theirs.events.length = 0
  const version = theirs.state.userVersion
  await block(me, them)
  for (const client of [mine, mineToo]) await vi.waitFor(() => expect(kinds(client)).toEqual({ [them.id]: 'blocked' }), 5_000)
  expect([await contacts(me), (await ok(get(me, '/blocks'), BlockList)).blocks.map((user) => user.id)]).toEqual([[], [them.id]])
  expect([await relation(me, them), await relation(them, me), await contacts(them)]).toEqual(['blocked', 'contact', [me.id]])
  // Neither sees the other, wherever they look.
  for (const [as, whom] of [
    [me, them],
    [them, me],
  ] as const) {
    expect(await profile(as, whom)).toMatchObject({ is_online: false, last_seen: null })
    expect((await chat(as, id)).peer).toMatchObject({ is_online: false, last_seen: null })
    const { users } = await ok(get(as, `/users/search?q=${whom.username}`), FoundUsers)
    expect(users[0]).toMatchObject({ is_online: false, last_seen: null })
  }
  expect((await ok(get(them, '/contacts'), ContactList)).contacts[0]).toMatchObject({ is_online: false, last_seen: null })
  // They are told of somebody who went, and of nothing else.
  await theirs.waitFor('online_status', (e) => e.user_id === me.id && !e.is_online && e.last_seen === null)
  await sleep(1_500)
  expect(new Set(theirs.events.map((e) => e.type))).toEqual(new Set(['online_status']))
  expect([theirs.state.userVersion, kinds(theirs)]).toEqual([version, { [me.id]: 'contact' }])
  const fresh = await connect(servers, me)
  await vi.waitFor(() => expect([mine.state.userVersion, kinds(mine)]).toEqual([fresh.state.userVersion, kinds(fresh)]), 5_000)
  await unblock(me, them)
  for (const client of [mine, mineToo, fresh])
    await vi.waitFor(() => expect(kinds(client)).toEqual({ [them.id]: 'contact' }), 5_000)
  expect([await contacts(me), (await profile(them, me)).is_online]).toEqual([[them.id], true])
})

test('who blocks leaves no ticks with who is blocked, who reads on for themselves; after it they count again', async () => {
  const [me, them] = await people(2)
  const id = await servers.dm(me, them)
  const [mine, theirs] = [await connect(servers, me), await connect(servers, them, { at: 1 })]
  const unread = async (as: Account) => (await chat(as, id)).unread_count
  const ticks = async ({ id: message }: Message) => {
    const { status, delivered_count, read_count } = await ok(get(them, `/messages/${message}`), Message)
    const { receipts } = await ok(get(them, `/messages/${message}/receipts`), ReceiptList)
    return [status, delivered_count, read_count, receipts.map((r) => [r.delivered_at !== null, r.read_at !== null])]
  }
  await say(me, id, 'mine')
  const before = await say(them, id, 'before')
  await mine.ask({ type: 'delivered', chat_id: id, seq: before.seq })
  await theirs.waitFor('delivered', (e) => e.delivered_seq === before.seq)
  await block(me, them)
  theirs.events.length = 0
  const reads = { read_seq: 0, delivered_seq: before.seq }
  for (const at of [0, 1]) {
    expect(await ok(post(me, `/chats/${id}/read`, {}, at), ReadAnswer)).toMatchObject({ unread_count: 0, read_seq: 0 })
    for (const status of ['delivered', 'read'])
      expect(await ok(post(me, '/messages/status', { message_id: before.id, status }, at), StatusAnswer)).toMatchObject(reads)
  }
  for (const type of ['delivered', 'read']) expect(await mine.ask({ type, chat_id: id })).toMatchObject(reads)
  expect(await ticks(before)).toEqual(['delivered', 1, 0, [[true, false]]])
  // Who is blocked has a badge to clear.
  expect(await unread(them)).toBe(1)
  expect(await ok(post(them, `/chats/${id}/read`, {}), ReadAnswer)).toMatchObject({ unread_count: 0, read_seq: before.seq })
  await mine.waitFor('read', (e) => e.user_id === them.id)
  // Of their own reading they hear, of the other's nothing.
  const heard = theirs.events.filter((e) => e.type === 'read' || e.type === 'delivered')
  expect(heard.filter((e) => e.user_id !== them.id)).toEqual([])
  const fresh = await connect(servers, them)
  for (const client of [theirs, fresh]) expect(client.state.status(id, before.seq)).toBe('delivered')
  await unblock(me, them)
  expect(await unread(me)).toBe(1)
  expect(await ok(post(me, `/chats/${id}/read`, {}), ReadAnswer)).toMatchObject({ unread_count: 0, read_seq: before.seq })
  expect(await ticks(before)).toEqual(['read', 1, 1, [[true, true]]])
  for (const client of [theirs, fresh]) await client.waitFor('read', (e) => e.user_id === me.id)
})

test('a request of somebody who is blocked then is out of sight, and comes back; what they ask meanwhile is what it was', async () => {
  const [me, them] = await people(2)
  const { id } = await ok(post(them, '/contacts/requests', { user_id: me.id }), RequestAnswer, 201)
  const device = await connect(servers, me)
  const { since } = device.state.relations.get(them.id)!
  await block(me, them)
  const held = { relation: 'blocked', request_id: null, since }
  await vi.waitFor(() => expect(device.state.relations.get(them.id)).toMatchObject(held), 5_000)
  expect((await ok(get(me, '/contacts/requests'), RequestList)).requests).toEqual([])
  expect(await refusal(post(me, `/contacts/requests/${id}/accept`))).toBe('403 user_blocked')
  expect((await ok(get(them, '/contacts/requests?direction=outgoing'), RequestList)).requests.map((r) => r.id)).toEqual([id])
  expect((await ok(post(them, '/contacts/requests', { user_id: me.id }), RequestAnswer)).id).toBe(id)
  await unblock(me, them)
  expect((await ok(get(me, '/contacts/requests'), RequestList)).requests.map((r) => r.id)).toEqual([id])
  await vi.waitFor(
    () => expect(device.state.relations.get(them.id)).toMatchObject({ relation: 'incoming', request_id: id }),
    5_000,
  )
  await ok(post(me, `/contacts/requests/${id}/accept`), UserPublic)
})

/** What is unread and mentions me in this chat, as REST, a live device, one that was away and a new one have it. */
async function counted(as: Account, id: string, live: Client, expected: [number, number]): Promise<void> {
  const { unread_count, mention_count } = await chat(as, id)
  expect([unread_count, mention_count]).toEqual(expected)
  await vi.waitFor(() => expect([live.state.unread(id), live.state.mentions(id)]).toEqual(expected), 5_000)
  const fresh = await connect(servers, as, { at: 1 })
  expect([fresh.state.unread(id), fresh.state.mentions(id)]).toEqual(expected)
  fresh.close()
}

test('messages of people whom I block do not count as unread, in any chat, on any device', async () => {
  const [me, them, other] = await people(3)
  const group = await servers.group(other, [me, them])
  const dm = await servers.dm(me, them)
  const live = await connect(servers, me)
  const away = await connect(servers, me, { at: 1 })
  for (const at of [0, 1]) await say(them, group, `@${me.username} them`, at)
  await say(other, group, `@${me.username} other`)
  await say(them, dm)
  await counted(me, group, live, [3, 3])
  await counted(me, dm, live, [1, 0])
  await vi.waitFor(() => expect(away.state.unread(group)).toBe(3), 5_000)
  away.close()
  await away.waitForClose()
  await block(me, them)
  // A device that does not hold the messages is told the counts.
  await live.waitFor('my_updated', (e) => e.chat_id === group && e.unread_count === 1 && e.mention_count === 1)
  await live.waitFor('my_updated', (e) => e.chat_id === dm && e.unread_count === 0)
  await counted(me, group, live, [1, 1])
  await counted(me, dm, live, [0, 0])
  await say(them, group, `@${me.username} again`, 1)
  await counted(me, group, live, [1, 1])
  await away.connect()
  expect([away.state.unread(group), away.state.unread(dm)]).toEqual([1, 0])
  expect((await ok(post(me, `/chats/${group}/read`, { seq: 2 }), ReadAnswer)).unread_count).toBe(1)
  await unblock(me, them)
  await live.waitFor('my_updated', (e) => e.chat_id === group && e.unread_count === 3)
  for (const client of [live, away]) {
    await counted(me, group, client, [3, 3])
    await counted(me, dm, client, [1, 0])
  }
})

test('a device that holds only the newest page counts what it is told, without the blocked', async () => {
  const [me, them, other] = await people(3)
  const group = await servers.group(other, [me, them])
  const writer = await connect(servers, them)
  for (let n = 0; n < 60; n += 10) await Promise.all(Array.from({ length: 10 }, (_, k) => writer.send(group, `${n + k}`)))
  for (let n = 0; n < 10; n += 1) await say(other, group)
  const live = servers.client(me)
  live.syncLimit = 20
  await live.connect()
  expect([live.state.unread(group), live.state.chats.get(group)!.messages.size]).toEqual([70, 20])
  await block(me, them)
  await counted(me, group, live, [10, 0])
  await say(them, group)
  await say(other, group)
  await counted(me, group, live, [11, 0])
  // Deleted, and not held: it was not counted.
  const { messages } = (await get(me, `/chats/${group}/messages?after=1&limit=1`)).body as { messages: Message[] }
  await ok(remove(them, `/messages/${messages[0]!.id}`), Done)
  await live.waitFor('message_deleted')
  await counted(me, group, live, [11, 0])
  await unblock(me, them)
  await counted(me, group, live, [71, 0])
})
