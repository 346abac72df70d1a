import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { ChatList } from '../src/modules/chats/schema.ts'
import { Done } from '../src/platform/http/answers.ts'
import { Chat, ChatWithMembers, Message } from '../src/protocol/resources.ts'
import { checkChat, connect, nobody, ok, refusal, rest } from './support/check.ts'
import { type Account, startServers, type TestServers } from './support/server.ts'

let servers: TestServers
beforeAll(async () => {
  servers = await startServers({ instances: 2, env: { GROUP_MAX_MEMBERS: '5' } })
})
afterAll(() => servers.close())

const { get, post, patch, people } = rest(() => servers)
const list = (as: Account, query = '') => ok(get(as, `/chats${query}`), ChatList)
const ids = async (as: Account, query = '') => (await list(as, query)).chats.map((chat) => chat.id)
const say = (as: Account, chat_id: string, content: string) => ok(post(as, '/messages', { chat_id, content }), Message, 201)

test('two people talk over two instances', async () => {
  const anna = await servers.register('anna')
  const ben = await servers.register('ben')
  const chat = await servers.dm(anna, ben)
  const a = await connect(servers, anna, { at: 0 })
  const b = await connect(servers, ben, { at: 1 })
  const sent = await a.send(chat, 'hello')
  const heard = await b.waitFor('new_message', (e) => e.message.content === 'hello')
  expect(heard.message.id).toBe(sent.id)
  expect(sent.seq).toBe(1)
  await b.ask({ type: 'read', chat_id: chat })
  await a.waitFor('read', (e) => e.read_seq === 1)
  expect(a.state.status(chat, 1)).toBe('read')
})

test('a hundred simultaneous direct chats are one', async () => {
  const [x, y] = [await servers.register(), await servers.register()]
  const answers = await Promise.all(
    Array.from({ length: 50 }, (_, n) =>
      servers.call<{ id: string }>('GET', `/chats/dm/${n % 2 ? x.id : y.id}`, { as: n % 2 ? y : x, at: n % 4 > 1 ? 1 : 0 }),
    ),
  )
  expect(new Set(answers.map((a) => a.body.id)).size).toBe(1)
  expect(answers.filter((a) => a.status === 201)).toHaveLength(1)
  expect(answers.filter((a) => a.status === 200)).toHaveLength(49)
})

test('the same client_id a hundred times at once is one message', async () => {
  const [x, y] = [await servers.register(), await servers.register()]
  const chat_id = await servers.dm(x, y)
  const client_id = crypto.randomUUID()
  const answers = await Promise.all(
    Array.from({ length: 100 }, (_, n) =>
      servers.call<{ id: string }>('POST', '/messages', { as: x, at: n % 2, body: { chat_id, client_id, content: 'once' } }),
    ),
  )
  expect(new Set(answers.map((a) => a.body.id)).size).toBe(1)
  expect(answers.filter((a) => a.status === 201)).toHaveLength(1)
  const { body } = await servers.call<{ total: number }>('GET', `/chats/${chat_id}/messages`, { as: y })
  expect(body.total).toBe(1)
})

test('a direct chat is made once, whoever asks and however, and both are told', async () => {
  const [x, y] = await people(2)
  const devices = await Promise.all([connect(servers, x), connect(servers, y, { at: 1 })])
  const made = await ok(get(x, `/chats/dm/${y.id}`), Chat, 201)
  expect(made).toMatchObject({ type: 'dm', name: y.username, member_count: 2, my_role: 'member', last_seq: 0, unread_count: 0 })
  expect([made.owner_id, made.last_message, made.last_message_at]).toEqual([null, null, null])
  expect(made.peer).toMatchObject({ id: y.id, is_online: true })
  for (const device of devices) await device.waitFor('chat_added', (e) => e.chat.id === made.id)
  expect(await ok(get(y, `/chats/dm/${x.id}`), Chat)).toMatchObject({ id: made.id, name: x.username })
  const again = await ok(post(y, '/chats', { type: 'dm', member_ids: [x.id.toUpperCase()] }), ChatWithMembers)
  expect([again.id, again.members.length]).toEqual([made.id, 2])
  await checkChat(servers.instances[0]!.context.db, made.id)
})

test('with yourself: your saved messages', async () => {
  const [x] = await people(1)
  const saved = await ok(post(x, '/chats', { type: 'dm', member_ids: [x.id] }), ChatWithMembers, 201)
  expect(saved).toMatchObject({ type: 'dm', name: x.username, member_count: 1, peer: { id: x.id } })
  expect(saved.members.map((m) => m.user_id)).toEqual([x.id])
  expect((await ok(get(x, `/chats/dm/${x.id}`), Chat)).id).toBe(saved.id)
  // With nobody else to receive it, it is sent and stays so; it is not unread either.
  expect((await say(x, saved.id, 'milk')).status).toBe('sent')
  expect((await ok(get(x, `/chats/${saved.id}`), ChatWithMembers)).unread_count).toBe(0)
})

test('a direct chat with nobody, several, oneself twice or somebody who is gone', async () => {
  const [x, y, gone, later] = await people(4)
  const old = await servers.dm(x, later)
  for (const account of [gone, later]) {
    await ok(servers.call('DELETE', '/users/me', { as: account, body: { password: 'Secret123' } }), Done)
  }
  for (const id of [nobody, gone.id]) {
    expect(await refusal(get(x, `/chats/dm/${id}`))).toBe('404 user_not_found')
    expect(await refusal(post(x, '/chats', { type: 'dm', member_ids: [id] }))).toBe('404 user_not_found')
  }
  expect(await refusal(get(x, '/chats/dm/me'))).toBe('400 invalid_input')
  for (const member_ids of [[], [x.id, x.id], [x.id, y.id], 'me', [null], undefined]) {
    expect(await refusal(post(x, '/chats', { type: 'dm', member_ids })), JSON.stringify(member_ids)).toBe('400 invalid_input')
  }
  // What was said with somebody who left stays.
  expect(await ok(get(x, `/chats/dm/${later.id}`), Chat)).toMatchObject({ id: old, name: 'Deleted account' })
})

test('a group: its name is trimmed, its people are folded, everybody hears of it', async () => {
  const [x, y, z] = await people(3)
  const devices = await Promise.all([connect(servers, x), connect(servers, y, { at: 1 }), connect(servers, z)])
  const body = { type: 'group', name: '  Hike \n', description: ' by train ', member_ids: [y.id, z.id, y.id, x.id] }
  const made = await ok(post(x, '/chats', body), ChatWithMembers, 201)
  expect(made).toMatchObject({
    type: 'group',
    name: 'Hike',
    description: ' by train ',
    owner_id: x.id,
    member_count: 3,
    peer: null,
  })
  expect([made.my_role, made.slug, made.last_seq]).toEqual(['owner', null, 1])
  expect(made.last_message?.system).toEqual({ action: 'group_created', actor_id: x.id, name: 'Hike' })
  const roles = new Map(made.members.map((m) => [m.user_id, m.role]))
  expect(roles).toEqual(new Map(Object.entries({ [x.id]: 'owner', [y.id]: 'member', [z.id]: 'member' })))
  for (const device of devices) {
    await vi.waitFor(() => expect(device.state.chats.get(made.id)?.messages.size).toBe(1), 5_000)
    expect(device.state.unread(made.id)).toBe(0)
  }
  await checkChat(servers.instances[0]!.context.db, made.id)
})

test('a group that cannot be: nothing of it remains', async () => {
  const [x, y] = await people(2)
  const five = await people(5)
  const bad = (body: object) => refusal(post(x, '/chats', { type: 'group', name: 'G', ...body }))
  for (const body of [
    { name: '' },
    { name: ' \t\n' },
    { name: 'x'.repeat(101) },
    { name: 'a\0b' },
    { name: '\ud800' },
    { name: 7 },
    { name: undefined },
    { description: 'x'.repeat(1_001) },
    { member_ids: ['x'] },
    { type: 'channel' },
    { slug: 'x' },
  ]) {
    expect(await bad(body), JSON.stringify(body)).toBe('400 invalid_input')
  }
  expect(await bad({ member_ids: [y.id, nobody] })).toBe('404 user_not_found')
  expect(await bad({ member_ids: five.map((p) => p.id) })).toBe('409 group_full')
  expect(await refusal(servers.call('POST', '/chats', { body: {} }))).toBe('401 unauthorized')
  expect(await list(x)).toEqual({ chats: [], count: 0, has_more: false, next_cursor: null })
  expect((await list(y)).count).toBe(0)

  const full = await ok(
    post(x, '/chats', { type: 'group', name: '👪'.repeat(100), member_ids: five.slice(0, 4).map((p) => p.id) }),
    ChatWithMembers,
    201,
  )
  expect([full.member_count, full.name]).toEqual([5, '👪'.repeat(100)])
  expect((await ok(post(x, '/chats', { type: 'group', name: 'Alone' }), ChatWithMembers, 201)).member_count).toBe(1)
})

test('the list: pinned first, then by latest message, page by page, with what is unread', async () => {
  const [x, ...others] = await people(5)
  const chats: string[] = []
  for (const other of others) chats.push(await servers.dm(x, other))
  const [a, b, c, d] = chats as [string, string, string, string]
  // Of those without a message, the newest first.
  expect(await ids(x)).toEqual([d, c, b, a])
  await say(others[0]!, a, 'one')
  await say(x, a, 'two')
  const three = await say(others[0]!, a, 'three')
  await say(others[1]!, b, 'b')
  await ok(patch(x, `/chats/${c}/settings`, { pinned: true }), Chat)
  const { chats: listed, count } = await list(x)
  expect([listed.map((chat) => chat.id), count]).toEqual([[c, b, a, d], 4])
  expect(listed.map((chat) => [chat.unread_count, chat.last_message?.content, chat.my.pinned])).toEqual([
    [0, undefined, true],
    [1, 'b', false],
    // One's own message is not unread.
    [2, 'three', false],
    [0, undefined, false],
  ])
  expect([listed[2]!.last_message_at, listed[2]!.last_seq]).toEqual([three.created_at, 3])

  const seen: string[] = []
  for (let cursor = ''; ; ) {
    const page = await list(x, `?limit=3${cursor}`)
    expect([page.count, page.has_more]).toEqual([4, page.next_cursor !== null])
    seen.push(...page.chats.map((chat) => chat.id))
    if (!page.has_more) break
    cursor = `&cursor=${page.next_cursor}`
  }
  expect(seen).toEqual([c, b, a, d])
  for (const query of ['?limit=0', '?limit=501', '?limit=x', '?cursor=x', '?archived=1', '?page=2']) {
    expect(await refusal(get(x, `/chats${query}`)), query).toBe('400 invalid_input')
  }
})
