import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { RequestAnswer } from '../src/modules/contacts/schema.ts'
import { type Sql, sql } from '../src/platform/db/db.ts'
import { Done } from '../src/platform/http/answers.ts'
import { Chat, ChatWithMembers, Me, UserPublic } from '../src/protocol/resources.ts'
import type { Client } from './client/client.ts'
import { connect, ok, rest } from './support/check.ts'
import { type Account, startServers, type TestServers } from './support/server.ts'

/** Who hears that somebody came or went. Each person here has a chat with those who watch, and nobody else. */

let servers: TestServers
beforeAll(async () => {
  servers = await startServers({ instances: 3 })
})
afterAll(() => servers.close())

const { get, post, patch, people } = rest(() => servers)
const profile = (as: Account, of: Account, at = 0) => ok(get(as, `/users/${of.id}`, at), UserPublic)
const setMe = (as: Account, body: object) => ok(patch(as, '/users/me', body), Me)

/** What this client heard of somebody, since it last forgot. */
const told = (client: Client, who: Account) =>
  client.events.flatMap((e) => (e.type === 'online_status' && e.user_id === who.id ? [e] : []))
const states = (client: Client, who: Account) => told(client, who).map((e) => e.is_online)
const hears = (client: Client, who: Account, is_online: boolean) =>
  vi.waitFor(() => expect(states(client, who).at(-1)).toBe(is_online), 8_000)
/** Two seconds are enough; where the machine itself is late with everything, what it is late by is allowed ten times over. */
async function promptly(work: () => Promise<unknown>): Promise<void> {
  const delay = monitorEventLoopDelay({ resolution: 10 })
  delay.enable()
  const start = Date.now()
  await work()
  const took = Date.now() - start
  delay.disable()
  expect(took).toBeLessThan(2_000 + (10 * delay.max) / 1_000_000)
}
/** Longer than the quiet second and the gathering after it. */
const quiet = () => sleep(1_800)

/** A person with a direct chat with a watcher who is connected to another instance. */
async function watched() {
  const [who, watcher] = await people(2)
  await servers.dm(who, watcher)
  return { who, watcher, w: await connect(servers, watcher, { at: 1 }) }
}

test('who comes and goes is told to direct chats and small groups, over instances, and to nobody else', async () => {
  const [who, peer, member, stranger, former] = await people(5)
  await servers.dm(who, peer)
  const group = await servers.group(member, [who, former])
  await ok(servers.call('DELETE', `/chats/${group}/members/${former.id}`, { as: member }), Done)
  const here = await Promise.all([peer, member, stranger, former].map((as, n) => connect(servers, as, { at: n % 2 })))
  const [p, m, s, f] = here as [Client, Client, Client, Client]
  const before = Date.now()
  const device = await connect(servers, who, { at: 0 })
  for (const client of [p, m]) {
    await hears(client, who, true)
    expect(told(client, who)[0]).toMatchObject({ status: 'online', last_seen: null })
  }
  for (const at of [0, 1]) expect((await profile(stranger, who, at)).is_online).toBe(true)
  device.close()
  for (const client of [p, m]) {
    await hears(client, who, false)
    const { last_seen, timestamp } = told(client, who).at(-1)!
    expect(Date.parse(last_seen!)).toBeGreaterThanOrEqual(before)
    expect(Math.abs(timestamp - Date.now() / 1_000)).toBeLessThan(10)
    expect(await profile(stranger, who)).toMatchObject({ is_online: false, last_seen })
  }
  expect((await ok(get(peer, `/chats/dm/${who.id}`), Chat)).peer).toMatchObject({ is_online: false })
  for (const client of [s, f, device]) expect(told(client, who)).toEqual([])
  expect(states(p, who)).toEqual([true, false])
})

test('several devices are one person, and a device that comes back at once was never gone', async () => {
  const { who, w } = await watched()
  const phone = await connect(servers, who, { at: 0 })
  const desk = await connect(servers, who, { at: 2 })
  await hears(w, who, true)
  phone.close()
  await quiet()
  expect(states(w, who)).not.toContain(false)
  // To the same instance, and to another.
  for (const back of [desk, phone]) {
    // On a machine too busy for "at once" it proves nothing, and is tried again.
    for (let took = 1_000; took > 850; ) {
      if (!desk.isOpen) await desk.connect()
      phone.close()
      w.events.length = 0
      const start = Date.now()
      desk.close()
      // Longer than comings and goings are gathered.
      await sleep(300)
      await back.connect()
      took = Date.now() - start
    }
    await quiet()
    expect(states(w, who)).not.toContain(false)
  }
  phone.close()
  await hears(w, who, false)
})

test('a person who is invisible looks gone, and neither coming nor going shows', async () => {
  const { who, watcher, w } = await watched()
  const device = await connect(servers, who, { at: 0 })
  await hears(w, who, true)
  const before = Date.now()
  expect((await setMe(who, { status: 'invisible' })).status).toBe('invisible')
  await hears(w, who, false)
  const gone = told(w, who).at(-1)!
  expect(gone.status).toBe('online')
  // As if they had gone at that moment, told live and when asked for.
  expect(Date.parse(gone.last_seen!)).toBeGreaterThanOrEqual(before)
  expect(await profile(watcher, who)).toMatchObject({ is_online: false, last_seen: gone.last_seen })
  expect((await profile(who, who)).is_online).toBe(true)
  // Saved again it says nothing of when that was.
  await setMe(who, { status: 'invisible' })
  expect((await profile(watcher, who)).last_seen).toBe(gone.last_seen)
  await quiet()
  w.events.length = 0
  device.close()
  await quiet()
  await device.connect()
  await quiet()
  expect(told(w, who)).toEqual([])
  expect(await profile(watcher, who)).toMatchObject({ is_online: false, last_seen: gone.last_seen })
  await setMe(who, { status: 'online' })
  await hears(w, who, true)
})

test('away is a kind of being there; last_seen is told to nobody who may not know', async () => {
  const { who, watcher, w } = await watched()
  const device = await connect(servers, who, { at: 0 })
  await setMe(who, { status: 'away', privacy: { last_seen: 'nobody' } })
  await vi.waitFor(() => expect(told(w, who).at(-1)).toMatchObject({ is_online: true, status: 'away', last_seen: null }), 8_000)
  device.close()
  await hears(w, who, false)
  expect(told(w, who).at(-1)!.last_seen).toBeNull()
  expect((await profile(watcher, who)).last_seen).toBeNull()
  expect((await profile(who, who)).last_seen).not.toBeNull()
  await setMe(who, { privacy: { last_seen: 'everyone' } })
  expect((await profile(watcher, who)).last_seen).not.toBeNull()
})

const befriend = async (a: Account, b: Account) => {
  const { id } = await ok(post(a, '/contacts/requests', { user_id: b.id }), RequestAnswer, 201)
  await ok(post(b, `/contacts/requests/${id}/accept`), UserPublic)
}
const block = (as: Account, whom: Account) => ok(servers.call('PUT', `/blocks/${whom.id}`, { as }), Done)

test('contacts are told, without any chat; and new ones learn how they stand at once', async () => {
  const [x, y] = await people(2)
  const [mine, theirs] = await Promise.all([connect(servers, x, { at: 0 }), connect(servers, y, { at: 1 })])
  await quiet()
  expect([told(mine, y), told(theirs, x)]).toEqual([[], []])
  await promptly(async () => {
    await befriend(x, y)
    await Promise.all([hears(mine, y, true), hears(theirs, x, true)])
  })
  theirs.close()
  await hears(mine, y, false)
  await theirs.connect()
  await hears(mine, y, true)
  expect((await connect(servers, x)).state.relations.get(y.id)?.user.is_online).toBe(true)
  // The same where two requests cross.
  const [z] = await people(1)
  const another = await connect(servers, z, { at: 2 })
  await ok(post(x, '/contacts/requests', { user_id: z.id }), RequestAnswer, 201)
  await ok(post(z, '/contacts/requests', { user_id: x.id }), RequestAnswer)
  await Promise.all([hears(mine, z, true), hears(another, x, true)])
})

test('when somebody was here last is told to those who may know, and to nobody else, also when that changes', async () => {
  const [who, contact, member] = await people(3)
  await befriend(who, contact)
  await servers.group(who, [contact, member])
  await setMe(who, { privacy: { last_seen: 'contacts' } })
  const [c, m] = await Promise.all([connect(servers, contact, { at: 1 }), connect(servers, member, { at: 2 })])
  const device = await connect(servers, who)
  for (const client of [c, m]) await hears(client, who, true)
  device.close()
  for (const client of [c, m]) await hears(client, who, false)
  const last = (client: Client) => told(client, who).at(-1)!.last_seen
  expect([last(c), last(m)]).toEqual([expect.any(String), null])
  const changes = [
    ['nobody', false, false],
    ['everyone', true, true],
    ['contacts', true, false],
  ] as const
  for (const [last_seen, knows, stranger] of changes) {
    await setMe(who, { privacy: { last_seen } })
    await promptly(() => vi.waitFor(() => expect([last(c) !== null, last(m) !== null]).toEqual([knows, stranger]), 8_000))
    expect((await profile(contact, who)).last_seen !== null).toBe(knows)
    expect((await profile(member, who)).last_seen !== null).toBe(stranger)
  }
})

test('a block ends it both ways, within two seconds, however often they come and go; unblocking begins it again', async () => {
  const [me, them] = await people(2)
  await befriend(me, them)
  await servers.group(me, [them])
  const dm = await servers.dm(me, them)
  const [mine, theirs] = await Promise.all([connect(servers, me, { at: 0 }), connect(servers, them, { at: 1 })])
  await Promise.all([hears(mine, them, true), hears(theirs, me, true)])
  // A status that changes at the same moment is on its way when the block comes.
  await Promise.all([setMe(me, { status: 'away' }), block(me, them), setMe(them, { status: 'away' })])
  const asGone = () =>
    expect([states(mine, them).at(-1), states(theirs, me).at(-1), told(theirs, me).at(-1)!.last_seen]).toEqual([
      false,
      false,
      null,
    ])
  await promptly(() => vi.waitFor(asGone, 8_000))
  // And so it stays, whatever comes late.
  await sleep(2_000)
  await vi.waitFor(asGone, 8_000)
  mine.events.length = 0
  theirs.events.length = 0
  // Nothing of all this shows: coming, going, changing, typing, looking, also while the other one looks.
  await theirs.ask({ type: 'join_chat', chat_id: dm })
  for (const [client, as] of [
    [mine, me],
    [theirs, them],
  ] as const) {
    await setMe(as, { status: 'online' })
    await client.ask({ type: 'typing', chat_id: dm })
    expect((await client.ask({ type: 'join_chat', chat_id: dm })).user_ids).toEqual([as.id])
    client.close()
    await quiet()
    await client.connect()
  }
  await quiet()
  for (const client of [mine, theirs])
    expect(
      client.events.filter(
        (e) => e.type === 'online_status' || ('is_typing' in e && e.is_typing) || ('is_joined' in e && e.is_joined),
      ),
    ).toEqual([])
  await promptly(async () => {
    await ok(servers.call('DELETE', `/blocks/${them.id}`, { as: me, at: 1 }), Done)
    await Promise.all([hears(mine, them, true), hears(theirs, me, true)])
  })
  await theirs.ask({ type: 'typing', chat_id: dm })
  await mine.waitFor('typing', (e) => e.is_typing)
})

test('what was on its way when the block came is put right', async () => {
  const { db } = servers.instances[1]!.context
  const { query } = db
  // On a machine too busy for "on its way" it proves nothing, and is tried again.
  for (let took = 1_000; took > 700; ) {
    const [me, them] = await people(2)
    await befriend(me, them)
    const [mine] = await Promise.all([connect(servers, me, { at: 0 }), connect(servers, them, { at: 1 })])
    await hears(mine, them, true)
    const { promise: arrived, resolve: arrive } = Promise.withResolvers<void>()
    const { promise: free, resolve: letGo } = Promise.withResolvers<void>()
    db.query = async <Row extends object>(statement: Sql) => {
      const rows = await query<Row>(statement)
      if (statement.text.includes('bool_or(few.is_contact)') && statement.values.flat().includes(them.id)) {
        db.query = query
        arrive()
        await free
      }
      return rows
    }
    await ok(patch(them, '/users/me', { status: 'away' }, 1), Me)
    await arrived
    const start = Date.now()
    await block(me, them)
    await hears(mine, them, false)
    const before = states(mine, them).length
    letGo()
    await vi.waitFor(() => expect(states(mine, them).slice(before)).toContain(true), 8_000)
    took = Date.now() - start
    if (took <= 700) await hears(mine, them, false)
  }
})

test('who is invisible stays so to whom they unblock; who was shown as offline is not told of a block', async () => {
  const [me, them] = await people(2)
  await befriend(me, them)
  await setMe(me, { status: 'invisible' })
  const [, theirs] = await Promise.all([connect(servers, me, { at: 0 }), connect(servers, them, { at: 1 })])
  await quiet()
  theirs.events.length = 0
  await block(me, them)
  await quiet()
  expect(states(theirs, me)).toEqual([])
  await ok(servers.call('DELETE', `/blocks/${them.id}`, { as: me }), Done)
  await quiet()
  expect(states(theirs, me)).not.toContain(true)
})

test('an account that is deleted goes, like everybody, and was seen by nobody', async () => {
  const [who, peer] = await people(2)
  await servers.dm(who, peer)
  const p = await connect(servers, peer, { at: 1 })
  await connect(servers, who)
  await hears(p, who, true)
  await ok(servers.call('DELETE', '/users/me', { as: who, body: { password: 'Secret123' } }), Done)
  await hears(p, who, false)
  expect([told(p, who).at(-1)!.last_seen, (await profile(peer, who)).last_seen]).toEqual([null, null])
})

test('many who come together are told together, each once', async () => {
  const [watcher, ...many] = await people(31)
  await servers.group(watcher, many)
  const w = await connect(servers, watcher, { at: 1 })
  const { db } = servers.instances[0]!.context
  const { query } = db
  let asked = 0
  db.query = (statement) => {
    // Who is to hear of somebody.
    if (statement.text.includes('bool_or(few.is_contact)')) asked += 1
    return query(statement)
  }
  const start = Date.now()
  try {
    await Promise.all(many.map((as) => connect(servers, as)))
    for (const who of many) await hears(w, who, true)
  } finally {
    db.query = query
  }
  for (const who of many) expect(states(w, who)).toEqual([true])
  // Five times a second at most, on however slow a machine.
  expect(asked).toBeLessThanOrEqual(1 + Math.ceil((Date.now() - start) / 200))
  expect(asked).toBeLessThan(many.length)
})

test('a group of more than fifty is not told', async () => {
  const [who, member, peer] = await people(3)
  const id = await servers.group(who, [member, peer])
  await servers.dm(who, peer)
  await servers.instances[0]!.context.db.query(sql`
    WITH many AS (INSERT INTO users (id, display_name) SELECT gen_random_uuid(), 'many' FROM generate_series(1, 48) RETURNING id),
      added AS (INSERT INTO chat_members (chat_id, user_id, role, version) SELECT ${id}, id, 'member', 100 + row_number() OVER () FROM many)
    UPDATE chat_counters SET member_count = 51, version = 200 WHERE chat_id = ${id}`)
  const [m, p] = await Promise.all([connect(servers, member, { at: 1 }), connect(servers, peer, { at: 1 })])
  const device = await connect(servers, who)
  await hears(p, who, true)
  await sleep(300)
  expect(told(m, who)).toEqual([])
  // One less, and they are told.
  await ok(servers.call('POST', `/chats/${id}/leave`, { as: peer }), Done)
  device.close()
  await hears(m, who, false)
})

test('an instance that closes takes its people with it, but for those who are elsewhere', async () => {
  const [who, twice, watcher] = await people(3)
  await ok(post(watcher, '/chats', { type: 'group', name: 'G', member_ids: [who.id, twice.id] }), ChatWithMembers, 201)
  const w = await connect(servers, watcher, { at: 0 })
  const last = servers.instances[2]!
  const leaving = await Promise.all([connect(servers, who, { at: 2 }), connect(servers, twice, { at: 2 })])
  await connect(servers, twice, { at: 1 })
  for (const each of [who, twice]) await hears(w, each, true)
  const before = Date.now()
  await last.server.close()
  await hears(w, who, false)
  expect(Date.now() - before).toBeLessThan(8_000)
  for (const client of leaving) expect(await client.waitForClose()).toBe(4011)
  expect(Date.parse(told(w, who).at(-1)!.last_seen!)).toBeGreaterThanOrEqual(before)
  await quiet()
  expect(states(w, twice)).not.toContain(false)
  for (const at of [0, 1]) {
    expect((await profile(watcher, who, at)).is_online).toBe(false)
    expect((await profile(watcher, twice, at)).is_online).toBe(true)
  }
})
