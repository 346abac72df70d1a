import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { sql } from '../src/platform/db/db.ts'
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
    for (let took = 1_000; took > 800; ) {
      if (!desk.isOpen) await desk.connect()
      phone.close()
      w.events.length = 0
      const start = Date.now()
      desk.close()
      await sleep(50)
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

test('a group of more than fifty is not told', async () => {
  const [who, member, peer] = await people(3)
  const id = await servers.group(who, [member, peer])
  await servers.dm(who, peer)
  await servers.instances[0]!.context.db.query(sql`
    WITH added AS (INSERT INTO chat_members (chat_id, user_id, role, version) SELECT ${id}, gen_random_uuid(), 'member', 100 + n FROM generate_series(1, 48) n)
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
