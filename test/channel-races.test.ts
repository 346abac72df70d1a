import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { Invite } from '../src/modules/chats/schema.ts'
import { sql } from '../src/platform/db/db.ts'
import { Done } from '../src/platform/http/answers.ts'
import { Chat, type Message } from '../src/protocol/resources.ts'
import type { Client } from './client/client.ts'
import { compare } from './model/compare.ts'
import { channels } from './support/channels.ts'
import { checkChat, connect, heard, ok, rest } from './support/check.ts'
import { type Account, startServers, type TestServers } from './support/server.ts'

/** What happens to a channel, and to the roles of a group, at the same moment at two instances. */

let servers: TestServers
beforeAll(async () => {
  servers = await startServers({ instances: 2 })
})
afterAll(() => servers.close())

const { post, patch, remove, people } = rest(() => servers)
const db = () => servers.instances[0]!.context.db
const check = (id: string) => checkChat(db(), id)
const { channel, say, role, subscribe, unsubscribe } = channels(() => servers)
const statuses = async (answers: ReturnType<typeof subscribe>[]) =>
  (await Promise.all(answers)).map(({ status, body }) => (status < 400 ? `${status}` : `${status} ${body.code}`))

const isIn = async (id: string, who: Account) => {
  const [row] = await db().query<{ member: boolean; listed: boolean }>(sql`
    SELECT EXISTS (SELECT FROM chat_members WHERE chat_id = ${id} AND user_id = ${who.id} AND left_at IS NULL) AS member,
      coalesce((SELECT is_member FROM user_chats WHERE chat_id = ${id} AND user_id = ${who.id}), false) AS listed`)
  expect(row!.listed).toBe(row!.member)
  return row!.member
}

test('subscribing and leaving at once, on two devices: counted right, and who hears is who is in', async () => {
  const [owner, reader] = await people(2)
  const id = await channel(owner)
  const devices = await Promise.all([0, 1].map((at) => connect(servers, reader, { at })))
  for (let round = 0; round < 25; round += 1) {
    const given = await statuses(
      [0, 1, 2, 3].map((n) => (n % 2 ? unsubscribe(reader, id, (n >> 1) ^ (round % 2)) : subscribe(reader, id, n >> 1))),
    )
    for (const status of given) expect(['200', '201']).toContain(status)
    const state = await check(id)
    const present = await isIn(id, reader)
    expect(state).toMatchObject({ member_count: present ? 2 : 1, version: 2 + round })
    for (const device of devices)
      await vi.waitFor(() => expect(device.state.chats.has(id)).toBe(present), { timeout: 5_000, interval: 5 })
    // From here on nothing is under way.
    await vi.waitFor(
      () => expect(servers.instances.map((i) => i.server.hub.hears(reader.id, id))).toEqual([present, present]),
      5_000,
    )
    await say(owner, id, `${round} ${present}`, round % 2)
    if (present) for (const device of devices) await vi.waitFor(() => expect(heard(device, id)).toContain(`${round} true`), 5_000)
  }
  await new Promise((resolve) => setTimeout(resolve, 100))
  for (const device of devices) expect(heard(device, id).filter((text) => text.endsWith('false'))).toEqual([])
})

test('fifty subscribe at once while the channel is written in: none is lost, none counted twice', async () => {
  const everybody = await people(51)
  const [owner] = everybody
  const readers = everybody.slice(1)
  const id = await channel(owner)
  const writing = (async () => {
    for (let n = 0; n < 30; n += 1) await say(owner, id, `${n}`, n % 2)
  })()
  const given = await statuses(readers.flatMap((who, n) => [subscribe(who, id, n % 2), subscribe(who, id, 1 - (n % 2))]))
  await writing
  expect(given.filter((status) => status === '201')).toHaveLength(50)
  expect(given.filter((status) => status === '200')).toHaveLength(50)
  expect(await check(id)).toMatchObject({ member_count: 51, last_seq: 31, version: 32 })
})

test('a subscriber is made an admin while they leave, and while they are removed', async () => {
  for (let round = 0; round < 15; round += 1) {
    const [owner, reader] = await people(2)
    const id = await channel(owner)
    await ok(subscribe(reader, id), Chat, 201)
    const at = round % 2
    const [made, left] = await statuses([
      role(owner, id, reader, 'admin', at),
      round % 3 === 0 ? remove(owner, `/chats/${id}/members/${reader.id}`, 1 - at) : unsubscribe(reader, id, 1 - at),
    ])
    expect(left).toBe('200')
    expect(['200', '404 member_not_found']).toContain(made)
    expect(await check(id)).toMatchObject({ member_count: 1, owner_id: owner.id })
    expect(await isIn(id, reader)).toBe(false)
  }
})

test('two admins demote each other at once: neither may, in a group and in a channel', async () => {
  const [owner, a, b] = await people(3)
  const group = await servers.group(owner, [a, b])
  const news = await channel(owner)
  for (const who of [a, b]) await ok(subscribe(who, news), Chat, 201)
  for (const id of [group, news]) {
    for (const who of [a, b]) await ok(role(owner, id, who, 'admin'), Done)
    const { version } = await check(id)
    for (let round = 0; round < 5; round += 1)
      expect(await statuses([role(a, id, b, 'member', 0), role(b, id, a, 'member', 1)])).toEqual(Array(2).fill('403 forbidden'))
    expect((await check(id)).version).toBe(version)
    // The owner demotes both while they try.
    const given = await statuses([
      role(owner, id, a, 'member', 0),
      role(owner, id, b, 'member', 1),
      role(a, id, b, 'member', 1),
      role(b, id, a, 'member', 0),
    ])
    expect(given).toEqual(['200', '200', '403 forbidden', '403 forbidden'])
  }
})

test('the 301st member of a group is refused, whoever adds them where', async () => {
  const [owner, admin, ...late] = await people(8)
  const id = await servers.group(owner, [admin])
  await ok(role(owner, id, admin, 'admin'), Done)
  const { version } = await check(id)
  await db().query(sql`
    WITH users AS (INSERT INTO users (id, display_name) SELECT gen_random_uuid(), 'x' FROM generate_series(1, 296) RETURNING id),
      numbered AS (SELECT id, row_number() OVER () AS n FROM users),
      clocks AS (INSERT INTO user_clock (user_id) SELECT id FROM users),
      listed AS (INSERT INTO user_chats (user_id, chat_id, version) SELECT id, ${id}::uuid, 1 FROM users),
      added AS (INSERT INTO chat_members (chat_id, user_id, role, version) SELECT ${id}::uuid, id, 'member', ${version}::bigint + n FROM numbered)
    UPDATE chat_counters SET member_count = 298, version = version + 296 WHERE chat_id = ${id}`)
  const given = await statuses(
    late.map((who, n) => post(n % 2 ? owner : admin, `/chats/${id}/members`, { user_ids: [who.id] }, n % 2)),
  )
  expect(given.toSorted()).toEqual(['200', '200', ...Array(4).fill('409 group_full')])
  expect((await check(id)).member_count).toBe(300)
  expect(
    await statuses([
      post(owner, '/chats', { type: 'group', name: 'Many', member_ids: Array.from({ length: 300 }, () => crypto.randomUUID()) }),
    ]),
  ).toEqual(['409 group_full'])
})

test('the last admin leaves, or is demoted, while the owner leaves: the channel has an owner, or they are told to hand over', async () => {
  for (let round = 0; round < 20; round += 1) {
    const [owner, admin] = await people(2)
    const id = await channel(owner)
    await ok(subscribe(admin, id), Chat, 201)
    await ok(role(owner, id, admin, 'admin'), Done)
    const at = round % 2
    const [mine, theirs] = await statuses([unsubscribe(owner, id, at), unsubscribe(admin, id, 1 - at)])
    const state = await check(id)
    // Whoever was second was alone, and stays.
    expect([mine, theirs].toSorted()).toEqual(['200', '409 transfer_first'])
    expect(state).toMatchObject({ member_count: 1, owner_id: mine === '200' ? admin.id : owner.id, deleted: false })
  }
})

test('the owner leaves while being promoted and handed over to: one owner, who is in', async () => {
  for (let round = 0; round < 15; round += 1) {
    const [owner, a, b] = await people(3)
    const at = round % 2
    for (const id of [await channel(owner), await servers.group(owner, [a, b])]) {
      const isChannel = (await check(id)).type === 'channel'
      if (isChannel) for (const who of [a, b]) await ok(subscribe(who, id), Chat, 201)
      await ok(role(owner, id, a, 'admin'), Done)
      const given = await statuses([
        post(owner, `/chats/${id}/transfer`, { user_id: a.id }, at),
        // The one who is becoming the owner leaves in the same moment, and the old one, too.
        post(a, `/chats/${id}/leave`, undefined, 1 - at),
        post(owner, `/chats/${id}/leave`, undefined, at),
        role(owner, id, b, 'admin', 1 - at),
      ])
      for (const status of given)
        expect(['200', '403 forbidden', '404 chat_not_found', '404 member_not_found', '409 transfer_first']).toContain(status)
      const state = await check(id)
      const [row] = await db().query<{ role: string }>(sql`
        SELECT role FROM chat_members WHERE chat_id = ${id} AND user_id = ${state.owner_id} AND left_at IS NULL`)
      expect([state.deleted, state.owners, row?.role]).toEqual([false, [state.owner_id], 'owner'])
    }
  }
})

test('ten at once on the last use of a link into a private channel: one comes in', async () => {
  const everybody = await people(11)
  const [owner] = everybody
  for (let round = 0; round < 5; round += 1) {
    const id = await channel(owner, { is_public: false })
    const { code } = await ok(post(owner, `/chats/${id}/invites`, { max_uses: 1 }), Invite, 201)
    const given = await statuses(everybody.slice(1).map((who, n) => post(who, `/invites/${code}/join`, undefined, n % 2)))
    expect(given.toSorted()).toEqual(['201', ...Array(9).fill('404 invite_not_found')])
    expect(await check(id)).toMatchObject({ member_count: 2, version: 2 })
  }
})

test('a removed subscriber is sent nothing that was said after it, however busy the channel is', async () => {
  const [owner, ...readers] = await people(9)
  const id = await channel(owner)
  for (const who of readers) await ok(subscribe(who, id), Chat, 201)
  const clients = await Promise.all(readers.map((who, n) => connect(servers, who, { at: n % 2 })))
  let over = false
  const writing = (async () => {
    for (let n = 0; !over; n += 1) await say(owner, id, `${n}`, n % 2)
  })()
  const until = new Map<string, number>()
  for (const [n, who] of readers.entries()) {
    await ok(remove(owner, `/chats/${id}/members/${who.id}`, n % 2), Done)
    const [row] = await db().query<{ version: number }>(sql`
      SELECT version FROM chat_members WHERE chat_id = ${id} AND user_id = ${who.id}`)
    until.set(who.id, row!.version)
  }
  over = true
  await writing
  for (const [n, client] of clients.entries()) {
    await client.waitFor('chat_removed', (e) => e.chat_id === id)
    const last = until.get(readers[n]!.id)!
    const versions = client.events.flatMap((e) => ('prev' in e && e.chat_id === id ? [e.version] : []))
    expect(versions.filter((version) => version > last)).toEqual([])
  }
  expect((await check(id)).member_count).toBe(1)
})

test('reactions while their message is deleted, and while those who react are removed: nothing is left behind', async () => {
  const [owner, ...readers] = await people(7)
  const id = await channel(owner)
  for (const who of readers) await ok(subscribe(who, id), Chat, 201)
  for (let round = 0; round < 6; round += 1) {
    const { id: said } = await say(owner, id, `${round}`)
    const given = await statuses([
      ...readers.map((who, n) => post(who, `/messages/${said}/reactions`, { emoji: '👍' }, n % 2)),
      remove(owner, `/messages/${said}`, round % 2),
      ...readers.map((who, n) => post(who, `/messages/${said}/reactions`, { emoji: '🎉' }, n % 2)),
    ])
    for (const status of given) expect(['200', '409 message_deleted']).toContain(status)
  }
  // What came in the very moment of the deletion goes with the next telling.
  await vi.waitFor(async () => {
    expect(await db().query(sql`SELECT 1 FROM message_reactions WHERE chat_id = ${id}`)).toEqual([])
    expect(await db().query(sql`SELECT 1 FROM channel_reactions_due WHERE chat_id = ${id}`)).toEqual([])
  }, 8_000)
  await check(id)
})

/** What two devices of one user see differently; which reactions are their own is told but once, to who is there. */
const apart = (live: Client, fresh: Client) =>
  compare(live.state, fresh.state).stamped.filter((said) => {
    const [, a, b] = /live (.*), fresh (.*)$/s.exec(said.replace(/"me":(true|false)/g, '"me":0')) ?? []
    return a === undefined || a !== b
  })

test('a storm, with news that get lost: who is live, who comes back and who is new end equal, and hear what is theirs', async () => {
  const everybody = await people(9)
  const [owner] = everybody
  const others = everybody.slice(1)
  const ids = [await channel(owner), await channel(owner, { is_public: false }), await servers.group(owner, others.slice(0, 3))]
  const links = await Promise.all(ids.map(async (id) => (await ok(post(owner, `/chats/${id}/invites`, {}), Invite, 201)).code))
  const clients = await Promise.all(everybody.map((who, n) => connect(servers, who, { at: n % 2 })))
  const hubs = servers.instances.map(({ server }) => server.hub)
  const tells = hubs.map((hub) => hub.tell.bind(hub))
  let seed = 7
  const random = () => {
    seed = (seed * 48_271) % 2_147_483_647
    return seed / 2_147_483_647
  }
  for (const [n, hub] of hubs.entries())
    hub.tell = (stream, events) => {
      if (random() > 0.15) tells[n]!(stream, events)
    }
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)]!
  const said: string[] = []
  const act = async (at: number): Promise<{ status: number }> => {
    const [who, id, as] = [pick(others), pick(ids), random() < 0.7 ? owner : pick(others)]
    return pick([
      () => subscribe(who, id, at),
      () => unsubscribe(who, id, at),
      () => post(who, `/invites/${links[ids.indexOf(id)]}/join`, undefined, at),
      () => role(as, id, who, pick(['admin', 'member']), at),
      () => remove(as, `/chats/${id}/members/${who.id}`, at),
      () => post(as, `/chats/${id}/transfer`, { user_id: who.id }, at),
      () =>
        patch(
          as,
          `/chats/${id}`,
          pick([{ name: `n${random()}` }, { description: `${random()}` }, { slug: pick([null, 'storm']) }]),
          at,
        ),
      () => post(who, `/chats/${id}/read`, {}, at),
      async () => {
        const answer = await post(as, '/messages', { chat_id: id, content: `${random()}` }, at)
        if (answer.status === 201) said.push((answer.body as unknown as Message).id)
        return answer
      },
      () =>
        said.length === 0
          ? subscribe(who, id, at)
          : post(who, `/messages/${pick(said)}/reactions`, { emoji: pick(['👍', '🎉']) }, at),
      () => (said.length === 0 ? subscribe(who, id, at) : remove(as, `/messages/${pick(said.slice(-5))}`, at)),
    ])()
  }
  for (let wave = 0; wave < 25; wave += 1) {
    const answers = await Promise.all(Array.from({ length: 12 }, (_, n) => act(n % 2)))
    expect(answers.filter(({ status }) => status >= 500)).toEqual([])
    // Some go away and come back with what they have.
    if (wave % 8 === 5) clients[3]!.close()
    if (wave % 8 === 7) await clients[3]!.connect()
  }
  for (const [n, hub] of hubs.entries()) hub.tell = tells[n]!
  await vi.waitFor(async () => expect(await db().query(sql`SELECT 1 FROM channel_reactions_due`)).toEqual([]), 8_000)
  for (const hub of hubs) await hub.sweep(true)
  const fresh = await Promise.all(everybody.map((who, n) => connect(servers, who, { at: 1 - (n % 2) })))
  for (const [n, client] of clients.entries()) await vi.waitFor(() => expect(apart(client, fresh[n]!)).toEqual([]), 8_000)
  for (const client of clients) {
    await client.connect()
    expect(apart(client, fresh[clients.indexOf(client)]!)).toEqual([])
  }
  for (const id of ids) {
    const state = await check(id)
    for (const who of everybody) {
      const present = await isIn(id, who)
      await vi.waitFor(() => expect(hubs.map((hub) => hub.hears(who.id, id))).toEqual([present, present]), 5_000)
    }
    if (state.type === 'channel') {
      const staff = await db().query<{ user_id: string }>(sql`
        SELECT user_id FROM chat_members WHERE chat_id = ${id} AND role IN ('owner', 'admin') ORDER BY user_id`)
      for (const client of fresh)
        if (client.state.chats.has(id))
          expect([...client.state.chats.get(id)!.members.keys()].sort()).toEqual(staff.map((row) => row.user_id))
    }
  }
}, 60_000)
