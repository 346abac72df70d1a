import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { MemberList } from '../src/modules/chats/schema.ts'
import { MessagePage } from '../src/modules/messages/schema.ts'
import { Done } from '../src/platform/http/answers.ts'
import { Chat, ChatWithMembers, Message, type Role } from '../src/protocol/resources.ts'
import { checkChat, connect, heard, nobody, ok, refusal, rest } from './support/check.ts'
import { type Account, startServers, type TestServers } from './support/server.ts'

let servers: TestServers
beforeAll(async () => {
  servers = await startServers({ instances: 2, env: { GROUP_MAX_MEMBERS: '12' } })
})
afterAll(() => servers.close())

const { get, post, patch, remove, people } = rest(() => servers)
const check = (id: string) => checkChat(servers.instances[0]!.context.db, id)
const add = (as: Account, id: string, ...who: Account[]) => post(as, `/chats/${id}/members`, { user_ids: who.map((p) => p.id) })
const expel = (as: Account, id: string, who: Account, at = 0) => remove(as, `/chats/${id}/members/${who.id}`, at)
const role = (as: Account, id: string, who: Account, role: string) => patch(as, `/chats/${id}/members/${who.id}`, { role })
const leave = (as: Account, id: string, at = 0) => post(as, `/chats/${id}/leave`, undefined, at)
const transfer = (as: Account, id: string, to: Account) => post(as, `/chats/${id}/transfer`, { user_id: to.id })
const say = (as: Account, chat_id: string, content: string) => ok(post(as, '/messages', { chat_id, content }), Message, 201)

async function roles(as: Account, id: string): Promise<Record<string, Role>> {
  const { members } = await ok(get(as, `/chats/${id}/members`), MemberList)
  return Object.fromEntries(members.map((m) => [m.user_id, m.role]))
}

/** What the chat says of its own changes, oldest first. */
async function story(as: Account, id: string) {
  const { messages } = await ok(get(as, `/chats/${id}/messages?limit=100`), MessagePage)
  const told = messages.filter((m) => m.message_type === 'system')
  for (const { system, content, sender_id } of told) expect([content, sender_id]).toEqual(['', system!.actor_id])
  return told.map((m) => m.system)
}

test('who is added sees the whole history, as read, on open connections at once', async () => {
  const [owner, member, late, stranger] = await people(4)
  const id = await servers.group(owner, [member])
  await say(owner, id, 'one')
  await say(member, id, 'two')
  const [l, m] = await Promise.all([connect(servers, late, { at: 1 }), connect(servers, member, { at: 1 })])
  const answer = await ok(add(owner, id, late, late), ChatWithMembers)
  expect([answer.member_count, answer.members.length]).toEqual([3, 3])
  const { chat } = await l.waitFor('chat_added', (e) => e.chat.id === id)
  // Everything before is read; that they were added is a system message, which is never unread.
  expect([chat.my.read_seq, chat.unread_count, chat.my_role]).toEqual([3, 0, 'member'])
  const { member: told } = await m.waitFor('member_joined', (e) => e.user_id === late.id)
  expect(told).toMatchObject({ role: 'member', left_at: null, user: { username: late.username } })
  expect((await story(late, id)).at(-1)).toEqual({ action: 'member_added', actor_id: owner.id, target_id: late.id })
  await say(owner, id, 'three')
  await vi.waitFor(() => expect([l.state.chats.get(id)?.messages.size, l.state.unread(id)]).toEqual([5, 1]), 5_000)

  // Who is in already stays as they are.
  expect((await ok(add(owner, id, late, member, owner), ChatWithMembers)).version).toBe((await check(id)).version)
  expect(await refusal(add(owner, id, stranger, { ...stranger, id: nobody }))).toBe('404 user_not_found')
  for (const user_ids of [[], ['x'], Array(1_001).fill(nobody), undefined]) {
    expect(await refusal(post(owner, `/chats/${id}/members`, { user_ids }))).toBe('400 invalid_input')
  }
  expect(await refusal(add(owner, nobody, member))).toBe('404 chat_not_found')
  expect(await refusal(add(owner, await servers.dm(owner, member), stranger))).toBe('400 not_a_group')
  expect((await check(id)).member_count).toBe(3)
})

test('who is removed is out at once, on open connections of any instance, and hears nothing later', async () => {
  const [owner, out, other, witness] = await people(4)
  const id = await servers.group(owner, [out, other, witness])
  const devices = await Promise.all([0, 1].map((at) => connect(servers, out, { at })))
  const seen = await connect(servers, witness, { at: 1 })
  const { id: message } = await say(out, id, 'before')
  for (const device of devices) await device.waitFor('new_message', (e) => e.message.content === 'before')
  // Told by one instance, and what follows by the other.
  await ok(expel(owner, id, out, 0), Done)
  for (const content of ['after', 'later']) await post(other, '/messages', { chat_id: id, content }, 1)
  await seen.waitFor('new_message', (e) => e.message.content === 'later')
  await seen.waitFor('member_left', (e) => e.user_id === out.id)
  for (const device of devices) {
    await device.waitFor('chat_removed', (e) => e.chat_id === id)
    expect(device.events.some((e) => e.type === 'member_left' && e.user_id === out.id)).toBe(true)
    expect(device.state.chats.has(id)).toBe(false)
    await expect(device.send(id, 'x')).rejects.toMatchObject({ code: 'chat_not_found' })
    for (const type of ['read', 'delivered', 'typing', 'join_chat'])
      await expect(device.ask({ type, chat_id: id }), type).rejects.toMatchObject({ code: 'chat_not_found' })
  }
  for (const at of [0, 1]) {
    for (const path of ['', '/members', '/messages'])
      expect(await refusal(get(out, `/chats/${id}${path}`, at))).toBe('404 chat_not_found')
    expect(await refusal(get(out, `/messages/${message}`, at))).toBe('404 message_not_found')
    expect(await refusal(post(out, '/messages', { chat_id: id, content: 'x' }, at))).toBe('404 chat_not_found')
    expect(await refusal(post(out, `/chats/${id}/read`, {}, at))).toBe('404 chat_not_found')
  }
  expect((await story(owner, id)).at(-1)).toEqual({ action: 'member_removed', actor_id: owner.id, target_id: out.id })
  for (const device of devices) expect(heard(device, id)).not.toContain('after')

  // Back again, they have everything, that which they missed too.
  await ok(add(owner, id, out), ChatWithMembers)
  for (const device of devices) await vi.waitFor(() => expect(device.state.chats.get(id)?.messages.size).toBe(6), 5_000)
  await check(id)
})

test('who may do what to whom', async () => {
  const everybody = await people(7)
  const [owner, admin, admin2, member, member2] = everybody
  const [outside, stranger] = everybody.slice(5) as [Account, Account]
  const actors = { owner, admin, member, stranger }
  const targets = { owner, admin: admin2, member: member2, outside }
  const no = '403 forbidden'
  const none = '404 member_not_found'
  const hidden = '404 chat_not_found'
  // Columns: towards the owner, another admin, another member, somebody who is not in.
  const remaining: Record<string, string[]> = { member: [no, no, no, no], stranger: [hidden, hidden, hidden, hidden] }
  const rules: Record<string, Record<string, string[]>> = {
    // (The owner who removes themselves leaves.)
    remove: { owner: ['200', '200', '200', none], admin: [no, no, '200', none], ...remaining },
    admin: { owner: [no, '200', '200', none], admin: [no, no, no, none], ...remaining },
    member: { owner: [no, '200', '200', none], admin: [no, no, no, none], ...remaining },
    transfer: { owner: ['200', '200', '200', none], ...remaining, admin: [no, no, no, no] },
    add: { owner: ['200', '200', '200', '200'], admin: ['200', '200', '200', '200'], ...remaining },
  }
  const actions: Record<string, (as: Account, id: string, who: Account) => ReturnType<typeof add>> = {
    remove: expel,
    admin: (as, id, who) => role(as, id, who, 'admin'),
    member: (as, id, who) => role(as, id, who, 'member'),
    transfer,
    add,
  }
  const make = async () => {
    const id = await servers.group(owner, [admin, admin2, member, member2])
    for (const who of [admin, admin2]) await ok(role(owner, id, who, 'admin'), Done)
    return id
  }
  let id = await make()
  for (const [action, table] of Object.entries(rules)) {
    for (const [by, expected] of Object.entries(table)) {
      for (const [n, [towards, target]] of Object.entries(targets).entries()) {
        const before = await check(id)
        const answer = await actions[action]!(actors[by as keyof typeof actors], id, target)
        const got = answer.status === 200 ? '200' : `${answer.status} ${answer.body.code}`
        expect(got, `${by}: ${action} ${towards}`).toBe(expected[n])
        const after = await check(id)
        // A refusal changes nothing; after a change, the next case starts anew.
        if (got !== '200') expect(after).toEqual(before)
        else if (after.version !== before.version) id = await make()
      }
    }
  }
  for (const given of ['owner', 'subscriber', '', null])
    expect(await refusal(role(owner, id, member, given as string))).toBe('400 invalid_input')
  expect(await refusal(post(owner, `/chats/${id}/transfer`, {}))).toBe('400 invalid_input')
  const dm = await servers.dm(owner, member)
  for (const answer of [
    expel(owner, dm, member),
    role(owner, dm, member, 'admin'),
    transfer(owner, dm, member),
    leave(owner, dm),
  ])
    expect(await refusal(answer)).toBe('400 not_a_group')
  expect(await refusal(leave(stranger, id))).toBe('404 chat_not_found')
})

test('the story of a group: roles, hand-over, leaving, the last one out', async () => {
  const [owner, first, second, third] = await people(4)
  const id = await servers.group(owner, [], 'Ours')
  // One after the other, so that it is known who is here longest.
  for (const who of [first, second, third]) await ok(add(owner, id, who), ChatWithMembers)
  const device = await connect(servers, third, { at: 1 })
  await ok(role(owner, id, third, 'admin'), Done)
  await ok(role(owner, id, third, 'admin'), Done)
  await device.waitFor('member_joined', (e) => e.user_id === third.id && e.member.role === 'admin')
  const handed = await ok(transfer(owner, id, second), Chat)
  expect([handed.owner_id, handed.my_role]).toEqual([second.id, 'admin'])
  await device.waitFor('chat_updated', (e) => e.chat.owner_id === second.id)
  expect(await roles(first, id)).toEqual({
    [owner.id]: 'admin',
    [first.id]: 'member',
    [second.id]: 'owner',
    [third.id]: 'admin',
  })
  // Of two admins the one who is here longest; then the other; then whoever is left.
  await ok(leave(second, id), Done)
  expect(await roles(first, id)).toEqual({ [owner.id]: 'owner', [first.id]: 'member', [third.id]: 'admin' })
  await ok(remove(owner, `/chats/${id}/members/${owner.id}`), Done)
  expect(await roles(first, id)).toEqual({ [first.id]: 'member', [third.id]: 'owner' })
  await ok(role(third, id, first, 'admin'), Done)
  await ok(role(third, id, first, 'member'), Done)
  await ok(leave(third, id), Done)
  await device.waitFor('chat_removed', (e) => e.chat_id === id)
  const added = (who: Account) => ({ action: 'member_added', actor_id: owner.id, target_id: who.id })
  expect(await story(first, id)).toEqual([
    { action: 'group_created', actor_id: owner.id, name: 'Ours' },
    ...[first, second, third].map(added),
    { action: 'role_changed', actor_id: owner.id, target_id: third.id, role: 'admin' },
    { action: 'owner_changed', actor_id: owner.id, target_id: second.id },
    { action: 'owner_changed', actor_id: second.id, target_id: owner.id },
    { action: 'member_left', actor_id: second.id },
    { action: 'owner_changed', actor_id: owner.id, target_id: third.id },
    { action: 'member_left', actor_id: owner.id },
    { action: 'role_changed', actor_id: third.id, target_id: first.id, role: 'admin' },
    { action: 'role_changed', actor_id: third.id, target_id: first.id, role: 'member' },
    { action: 'owner_changed', actor_id: third.id, target_id: first.id },
    { action: 'member_left', actor_id: third.id },
  ])
  expect(await check(id)).toMatchObject({ member_count: 1, owner_id: first.id, deleted: false })
  await ok(leave(first, id), Done)
  expect(await refusal(get(first, `/chats/${id}`))).toBe('404 chat_not_found')
  expect((await check(id)).deleted).toBe(true)
})

test('members are listed page by page; the chat shows the first fifty', async () => {
  const everybody = await people(9)
  const [owner] = everybody
  const id = await servers.group(owner, everybody.slice(1))
  const seen: string[] = []
  for (let cursor = ''; ; ) {
    const page = await ok(get(owner, `/chats/${id}/members?limit=4${cursor}`), MemberList)
    seen.push(...page.members.map((m) => m.user_id))
    if (page.next_cursor === null) break
    cursor = `&cursor=${page.next_cursor}`
  }
  expect(seen).toEqual(everybody.map((p) => p.id).sort())
  for (const query of ['limit=0', 'limit=101', 'cursor=1']) {
    expect(await refusal(get(owner, `/chats/${id}/members?${query}`))).toBe('400 invalid_input')
  }
})

test('a deleted account goes from its groups, handed over as by leaving; what it said stays', async () => {
  const [gone, heir, other] = await people(3)
  const id = await servers.group(gone, [heir, other])
  const alone = await servers.group(gone, [])
  await say(gone, id, 'remember me')
  const device = await connect(servers, heir, { at: 1 })
  await ok(servers.call('DELETE', '/users/me', { as: gone, body: { password: 'Secret123' } }), Done)
  await device.waitFor('member_left', (e) => e.user_id === gone.id)
  const state = await check(id)
  expect([heir.id, other.id]).toContain(state.owner_id)
  expect([state.member_count, (await check(alone)).deleted]).toEqual([2, true])
  // Names are remembered for a while, and forgotten on the news.
  await vi.waitFor(async () => {
    const { messages } = await ok(get(heir, `/chats/${id}/messages`, 1), MessagePage)
    const said = messages.find((m) => m.content === 'remember me')
    expect(said?.sender).toEqual({ id: gone.id, username: null, display_name: 'Deleted account', avatar_url: null })
  }, 5_000)
})
