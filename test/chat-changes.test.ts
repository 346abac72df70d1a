import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { ChatList } from '../src/modules/chats/schema.ts'
import { MessagePage } from '../src/modules/messages/schema.ts'
import { Done } from '../src/platform/http/answers.ts'
import { Chat, ChatWithMembers, Message } from '../src/protocol/resources.ts'
import { checkChat, connect, nobody, ok, refusal, rest } from './support/check.ts'
import { type Account, startServers, type TestServers } from './support/server.ts'

let servers: TestServers
beforeAll(async () => {
  servers = await startServers({ instances: 2 })
})
afterAll(() => servers.close())

const { get, post, patch, remove, people } = rest(() => servers)
const list = (as: Account, query = '') => ok(get(as, `/chats${query}`), ChatList)
const ids = async (as: Account, query = '') => (await list(as, query)).chats.map((chat) => chat.id)
const say = (as: Account, chat_id: string, content: string) => ok(post(as, '/messages', { chat_id, content }), Message, 201)

test('an archived chat comes back with a new message, unless it is muted', async () => {
  const [x, y] = await people(2)
  const device = await connect(servers, x, { at: 1 })
  const chat = await servers.dm(x, y)
  const set = (body: object) => ok(patch(x, `/chats/${chat}/settings`, body), Chat)
  const where = async () => ((await ids(x)).length ? 'list' : (await ids(x, '?archived=true')).length ? 'archive' : 'nowhere')
  await say(y, chat, 'one')
  expect((await set({ archived: true })).my.archived).toBe(true)
  const told = await device.waitFor('my_updated', (e) => e.my.archived)
  expect([told.chat_id, told.unread_count]).toEqual([chat, 1])
  expect([await where(), (await ids(y)).length]).toEqual(['archive', 1])
  await say(y, chat, 'two')
  expect(await where()).toBe('list')

  // Muting is not archiving: what has come back stays.
  const muted_until = new Date(Date.now() + 3_600_000).toISOString()
  expect((await set({ muted_until })).my).toMatchObject({ archived: false, muted_until })
  await set({ archived: true })
  await say(y, chat, 'three')
  expect(await where()).toBe('archive')
  // And unmuting is not taking out of the archive: the next message does.
  expect((await set({ muted_until: null })).my).toMatchObject({ archived: true, muted_until: null })
  await say(y, chat, 'four')
  expect(await where()).toBe('list')
  await set({ archived: true })
  expect((await set({ archived: false })).my.archived).toBe(false)
})

test('settings: what they take, and whose they are', async () => {
  const [x, y, stranger] = await people(3)
  const chat = await servers.dm(x, y)
  const path = `/chats/${chat}/settings`
  expect((await ok(patch(x, path, { muted_until: '2999-12-31T23:59:59.9999+23:59' }), Chat)).my.muted_until).toBe(
    '2999-12-31T00:00:59.999Z',
  )
  // What is over is not muted.
  for (const muted_until of ['2001-01-01T00:00:00Z', '0001-01-01T00:00:00Z', '0000-01-01T00:00:00+01:00', null]) {
    expect((await ok(patch(x, path, { muted_until }), Chat)).my.muted_until, `${muted_until}`).toBeNull()
  }
  for (const body of [
    { archived: 'yes' },
    { pinned: 1 },
    { muted_until: 'tomorrow' },
    { muted_until: '2026-13-01T00:00:00Z' },
    { muted_until: '9999-12-31T23:59:59-01:00' },
    { muted_until: 5 },
    { read_seq: 5 },
  ]) {
    expect(await refusal(patch(x, path, body)), JSON.stringify(body)).toBe('400 invalid_input')
  }
  expect(await refusal(patch(stranger, path, { pinned: true }))).toBe('404 chat_not_found')
  expect(await refusal(patch(x, `/chats/${nobody}/settings`, { pinned: true }))).toBe('404 chat_not_found')
  await ok(patch(x, path, { pinned: true }), Chat)
  expect((await ok(get(y, `/chats/${chat}`), ChatWithMembers)).my).toMatchObject({ pinned: false, archived: false })
  expect((await ok(patch(x, path, {}), Chat)).my.pinned).toBe(true)
})

test('renaming and describing: by owner and admins, told to all', async () => {
  const [owner, admin, member, stranger] = await people(4)
  const id = await servers.group(owner, [admin, member], 'Old')
  await ok(patch(owner, `/chats/${id}/members/${admin.id}`, { role: 'admin' }), Done)
  const device = await connect(servers, member, { at: 1 })
  const renamed = await ok(patch(admin, `/chats/${id}`, { name: ' New ', description: 'about' }), Chat)
  expect(renamed).toMatchObject({ name: 'New', description: 'about', my_role: 'admin' })
  const { chat } = await device.waitFor('chat_updated', (e) => e.chat_id === id)
  expect(chat).toMatchObject({ name: 'New', description: 'about', member_count: 3, owner_id: owner.id })
  await device.waitFor('new_message', (e) => e.message.system?.action === 'described')
  const { system } = (await device.waitFor('new_message', (e) => e.message.system?.action === 'renamed')).message
  expect(system).toEqual({ action: 'renamed', actor_id: admin.id, name: 'New' })
  // What changes nothing takes no version.
  for (const body of [{}, { name: 'New' }, { name: ' New', description: 'about' }]) {
    expect((await ok(patch(owner, `/chats/${id}`, body), Chat)).version).toBe(renamed.version)
  }
  expect((await ok(patch(owner, `/chats/${id}`, { description: '' }), Chat)).description).toBe('')

  for (const body of [
    { name: '' },
    { name: ' ' },
    { name: null },
    { name: 'x'.repeat(101) },
    { type: 'dm' },
    { owner_id: member.id },
  ]) {
    expect(await refusal(patch(owner, `/chats/${id}`, body)), JSON.stringify(body)).toBe('400 invalid_input')
  }
  expect(await refusal(patch(member, `/chats/${id}`, { name: 'Mine' }))).toBe('403 forbidden')
  expect(await refusal(patch(stranger, `/chats/${id}`, { name: 'Mine' }))).toBe('404 chat_not_found')
  expect(await refusal(patch(owner, `/chats/${nobody}`, { name: 'Mine' }))).toBe('404 chat_not_found')
  const dm = await servers.dm(owner, member)
  expect(await refusal(patch(owner, `/chats/${dm}`, { name: 'Us' }))).toBe('400 not_a_group')
  expect(await refusal(patch(stranger, `/chats/${dm}`, { name: 'Us' }))).toBe('404 chat_not_found')
  await checkChat(servers.instances[0]!.context.db, id)
})

test('a group is deleted by its owner alone, for all and for good', async () => {
  const [owner, admin, member, stranger] = await people(4)
  const id = await servers.group(owner, [admin, member])
  await ok(patch(owner, `/chats/${id}/members/${admin.id}`, { role: 'admin' }), Done)
  const { id: message } = await say(member, id, 'last words')
  const device = await connect(servers, member, { at: 1 })
  expect(await refusal(remove(admin, `/chats/${id}`))).toBe('403 forbidden')
  expect(await refusal(remove(member, `/chats/${id}`))).toBe('403 forbidden')
  expect(await refusal(remove(stranger, `/chats/${id}`))).toBe('404 chat_not_found')
  await ok(remove(owner, `/chats/${id}`), Done)
  await device.waitFor('chat_updated', (e) => e.deleted === true)
  await device.waitFor('chat_removed', (e) => e.chat_id === id)
  expect(device.state.chats.has(id)).toBe(false)

  for (const as of [owner, admin, member]) {
    expect(await ids(as)).toEqual([])
    for (const path of [`/chats/${id}`, `/chats/${id}/members`, `/chats/${id}/messages`]) {
      expect(await refusal(get(as, path)), path).toBe('404 chat_not_found')
    }
    expect(await refusal(get(as, `/messages/${message}`))).toBe('404 message_not_found')
    expect(await refusal(post(as, '/messages', { chat_id: id, content: 'x' }))).toBe('404 chat_not_found')
    expect(await refusal(post(as, `/chats/${id}/read`))).toBe('404 chat_not_found')
    expect(await refusal(post(as, `/chats/${id}/leave`))).toBe('404 chat_not_found')
    expect(await refusal(post(as, `/chats/${id}/members`, { user_ids: [stranger.id] }))).toBe('404 chat_not_found')
    expect(await refusal(patch(as, `/chats/${id}/settings`, { pinned: true }))).toBe('404 chat_not_found')
    expect(await refusal(remove(as, `/chats/${id}`))).toBe('404 chat_not_found')
  }
  for (const type of ['read', 'delivered', 'typing', 'join_chat']) {
    await expect(device.ask({ type, chat_id: id }), type).rejects.toMatchObject({ code: 'chat_not_found' })
  }
  await expect(device.send(id, 'x')).rejects.toMatchObject({ code: 'chat_not_found' })
})

test('a direct chat is deleted for oneself: the other keeps it, the next message brings it back empty', async () => {
  const [x, y, stranger] = await people(3)
  const id = await servers.dm(x, y)
  const { id: old } = await say(y, id, 'before')
  await ok(patch(x, `/chats/${id}/settings`, { pinned: true }), Chat)
  const device = await connect(servers, x, { at: 1 })
  expect(await refusal(remove(stranger, `/chats/${id}`))).toBe('404 chat_not_found')
  await ok(remove(x, `/chats/${id}`), Done)
  await device.waitFor('my_updated', (e) => e.my.cleared_seq === 1)
  expect(device.state.chats.get(id)?.messages.size).toBe(0)
  expect([await ids(x), await ids(x, '?archived=true'), await ids(y)]).toEqual([[], [], [id]])
  expect(await refusal(get(x, `/messages/${old}`))).toBe('404 message_not_found')
  expect((await list(y)).chats[0]!.last_message?.content).toBe('before')
  // Opened again by its address it is there, and empty.
  const opened = await ok(get(x, `/chats/dm/${y.id}`), Chat)
  expect(opened).toMatchObject({ id, last_message: null, last_message_at: null, unread_count: 0, my: { pinned: false } })

  await say(y, id, 'after')
  const [back] = (await list(x)).chats
  expect(back).toMatchObject({ id, unread_count: 1, last_seq: 2, last_message: { content: 'after' } })
  await vi.waitFor(() => expect(device.state.chats.get(id)?.messages.keys().toArray()).toEqual([2]), 5_000)
  for (const [as, contents] of [
    [x, ['after']],
    [y, ['before', 'after']],
  ] as const) {
    const { messages, total } = await ok(get(as, `/chats/${id}/messages?around=0`), MessagePage)
    expect([messages.map((m) => m.content), total]).toEqual([contents, contents.length])
  }
})
