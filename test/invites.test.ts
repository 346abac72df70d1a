import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { sweepInvites } from '../src/modules/chats/index.ts'
import { Invite, InviteList, InvitePreview, MemberList } from '../src/modules/chats/schema.ts'
import { MessagePage } from '../src/modules/messages/schema.ts'
import { sql } from '../src/platform/db/db.ts'
import { Done } from '../src/platform/http/answers.ts'
import { Chat, ChatWithMembers } from '../src/protocol/resources.ts'
import { checkChat, connect, nobody, ok, refusal, rest } from './support/check.ts'
import { type Account, startServers, type TestServers } from './support/server.ts'

/** Ways into a chat: links and slugs. */

const limit = 12
let servers: TestServers
beforeAll(async () => {
  servers = await startServers({ instances: 2, env: { GROUP_MAX_MEMBERS: String(limit) } })
})
afterAll(() => servers.close())

const { get, post, patch, remove, people } = rest(() => servers)
const db = () => servers.instances[0]!.context.db
const invite = (as: Account, id: string, body: object = {}) => ok(post(as, `/chats/${id}/invites`, body), Invite, 201)
const join = (as: Account, code: string, at = 0) => post(as, `/invites/${code}/join`, undefined, at)
const live = async (as: Account, id: string, query = '') =>
  (await ok(get(as, `/chats/${id}/invites${query}`), InviteList)).invites.map(({ code }) => code)
const gone = '404 invite_not_found'

test('a link leads into a group: seen before, told as it happens, and it costs a use once', async () => {
  const [owner, guest, witness] = await people(3)
  const id = await servers.group(owner, [witness], 'Ours')
  const link = await invite(owner, id, { max_uses: 2, expires_in: 3_600 })
  expect(link).toMatchObject({ max_uses: 2, uses: 0, created_by: owner.id })
  expect(link.url).toBe(`${servers.instances[0]!.url}/join/${link.code}`)
  expect(Date.parse(link.expires_at!) - Date.parse(link.created_at)).toBe(3_600_000)
  expect(await ok(get(guest, `/invites/${link.code}`), InvitePreview)).toEqual({
    code: link.code,
    type: 'group',
    name: 'Ours',
    description: '',
    avatar_url: null,
    member_count: 2,
    chat_id: null,
  })
  const [device, seen] = await Promise.all([connect(servers, guest, { at: 1 }), connect(servers, witness, { at: 1 })])
  const chat = await ok(join(guest, link.code), Chat, 201)
  expect([chat.id, chat.my_role, chat.member_count, chat.unread_count]).toEqual([id, 'member', 3, 0])
  await device.waitFor('chat_added', (e) => e.chat.id === id)
  await seen.waitFor('member_joined', (e) => e.user_id === guest.id)
  const { message } = await seen.waitFor('new_message', (e) => e.message.system?.action === 'joined_by_invite')
  expect(message.system).toEqual({ action: 'joined_by_invite', actor_id: guest.id, target_id: owner.id })
  // Again, and those who were in before: nothing is used.
  for (const who of [guest, witness, owner]) expect((await ok(join(who, link.code), Chat)).member_count).toBe(3)
  expect((await ok(get(guest, `/invites/${link.code}`), InvitePreview)).chat_id).toBe(id)
  const { invites } = await ok(get(owner, `/chats/${id}/invites`), InviteList)
  expect(invites.map(({ code, uses }) => [code, uses])).toEqual([[link.code, 1]])
  await checkChat(db(), id)
})

test('unknown, expired, revoked, used up, of a deleted group: all the same, and nothing of the chat is told', async () => {
  const [owner, guest, other, late] = await people(4)
  const id = await servers.group(owner, [])
  const lost = await servers.group(owner, [])
  const [expired, revoked, used, deleted] = [
    await invite(owner, id, { expires_in: 60 }),
    await invite(owner, id),
    await invite(owner, id, { max_uses: 1 }),
    await invite(owner, lost),
  ]
  await db().query(sql`UPDATE chat_invites SET expires_at = now() WHERE code = ${expired.code}`)
  await ok(remove(owner, `/chats/${id}/invites/${revoked.code}`), Done)
  expect(await refusal(remove(owner, `/chats/${id}/invites/${revoked.code}`))).toBe(gone)
  expect(await refusal(remove(owner, `/chats/${id}/invites/${deleted.code}`))).toBe(gone)
  await ok(join(other, used.code), Chat, 201)
  await ok(remove(owner, `/chats/${lost}`), Done)
  for (const { code } of [expired, revoked, used, deleted, { code: 'A'.repeat(22) }]) {
    expect(await refusal(get(guest, `/invites/${code}`))).toBe(gone)
    expect(await refusal(join(guest, code))).toBe(gone)
  }
  expect(await live(owner, id)).toEqual([])
  // Who came in by the last use may ask again, for the answer may have been lost.
  await ok(join(other, used.code), Chat)
  for (const code of ['x', 'A'.repeat(21), 'A'.repeat(23), `${'A'.repeat(21)}!`])
    expect(await refusal(join(late, code))).toBe('400 invalid_input')
})

test('links that have been dead for a month are forgotten', async () => {
  const [owner, guest] = await people(2)
  const [id, lost] = [await servers.group(owner, []), await servers.group(owner, [])]
  const [live, expired, revoked, lately, deleted] = [
    await invite(owner, id),
    await invite(owner, id, { expires_in: 60 }),
    await invite(owner, id),
    await invite(owner, id),
    await invite(owner, lost),
  ]
  for (const { code } of [revoked, lately]) await ok(remove(owner, `/chats/${id}/invites/${code}`), Done)
  await ok(remove(owner, `/chats/${lost}`), Done)
  const long = sql`now() - interval '31 days'`
  await db().query(sql`UPDATE chat_invites SET expires_at = ${long} WHERE code = ${expired.code}`)
  await db().query(sql`UPDATE chat_invites SET revoked_at = ${long} WHERE code = ${revoked.code}`)
  await db().query(sql`UPDATE chats SET deleted_at = ${long} WHERE id = ${lost}`)
  await sweepInvites(db())
  const kept = await db().query<{ code: string }>(
    sql`SELECT code FROM chat_invites WHERE code = ANY(${[live, expired, revoked, lately, deleted].map(({ code }) => code)}::text[])`,
  )
  expect(kept.map(({ code }) => code).sort()).toEqual([live.code, lately.code].sort())
  await ok(join(guest, live.code), Chat, 201)
})

test('links are the owner’s and admins’ to make, see and revoke; there are so many, and not one more', async () => {
  const [owner, admin, member, stranger] = await people(4)
  const id = await servers.group(owner, [admin, member])
  await ok(patch(owner, `/chats/${id}/members/${admin.id}`, { role: 'admin' }), Done)
  const { code } = await invite(admin, id)
  for (const [who, why] of [
    [member, '403 forbidden'],
    [stranger, '404 chat_not_found'],
  ] as const) {
    expect(await refusal(post(who, `/chats/${id}/invites`, {}))).toBe(why)
    expect(await refusal(get(who, `/chats/${id}/invites`))).toBe(why)
    expect(await refusal(remove(who, `/chats/${id}/invites/${code}`))).toBe(why)
  }
  expect(await refusal(post(owner, `/chats/${await servers.dm(owner, member)}/invites`, {}))).toBe('400 not_a_group')
  expect(await refusal(post(owner, `/chats/${nobody}/invites`, {}))).toBe('404 chat_not_found')
  for (const body of [{ max_uses: 0 }, { max_uses: 1.5 }, { expires_in: 0 }, { expires_in: 31_536_001 }, { uses: 1 }])
    expect(await refusal(post(owner, `/chats/${id}/invites`, body))).toBe('400 invalid_input')
  const made: string[] = [code]
  for (let n = 1; n < 100; n += 1) made.unshift((await invite(owner, id)).code)
  expect(await refusal(post(owner, `/chats/${id}/invites`, {}))).toBe('409 too_many_invites')
  const listed: string[] = []
  for (let cursor = ''; ; ) {
    const page = await ok(get(owner, `/chats/${id}/invites?limit=40${cursor}`), InviteList)
    listed.push(...page.invites.map((row) => row.code))
    if (page.next_cursor === null) break
    cursor = `&cursor=${page.next_cursor}`
  }
  expect(listed.toSorted()).toEqual(made.toSorted())
  await ok(remove(admin, `/chats/${id}/invites/${made[0]}`), Done)
  await invite(owner, id)
})

test('who was removed comes back by a link that still works, and by no other', async () => {
  const [owner, out] = await people(2)
  const id = await servers.group(owner, [out])
  const [first, second] = [await invite(owner, id), await invite(owner, id)]
  await ok(remove(owner, `/chats/${id}/members/${out.id}`), Done)
  await ok(remove(owner, `/chats/${id}/invites/${first.code}`), Done)
  expect(await refusal(join(out, first.code))).toBe(gone)
  await ok(join(out, second.code), Chat, 201)
  await checkChat(db(), id)
})

test('ten at once on the last use, at two instances: one comes in', async () => {
  for (let round = 0; round < 5; round += 1) {
    const everybody = await people(11)
    const [owner] = everybody
    const id = await servers.group(owner, [])
    const link = await invite(owner, id, { max_uses: 3 })
    const guests = everybody.slice(1)
    await ok(join(guests[0]!, link.code), Chat, 201)
    await ok(join(guests[1]!, link.code), Chat, 201)
    const answers = await Promise.all([
      ...guests.slice(2).map((who, n) => join(who, link.code, n % 2)),
      // The same person twice uses it once.
      ...guests.slice(2, 4).map((who, n) => join(who, link.code, n % 2)),
    ])
    const given = answers.map(({ status }) => status).toSorted()
    expect(given.filter((status) => status === 201)).toHaveLength(1)
    expect(
      given.every((status) => [200, 201, 404].includes(status)),
      given.join(),
    ).toBe(true)
    expect((await checkChat(db(), id)).member_count).toBe(4)
    const [row] = await db().query<{ uses: number }>(sql`SELECT uses FROM chat_invites WHERE code = ${link.code}`)
    expect(row!.uses).toBe(3)
  }
})

test('a link into a full group lets nobody in and is not used; eight at once find the last place', async () => {
  const everybody = await people(limit + 7)
  const [owner] = everybody
  const id = await servers.group(owner, everybody.slice(1, limit - 1))
  const link = await invite(owner, id, { max_uses: 8 })
  const guests = everybody.slice(limit - 1)
  const answers = await Promise.all(guests.map((who, n) => join(who, link.code, n % 2)))
  expect(answers.map(({ status, body }) => `${status} ${body.code ?? ''}`.trim()).toSorted()).toEqual([
    '201',
    ...Array(guests.length - 1).fill('409 group_full'),
  ])
  expect((await checkChat(db(), id)).member_count).toBe(limit)
  expect((await ok(get(owner, `/chats/${id}/invites`), InviteList)).invites[0]!.uses).toBe(1)
})

test('revoked while somebody comes in: either they are in or the link was gone', async () => {
  for (let round = 0; round < 10; round += 1) {
    const [owner, guest] = await people(2)
    const id = await servers.group(owner, [])
    const { code } = await invite(owner, id)
    const [came, revoked] = await Promise.all([join(guest, code, round % 2), remove(owner, `/chats/${id}/invites/${code}`, 1)])
    expect(revoked.status).toBe(200)
    const { members } = await ok(get(owner, `/chats/${id}/members`), MemberList)
    expect([came.status, members.length]).toEqual(came.status === 201 ? [201, 2] : [404, 1])
  }
})

// --- slugs -------------------------------------------------------------------------------------------------------------

const slugOf = (n: number | string) => `slug-${n}`
const setSlug = (as: Account, id: string, slug: string | null, at = 0) => patch(as, `/chats/${id}`, { slug }, at)

test('a slug names a group for its members, in any case; it is told, changed, given up and taken by another', async () => {
  const [owner, admin, member, stranger] = await people(4)
  const id = await servers.group(owner, [admin, member])
  const other = await servers.group(stranger, [])
  await ok(patch(owner, `/chats/${id}/members/${admin.id}`, { role: 'admin' }), Done)
  const device = await connect(servers, member, { at: 1 })
  expect((await ok(setSlug(admin, id, 'Our_Place-1'), Chat)).slug).toBe('our_place-1')
  await device.waitFor('chat_updated', (e) => e.chat.slug === 'our_place-1')
  await device.waitFor(
    'new_message',
    (e) => e.message.system?.action === 'slug_changed' && e.message.system.name === 'our_place-1',
  )
  const found = await ok(get(member, '/chats/by-slug/OUR_place-1'), ChatWithMembers)
  expect([found.id, found.members.length]).toEqual([id, 3])
  expect(await refusal(get(stranger, '/chats/by-slug/our_place-1'))).toBe('404 chat_not_found')
  expect(await refusal(get(member, '/chats/by-slug/nothing-here'))).toBe('404 chat_not_found')
  expect(await refusal(setSlug(member, id, 'mine'))).toBe('403 forbidden')
  expect(await refusal(setSlug(stranger, other, 'OUR_PLACE-1'))).toBe('409 slug_taken')
  // The same again is nothing new.
  const { version } = await checkChat(db(), id)
  await ok(setSlug(owner, id, 'our_place-1'), Chat)
  expect((await checkChat(db(), id)).version).toBe(version)
  await ok(setSlug(owner, id, slugOf('moved')), Chat)
  await ok(setSlug(stranger, other, 'our_place-1'), Chat)
  expect((await ok(setSlug(owner, id, null), Chat)).slug).toBeNull()
  expect(await refusal(get(owner, `/chats/by-slug/${slugOf('moved')}`))).toBe('404 chat_not_found')
  await vi.waitFor(() => expect(device.state.chats.get(id)?.chat.slug).toBeNull(), 5_000)
  // What is deleted frees its slug.
  await ok(remove(stranger, `/chats/${other}`), Done)
  await ok(setSlug(owner, id, 'our_place-1'), Chat)
  for (const bad of ['ab', 'a'.repeat(51), 'a b', 'äöü', 'a.b', '', nobody, nobody.toUpperCase(), 7, {}])
    expect(await refusal(setSlug(owner, id, bad as string)), String(bad)).toBe('400 invalid_input')
  expect(await refusal(setSlug(owner, await servers.dm(owner, member), 'dm-slug'))).toBe('400 not_a_group')
  const { messages } = await ok(get(owner, `/chats/${id}/messages`), MessagePage)
  expect(messages.filter((m) => m.system?.action === 'slug_changed').map((m) => m.system!.name)).toEqual([
    'our_place-1',
    slugOf('moved'),
    '',
    'our_place-1',
  ])
})

test('a slug wanted by two at once is one’s, and two who swap wait for nobody', async () => {
  const [a, b] = await people(2)
  const [one, two] = [await servers.group(a, []), await servers.group(b, [])]
  for (let round = 0; round < 12; round += 1) {
    const slug = slugOf(round)
    const given = await Promise.all([setSlug(a, one, slug, round % 2), setSlug(b, two, slug, 1 - (round % 2))])
    expect(given.map(({ status }) => status).toSorted()).toEqual([200, 409])
    // What the chats say and what the look-up says is the same.
    const apart = await db().query(sql`
      SELECT * FROM chat_slugs s FULL JOIN (SELECT * FROM chats WHERE slug IS NOT NULL AND deleted_at IS NULL) c ON c.id = s.chat_id AND c.slug = s.slug
      WHERE s.slug IS NULL OR c.id IS NULL`)
    expect(apart).toEqual([])
  }
  await ok(setSlug(a, one, 'left'), Chat)
  await ok(setSlug(b, two, 'right'), Chat)
  for (let round = 0; round < 12; round += 1) {
    const given = await Promise.all([setSlug(a, one, 'right', 0), setSlug(b, two, 'left', 1)])
    expect(given.map(({ body }) => body.code)).toEqual(['slug_taken', 'slug_taken'])
  }
})
