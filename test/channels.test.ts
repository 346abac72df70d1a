import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { ChannelList, Invite, MemberList } from '../src/modules/chats/schema.ts'
import { MessagePage, PinList } from '../src/modules/messages/schema.ts'
import { sql } from '../src/platform/db/db.ts'
import { Done } from '../src/platform/http/answers.ts'
import { Chat, ChatWithMembers, Message, SyncAnswer } from '../src/protocol/resources.ts'
import { channels } from './support/channels.ts'
import { checkChat, connect, heard, nobody, ok, refusal, rest } from './support/check.ts'
import { type Account, startServers, type TestServers } from './support/server.ts'

let servers: TestServers
beforeAll(async () => {
  servers = await startServers({ instances: 2 })
})
afterAll(() => servers.close())

const { get, post, patch, remove, people } = rest(() => servers)
const { channel, say, read, role, subscribe, unsubscribe } = channels(() => servers)
const check = (id: string) => checkChat(servers.instances[0]!.context.db, id)
const hidden = '404 chat_not_found'
const no = '403 forbidden'

test('a channel is made, read by anybody, subscribed to and left; nobody is told who comes and goes', async () => {
  const [owner, reader, witness] = await people(3)
  const made = await ok(
    post(owner, '/channels', { name: 'City news', description: 'All of it', slug: 'City-News' }),
    ChatWithMembers,
    201,
  )
  const { id } = made
  expect(made).toMatchObject({ type: 'channel', my_role: 'owner', member_count: 1, slug: 'city-news', is_public: true })
  expect(made.members.map((m) => [m.user_id, m.role])).toEqual([[owner.id, 'owner']])
  expect(made.last_message!.system).toEqual({ action: 'channel_created', actor_id: owner.id, name: 'City news' })
  expect(await refusal(post(owner, '/channels', { name: 'Other', slug: 'city-news' }))).toBe('409 slug_taken')
  const { id: first } = await say(owner, id, 'first')
  await ok(servers.call('PUT', `/chats/${id}/pins/${first}`, { as: owner }), Message)

  // Before subscribing: everything can be read, nothing is mine.
  const seen = await ok(get(reader, `/chats/${id}`), ChatWithMembers)
  expect([seen.my_role, seen.unread_count, seen.my.read_seq, seen.my.pinned]).toEqual([null, 0, 2, false])
  expect((await ok(get(reader, '/chats/by-slug/city-news'), ChatWithMembers)).id).toBe(id)
  const { messages } = await ok(get(reader, `/chats/${id}/messages`), MessagePage)
  expect(messages.map((m) => [m.message_type, m.view_count, m.status])).toEqual([
    ['system', 0, 'sent'],
    ['text', 0, 'sent'],
  ])
  expect((await ok(get(reader, `/messages/${first}`), Message)).content).toBe('first')
  expect((await ok(get(reader, `/chats/${id}/pins`), PinList)).messages).toHaveLength(1)
  const others: [string, ReturnType<typeof get>, string][] = [
    ['members', get(reader, `/chats/${id}/members`), no],
    ['send', post(reader, '/messages', { chat_id: id, content: 'x' }), no],
    ['react', post(reader, `/messages/${first}/reactions`, { emoji: '👍' }), no],
    ['pin', servers.call('PUT', `/chats/${id}/pins/${first}`, { as: reader }), no],
    ['rename', patch(reader, `/chats/${id}`, { name: 'Mine' }), no],
    ['delete', remove(reader, `/chats/${id}`), no],
    ['leave', post(reader, `/chats/${id}/leave`), no],
    ['delete a message', remove(reader, `/messages/${first}`), no],
    ['settings', patch(reader, `/chats/${id}/settings`, { pinned: true }), hidden],
    ['read', read(reader, id), hidden],
    ['status', post(reader, '/messages/status', { message_id: first, status: 'read' }), '404 message_not_found'],
  ]
  for (const [what, answer, why] of others) expect([what, await refusal(answer)]).toEqual([what, why])
  const list = await servers.call<{ count: number }>('GET', '/chats', { as: reader })
  expect(list.body.count).toBe(0)

  await ok(subscribe(witness, id), Chat, 201)
  const [device, other] = await Promise.all([connect(servers, reader, { at: 1 }), connect(servers, witness, { at: 1 })])
  const before = await check(id)
  const mine = await ok(subscribe(reader, id), Chat, 201)
  expect([mine.my_role, mine.unread_count, mine.member_count]).toEqual(['subscriber', 0, 3])
  expect((await ok(subscribe(reader, id), Chat)).member_count).toBe(3)
  expect(await check(id)).toMatchObject({ version: before.version, last_seq: before.last_seq, member_count: 3 })
  await device.waitFor('chat_added', (e) => e.chat.id === id)
  await say(owner, id, 'second')
  for (const client of [device, other]) await vi.waitFor(() => expect(heard(client, id)).toContain('second'), 5_000)
  await vi.waitFor(() => expect(device.state.unread(id)).toBe(1), 5_000)
  expect([...device.state.chats.get(id)!.members.keys()]).toEqual([owner.id])

  await ok(unsubscribe(reader, id), Done)
  await ok(unsubscribe(reader, id), Done)
  await device.waitFor('chat_removed', (e) => e.chat_id === id)
  expect(await check(id)).toMatchObject({ version: before.version + 1, member_count: 2 })
  await say(owner, id, 'third', 1)
  await vi.waitFor(() => expect(heard(other, id)).toContain('third'), 5_000)
  await say(owner, id, 'fourth')
  await vi.waitFor(() => expect(heard(other, id)).toContain('fourth'), 5_000)
  expect(heard(device, id)).toEqual(['second'])
  expect(other.events.filter((e) => e.type === 'member_joined' || e.type === 'member_left')).toEqual([])
  expect(device.state.chats.has(id)).toBe(false)
  // Once more: what was said meanwhile is read, as for anybody who comes.
  expect((await ok(subscribe(reader, id), Chat, 201)).unread_count).toBe(0)
  await vi.waitFor(() => expect(device.state.chats.get(id)?.lastSeq).toBe(5), 5_000)
})

test('a private channel is nobody’s to see; a link leads in; made public and private it opens and closes', async () => {
  const [owner, guest, stranger] = await people(3)
  const id = await channel(owner, { is_public: false, slug: 'secret-place' })
  const { id: message } = await say(owner, id, 'secret')
  const doors = (who: Account) => [
    get(who, `/chats/${id}`),
    get(who, '/chats/by-slug/secret-place'),
    get(who, `/chats/${id}/messages`),
    get(who, `/chats/${id}/pins`),
    get(who, `/chats/${id}/members`),
    subscribe(who, id),
    unsubscribe(who, id),
    post(who, '/messages', { chat_id: id, content: 'x' }),
    post(who, `/chats/${id}/leave`),
    patch(who, `/chats/${id}`, { name: 'x' }),
  ]
  for (const answer of doors(stranger)) expect(await refusal(answer)).toBe(hidden)
  expect(await refusal(get(stranger, `/messages/${message}`))).toBe('404 message_not_found')
  expect(await refusal(post(stranger, `/messages/${message}/reactions`, { emoji: '👍' }))).toBe('404 message_not_found')
  const { code } = await ok(post(owner, `/chats/${id}/invites`, { max_uses: 1 }), Invite, 201)
  const before = await check(id)
  expect((await ok(post(guest, `/invites/${code}/join`), Chat, 201)).my_role).toBe('subscriber')
  expect(await check(id)).toMatchObject({ version: before.version, member_count: 2 })
  expect((await ok(subscribe(guest, id), Chat)).id).toBe(id)
  // A subscriber is known here, but may not do this.
  expect(await refusal(post(guest, '/messages', { chat_id: id, content: 'x' }))).toBe(no)
  expect(await refusal(patch(guest, `/chats/${id}`, { name: 'x' }))).toBe(no)
  expect(await refusal(get(guest, `/chats/${id}/members`))).toBe(no)

  await ok(role(owner, id, guest, 'admin'), Done)
  expect(await refusal(patch(guest, `/chats/${id}`, { is_public: true }))).toBe(no)
  await ok(patch(guest, `/chats/${id}`, { description: 'as an admin' }), Chat)
  await ok(patch(owner, `/chats/${id}`, { is_public: true }), Chat)
  expect((await ok(get(stranger, `/chats/${id}/messages`), MessagePage)).messages.length).toBeGreaterThan(0)
  await ok(patch(owner, `/chats/${id}`, { is_public: false }), Chat)
  for (const answer of doors(stranger)) expect(await refusal(answer)).toBe(hidden)
  const group = await servers.group(owner, [guest])
  expect(await refusal(patch(owner, `/chats/${group}`, { is_public: true }))).toBe('400 not_a_channel')
  expect(await refusal(subscribe(guest, group))).toBe('400 not_a_channel')
  expect(await refusal(unsubscribe(guest, group))).toBe('400 not_a_channel')
  expect(await refusal(subscribe(stranger, group))).toBe(hidden)
  expect(await refusal(post(owner, `/chats/${id}/members`, { user_ids: [stranger.id] }))).toBe('400 not_a_group')
  expect(await refusal(subscribe(stranger, nobody))).toBe(hidden)
  await check(id)
})

test('staff: made, unmade, removed, handed over, and told to all; a removed subscriber hears nothing later', async () => {
  const [owner, first, second, reader, witness] = await people(5)
  const id = await channel(owner)
  for (const who of [first, second, reader, witness]) await ok(subscribe(who, id), Chat, 201)
  const [w, f, r] = await Promise.all([witness, first, reader].map((who, n) => connect(servers, who, { at: n % 2 })))
  const staff = () => Object.fromEntries(Array.from(w!.state.chats.get(id)!.members.values(), (m) => [m.user_id, m.role]))
  const known = async (as: Account) =>
    Object.fromEntries((await ok(get(as, `/chats/${id}`), ChatWithMembers)).members.map((m) => [m.user_id, m.role]))
  await ok(role(owner, id, first, 'admin'), Done)
  await ok(role(owner, id, second, 'admin', 1), Done)
  await vi.waitFor(() => expect(staff()).toEqual({ [owner.id]: 'owner', [first.id]: 'admin', [second.id]: 'admin' }), 5_000)
  await say(first, id, 'by an admin', 1)
  expect(await refusal(role(first, id, second, 'subscriber'))).toBe(no)
  expect(await refusal(remove(first, `/chats/${id}/members/${second.id}`))).toBe(no)
  await ok(role(owner, id, first, 'subscriber', 1), Done)
  await vi.waitFor(() => expect(staff()).toEqual({ [owner.id]: 'owner', [second.id]: 'admin' }), 5_000)
  expect(await refusal(post(first, '/messages', { chat_id: id, content: 'x' }))).toBe(no)
  await expect(f!.send(id, 'x')).rejects.toMatchObject({ code: 'forbidden' })
  expect(await known(reader)).toEqual(staff())
  // Everybody is listed to staff alone.
  const { members } = await ok(get(second, `/chats/${id}/members`), MemberList)
  expect(members.map((m) => m.user_id)).toEqual([owner, first, second, reader, witness].map((p) => p.id).sort())

  // An admin removes a subscriber: at once, for good, and without a word about whom.
  await ok(remove(second, `/chats/${id}/members/${reader.id}`), Done)
  await say(second, id, 'after', 1)
  await w!.waitFor('new_message', (e) => e.message.content === 'after')
  await r!.waitFor('chat_removed', (e) => e.chat_id === id)
  expect(heard(r!, id)).toEqual(['by an admin'])
  expect(w!.events.some((e) => JSON.stringify(e).includes(reader.id))).toBe(false)
  expect((await ok(get(reader, `/chats/${id}`), ChatWithMembers)).my_role).toBeNull()
  expect(await refusal(remove(second, `/chats/${id}/members/${reader.id}`))).toBe('404 member_not_found')

  // Who was an admin and leaves is gone for those who catch up from before, too.
  const old = w!.state.chats.get(id)!.version
  await ok(unsubscribe(first, id), Done)
  expect(await check(id)).toMatchObject({ version: old })
  const from = await ok(post(witness, '/sync', { chats: { [id]: 5 } }), SyncAnswer)
  expect(from.chats[0]!.members.map((m) => [m.user_id, m.left_at !== null])).toEqual(expect.arrayContaining([[first.id, true]]))
  expect(JSON.stringify(from)).not.toContain(reader.id)
  expect(from.chats[0]!.cursors).toEqual([])

  const handed = await ok(post(owner, `/chats/${id}/transfer`, { user_id: witness.id }), Chat)
  expect([handed.owner_id, handed.my_role]).toEqual([witness.id, 'admin'])
  await vi.waitFor(() => expect(staff()).toEqual({ [owner.id]: 'admin', [second.id]: 'admin', [witness.id]: 'owner' }), 5_000)
  // It goes to the one who is here longest, as an admin; without one it does not go.
  await ok(unsubscribe(witness, id), Done)
  expect(await check(id)).toMatchObject({ owner_id: owner.id, member_count: 2 })
  await ok(post(second, `/chats/${id}/leave`), Done)
  for (const answer of [
    unsubscribe(owner, id),
    post(owner, `/chats/${id}/leave`),
    remove(owner, `/chats/${id}/members/${owner.id}`),
  ])
    expect(await refusal(answer)).toBe('409 transfer_first')
  const said = (await ok(get(owner, `/chats/${id}/messages`), MessagePage)).messages.filter((m) => m.system)
  expect(said.map((m) => m.system!.action)).toEqual(['channel_created'])
})

test('what is lost on the way is found: a demoted admin who left, a removed subscriber, by live and by new clients', async () => {
  const [owner, admin, reader] = await people(3)
  const id = await channel(owner)
  await ok(subscribe(admin, id), Chat, 201)
  await ok(subscribe(reader, id), Chat, 201)
  const far = await connect(servers, reader, { at: 1 })
  const hub = servers.instances[0]!.server.hub
  const tell = hub.tell.bind(hub)
  // The other instance hears of nothing until it is told again.
  hub.tell = () => {}
  await ok(role(owner, id, admin, 'admin'), Done)
  await say(admin, id, 'unheard')
  await ok(role(owner, id, admin, 'subscriber'), Done)
  await ok(unsubscribe(admin, id), Done)
  hub.tell = tell
  await say(owner, id, 'heard')
  await vi.waitFor(() => expect(heard(far, id)).toEqual(['unheard', 'heard']), 5_000)
  const fresh = await connect(servers, reader)
  for (const client of [far, fresh]) expect([...client.state.chats.get(id)!.members.keys()]).toEqual([owner.id])
  hub.tell = () => {}
  await ok(remove(owner, `/chats/${id}/members/${reader.id}`), Done)
  await say(owner, id, 'not for them')
  hub.tell = tell
  await say(owner, id, 'nor this')
  await servers.instances[1]!.server.hub.sweep(true)
  await far.waitFor('chat_removed', (e) => e.chat_id === id)
  for (const client of [far, fresh]) expect(heard(client, id).filter((text) => text.startsWith('n'))).toEqual([])
})

test('the directory: public channels by any part of name, slug or description, the biggest first, page by page', async () => {
  const everybody = await people(6)
  const [owner, viewer] = everybody
  const word = `w${Date.now().toString(36)}`
  const [small, big, quoted, secret] = [
    await channel(owner, { name: `Small ${word.toUpperCase()} things` }),
    await channel(owner, { name: 'Big', slug: `${word}-big` }),
    await channel(owner, { name: '100%_real', description: `All about ${word}` }),
    await channel(owner, { name: word, is_public: false }),
  ]
  await servers.group(owner, [], word)
  await ok(remove(owner, `/chats/${await channel(owner, { name: word })}`), Done)
  for (const who of everybody.slice(1)) await ok(subscribe(who, big), Chat, 201)
  await ok(subscribe(viewer, quoted), Chat, 201)
  const find = async (q: string, rest = '') => ok(get(viewer, `/channels?q=${encodeURIComponent(q)}${rest}`), ChannelList)
  const { channels } = await find(word.slice(1))
  expect(channels.map((c) => [c.id, c.member_count, c.my_role])).toEqual([
    [big, 6, 'subscriber'],
    [quoted, 2, 'subscriber'],
    [small, 1, null],
  ])
  expect(channels.some((c) => c.id === secret)).toBe(false)
  // What would be a wildcard is a sign like any other.
  expect((await find('0%_r')).channels.map((c) => c.id)).toEqual([quoted])
  expect((await find(`${word}%`)).channels).toEqual([])
  expect((await find(`_${word.slice(1)}`)).channels).toEqual([])
  const listed: string[] = []
  for (let cursor = ''; ; ) {
    const page = await find(word, `&limit=1${cursor}`)
    // What is not for everybody takes no place in a page either.
    expect(page.channels).toHaveLength(1)
    listed.push(...page.channels.map((c) => c.id))
    if (page.next_cursor === null) break
    cursor = `&cursor=${page.next_cursor}`
  }
  expect(listed).toEqual([big, quoted, small])
  expect((await ok(get(viewer, '/channels'), ChannelList)).channels.length).toBeGreaterThan(2)
  for (const query of ['limit=0', 'limit=101', 'cursor=x', 'cursor=1.x', `q=${'x'.repeat(101)}`])
    expect(await refusal(get(viewer, `/channels?${query}`))).toBe('400 invalid_input')
})

test('a deleted channel is gone for all; a deleted account leaves its channels, which may stay without an owner', async () => {
  const [owner, reader, admin] = await people(3)
  const [gone, kept, handed] = [await channel(owner, { slug: 'to-be-gone' }), await channel(owner), await channel(owner)]
  for (const id of [gone, kept, handed]) await ok(subscribe(reader, id), Chat, 201)
  await ok(subscribe(admin, handed), Chat, 201)
  await ok(role(owner, handed, admin, 'admin'), Done)
  const device = await connect(servers, reader, { at: 1 })
  expect(await refusal(remove(reader, `/chats/${gone}`))).toBe(no)
  await ok(remove(owner, `/chats/${gone}`), Done)
  await device.waitFor('chat_updated', (e) => e.chat_id === gone && e.deleted === true)
  await device.waitFor('chat_removed', (e) => e.chat_id === gone)
  expect(device.state.chats.has(gone)).toBe(false)
  for (const path of [`/chats/${gone}`, '/chats/by-slug/to-be-gone', `/chats/${gone}/messages`])
    expect(await refusal(get(reader, path))).toBe(hidden)
  const { db } = servers.instances[0]!.context
  await vi.waitFor(async () => {
    const listed = await db.query(sql`SELECT 1 FROM user_chats WHERE chat_id = ${gone} AND is_member`)
    expect(listed).toEqual([])
  }, 5_000)
  await ok(servers.call('DELETE', '/users/me', { as: owner, body: { password: 'Secret123' } }), Done)
  await vi.waitFor(async () => expect((await check(handed)).owner_id).toBe(admin.id), 5_000)
  await vi.waitFor(
    async () => expect(await check(kept)).toMatchObject({ owner_id: null, member_count: 1, deleted: false }),
    5_000,
  )
  expect((await ok(get(reader, `/chats/${kept}/messages`), MessagePage)).total).toBe(1)
})
