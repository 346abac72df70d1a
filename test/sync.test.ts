import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { ReadAnswer } from '../src/modules/chats/schema.ts'
import { sql } from '../src/platform/db/db.ts'
import { Done } from '../src/platform/http/answers.ts'
import { Chat, ChatWithMembers, Message, SyncAnswer } from '../src/protocol/resources.ts'
import { ClientState } from './client/state.ts'
import { connect, nobody, ok, refusal, rest } from './support/check.ts'
import { type Account, startServers, type TestServers } from './support/server.ts'

let servers: TestServers
beforeAll(async () => {
  servers = await startServers({ instances: 1 })
})
afterAll(() => servers.close())

const { get, post, patch, remove, people } = rest(() => servers)
const db = () => servers.instances[0]!.context.db
const sync = (as: Account, body: object = {}) => ok(post(as, '/sync', body), SyncAnswer)
const say = (as: Account, chat_id: string, content = 'x') => ok(post(as, '/messages', { chat_id, content }), Message, 201)
const fill = async (as: Account, id: string, count: number, content = (n: number) => String(n)) => {
  const device = await connect(servers, as)
  // So many at once: their answers come to the same socket, whose queue is bounded.
  for (let n = 0; n < count; n += 10) {
    await Promise.all(Array.from({ length: Math.min(10, count - n) }, (_, k) => device.send(id, content(n + k))))
  }
  device.close()
}

/** Asks until nothing is missing, as a client does. Resolves with the answers; each is below the bound of a send queue. */
async function catchUp(as: Account, state: ClientState, body: object = {}): Promise<SyncAnswer[]> {
  const answers: SyncAnswer[] = []
  for (let more = true; more; ) {
    const answer = await sync(as, { ...state.position(), ...body })
    expect(Buffer.byteLength(JSON.stringify(answer))).toBeLessThan(1_000_000)
    state.asked()
    state.synced(answer)
    const once = shape(state)
    state.synced(answer)
    expect(shape(state)).toEqual(once)
    answers.push(answer)
    more = answer.has_more
    expect(answers.length).toBeLessThan(100)
  }
  return answers
}

/** What a client holds, to compare. */
const shape = (state: ClientState) => ({
  ...state.position(),
  chats: Object.fromEntries(
    Array.from(state.chats, ([id, { version, chat, my, members, cursors, messages }]) => [
      id,
      {
        version,
        chat,
        my,
        members: [...members].sort(),
        cursors: [...cursors].sort(),
        messages: [...messages].sort((a, b) => a[0] - b[0]),
      },
    ]),
  ),
})
const seqs = (messages: readonly { seq: number }[]) => messages.map((m) => m.seq)
const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, n) => from + n)

test('from nothing: every chat with its newest page, its members and their cursors', async () => {
  const [x, y, z] = await people(3)
  expect(await sync(x)).toMatchObject({ chats: [], removed: [], me: { id: x.id }, user_version: 0, has_more: false })
  const dm = await servers.dm(x, y)
  const group = await servers.group(y, [x, z])
  await fill(y, dm, 60)
  await ok(post(x, `/chats/${dm}/read`, { seq: 40 }), ReadAnswer)
  const answer = await sync(x)
  expect([answer.has_more, answer.removed]).toEqual([false, []])
  const told = new Map(answer.chats.map((entry) => [entry.chat.id, entry]))
  expect(new Set(told.keys())).toEqual(new Set([dm, group]))
  const one = told.get(dm)!
  expect([seqs(one.messages), one.version, one.has_more, one.reset]).toEqual([range(11, 60), 62, false, false])
  expect(one.chat).toEqual(await ok(get(x, `/chats/dm/${y.id}`), Chat))
  expect([one.chat.unread_count, one.chat.my.read_seq]).toEqual([20, 40])
  expect(one.members.map((m) => m.user_id).sort()).toEqual([x.id, y.id].sort())
  expect(one.cursors.find((c) => c.user_id === x.id)).toEqual({ user_id: x.id, read_seq: 40, delivered_seq: 40, joined_seq: 0 })
  expect(told.get(group)!.members).toHaveLength(3)
  const versions = Object.fromEntries(answer.chats.map(({ chat, version }) => [chat.id, version]))
  const { user_version } = answer
  // With everything known nothing is told.
  expect(await sync(x, { chats: versions, user_version })).toMatchObject({ chats: [], user_version, has_more: false })
  const { [dm]: _unknown, ...others } = versions
  const { chats } = await sync(x, { chats: others, user_version, limit: 1 })
  expect(chats.map((entry) => [entry.chat.id, seqs(entry.messages), entry.has_more])).toEqual([[dm, [60], false]])
})

test('what it takes', async () => {
  const [x] = await people(1)
  for (const body of [
    { limit: 0 },
    { limit: 101 },
    { chats: { x: 1 } },
    { chats: { [nobody]: -1 } },
    { chats: { [nobody]: '1' } },
    { chats: [] },
    { user_version: 1.5 },
    { since: 1 },
    { chats: Object.fromEntries(Array.from({ length: 5_001 }, () => [randomUUID(), 1])) },
  ])
    expect(await refusal(post(x, '/sync', body)), JSON.stringify(body).slice(0, 50)).toBe('400 invalid_input')
  expect(await refusal(servers.call('POST', '/sync', { body: {} }))).toBe('401 unauthorized')
})

test('catching up in small steps: messages, members and names, each in the order of its version', async () => {
  const everybody = await people(9)
  const [x, y] = everybody
  const id = await servers.group(x, [y])
  const state = new ClientState(y.id)
  await catchUp(y, state)
  const before = state.chats.get(id)!.version
  for (const [n, who] of everybody.slice(2).entries()) {
    await ok(post(x, `/chats/${id}/members`, { user_ids: [who.id] }), ChatWithMembers)
    await say(x, id, `m${n}`)
    if (n % 2) await ok(remove(x, `/chats/${id}/members/${who.id}`), Done)
    else await ok(patch(x, `/chats/${id}/members/${who.id}`, { role: 'admin' }), Done)
  }
  await ok(patch(x, `/chats/${id}`, { name: 'Late' }), Chat)
  const answers = await catchUp(y, state, { limit: 3 })
  expect(answers.length).toBeGreaterThan(5)
  let known = before
  for (const [n, { chats, has_more }] of answers.entries()) {
    const [entry] = chats
    expect([chats.length, has_more, entry!.has_more, entry!.reset]).toEqual([
      1,
      n < answers.length - 1,
      n < answers.length - 1,
      false,
    ])
    const versions = [...entry!.messages, ...entry!.members].map((row) => row.version)
    expect(versions.every((version) => version > known && version <= entry!.version)).toBe(true)
    expect(entry!.messages.length).toBeLessThanOrEqual(3)
    known = entry!.version
  }
  const fresh = new ClientState(y.id)
  await catchUp(y, fresh, { limit: 100 })
  // Who left is gone from both; cursors and the rest are alike.
  expect(shape(state)).toEqual(shape(fresh))
  expect([state.chats.get(id)!.chat.name, state.chats.get(id)!.members.size]).toEqual(['Late', 6])
})

test('far behind, or ahead of the server, a chat starts anew', async () => {
  const [x, y] = await people(2)
  const id = await servers.dm(x, y)
  await fill(x, id, 1_100)
  const { user_version } = await sync(y)
  const at = async (version: number) => {
    const [entry] = (await sync(y, { chats: { [id]: version }, user_version })).chats
    return entry && [entry.reset, entry.messages[0]?.seq, entry.messages.at(-1)?.seq, entry.has_more]
  }
  expect(await at(102)).toEqual([false, 101, 150, true])
  expect(await at(101)).toEqual([true, 1_051, 1_100, false])
  expect(await at(0)).toEqual([true, 1_051, 1_100, false])
  expect(await at(1_102)).toBeUndefined()
  // It has seen what a restored backup has not.
  expect(await at(1_103)).toEqual([true, 1_051, 1_100, false])
  const ahead = await sync(y, { chats: { [id]: 1_102 }, user_version: 1_000_000 })
  expect([ahead.chats.length, ahead.user_version]).toEqual([1, user_version])
})

test('chats that are no longer mine, or never were, are named as removed', async () => {
  const [x, y, z] = await people(3)
  const [left, gone, alien] = [await servers.group(x, [y]), await servers.group(x, [y]), await servers.dm(x, z)]
  const kept = await servers.dm(x, y)
  const state = new ClientState(y.id)
  await catchUp(y, state)
  await ok(post(y, `/chats/${left}/leave`), Done)
  await ok(remove(x, `/chats/${gone}`), Done)
  const position = state.position()
  const answer = await sync(y, { ...position, chats: { ...position.chats, [alien]: 1, [nobody]: 1 } })
  expect([answer.chats, answer.removed.toSorted()]).toEqual([[], [left, gone, alien, nobody].sort()])
  await catchUp(y, state)
  expect([...state.chats.keys()]).toEqual([kept])
  // Added again, it comes back as if it were new.
  await ok(post(x, `/chats/${left}/members`, { user_ids: [y.id] }), ChatWithMembers)
  await catchUp(y, state)
  expect(state.chats.get(left)!.messages.size).toBe(3)
})

test('four hundred chats whose settings changed: the clock goes no further than what was told', async () => {
  const [x] = await people(1)
  const saved = await servers.dm(x, x)
  // As many notes to oneself, made as the server would make them.
  await db().query(sql`
    WITH made AS (INSERT INTO chats (id, type, owner_id, name, version) SELECT gen_random_uuid(), 'group', ${x.id}, 'n' || n, 1 FROM generate_series(1, 400) n RETURNING id),
      counted AS (INSERT INTO chat_counters (chat_id, version, member_count) SELECT id, 2, 1 FROM made),
      joined AS (INSERT INTO chat_members (chat_id, user_id, role, version) SELECT id, ${x.id}, 'owner', 2 FROM made),
      clock AS (UPDATE user_clock SET version = version + 400 WHERE user_id = ${x.id})
    INSERT INTO user_chats (user_id, chat_id, version) SELECT ${x.id}, id, 1 + row_number() OVER () FROM made`)
  const state = new ClientState(x.id)
  const first = await catchUp(x, state)
  expect([first.length > 1, state.chats.size, state.userVersion]).toEqual([true, 401, 401])
  const ids = [...state.chats.keys()]
  for (const [n, id] of ids.entries()) expect((await patch(x, `/chats/${id}/settings`, { pinned: n % 2 === 0 })).status).toBe(200)
  await say(x, saved)
  const answers = await catchUp(x, state)
  expect(answers.length).toBeGreaterThan(1)
  // Were the answer lost and this all that is known, nothing would be missing.
  const clocks = answers.map((answer) => answer.user_version)
  expect(clocks).toEqual(clocks.toSorted((a, b) => a - b))
  expect(clocks[0]).toBeLessThan(802)
  expect(clocks.at(-1)).toBe(802)
  for (const [n, id] of ids.entries()) expect(state.chats.get(id)!.my.pinned).toBe(n % 2 === 0)
})

test.each([
  ['emoji', '👪'.repeat(10_000)],
  ['what JSON escapes', '\u0001'.repeat(10_000)],
])('long messages (%s): every answer is below the bound, and the end is reached', async (_name, content) => {
  const [x, y] = await people(2)
  const chats = [await servers.dm(x, y), await servers.group(x, [y]), await servers.dm(y, y)]
  const state = new ClientState(y.id)
  await catchUp(y, state, { limit: 100 })
  // Two chats full of them, and one with but a word, which must not be taken for read.
  for (const id of chats.slice(0, 2)) await fill(x, id, 100, () => content)
  await say(y, chats[2]!, 'short')
  const answers = await catchUp(y, state, { limit: 100 })
  expect(answers.length).toBeGreaterThan(2)
  const lengths = chats.map((id) => [...state.chats.get(id)!.messages.values()].filter((m) => m.message_type === 'text').length)
  expect(lengths).toEqual([100, 100, 1])
  expect([...state.chats.get(chats[0]!)!.messages.values()].every((m) => m.content === content)).toBe(true)

  // From nothing, each chat comes with some of its newest, at least.
  const fresh = new ClientState(y.id)
  await catchUp(y, fresh, { limit: 100 })
  for (const id of chats) {
    const { messages, version, lastSeq } = fresh.chats.get(id)!
    expect([messages.has(lastSeq), version]).toEqual([true, state.chats.get(id)!.version])
  }
  // Over the socket the answer passes as well.
  const device = await connect(servers, y)
  expect(device.state.chats.size).toBe(3)
  expect(device.isOpen).toBe(true)
})

test('a direct chat that I deleted for myself stays empty, and comes back with what is new', async () => {
  const [x, y] = await people(2)
  const id = await servers.dm(x, y)
  await fill(x, id, 5)
  const state = new ClientState(y.id)
  await catchUp(y, state)
  await ok(remove(y, `/chats/${id}`), Done)
  const [entry] = (await sync(y, state.position())).chats
  expect([entry!.messages, entry!.chat.my.cleared_seq, entry!.chat.last_message, entry!.chat.unread_count]).toEqual([
    [],
    5,
    null,
    0,
  ])
  await catchUp(y, state)
  expect(state.chats.get(id)!.messages.size).toBe(0)
  const { seq } = await say(x, id, 'new')
  const fresh = new ClientState(y.id)
  for (const each of [state, fresh]) {
    await catchUp(y, each)
    expect([...each.chats.get(id)!.messages.keys()]).toEqual([seq])
    expect(each.unread(id)).toBe(1)
  }
})
