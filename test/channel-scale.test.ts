import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { ChannelList, MemberList } from '../src/modules/chats/schema.ts'
import { MessagePage } from '../src/modules/messages/schema.ts'
import { sql } from '../src/platform/db/db.ts'
import { Done } from '../src/platform/http/answers.ts'
import { Chat, ChatWithMembers, Message, SyncAnswer } from '../src/protocol/resources.ts'
import { checkChat, connect, heard, ok, rest } from './support/check.ts'
import { type Account, startServers, type TestServers } from './support/server.ts'

/** A channel of ten thousand costs what a chat of two costs, for all but those who come and go. */

const subscribers = 10_000
let servers: TestServers
let owner: Account
let reader: Account
let id: string
let dm: string
beforeAll(async () => {
  servers = await startServers({ instances: 1, redis: false })
  ;[owner, reader] = [await servers.register('owner'), await servers.register('reader')]
  dm = await servers.dm(owner, reader)
  id = (await ok(post(owner, '/channels', { name: 'Everybody' }), ChatWithMembers, 201)).id
  await ok(post(reader, `/channels/${id}/subscribe`), Chat, 201)
  await db().query(sql`
    WITH people AS (
      INSERT INTO users (id, display_name) SELECT gen_random_uuid(), 'x' FROM generate_series(1, ${subscribers - 2}) RETURNING id
    ), clocks AS (INSERT INTO user_clock (user_id) SELECT id FROM people)
    , listed AS (INSERT INTO user_chats (user_id, chat_id, version) SELECT id, ${id}::uuid, 1 FROM people)
    INSERT INTO chat_members (chat_id, user_id, role, version, joined_seq, read_seq, delivered_seq)
    SELECT ${id}::uuid, id, 'subscriber', 0, 1, 1, 1 FROM people`)
  await db().query(sql`UPDATE chat_counters SET member_count = ${subscribers} WHERE chat_id = ${id}`)
  await db().query(sql`ANALYZE chat_members`)
  await db().query(sql`ANALYZE user_chats`)
}, 60_000)
afterAll(() => servers.close())

const { get, post, patch, remove } = rest(() => servers)
const db = () => servers.instances[0]!.context.db
const say = (as: Account, chat_id: string, content: string) => ok(post(as, '/messages', { chat_id, content }), Message, 201)

interface Touched {
  /** Rows inserted, updated and deleted, by table. */
  written: Record<string, number>
  /** Rows read from the members, or entries of their indexes. */
  members: number
}

/** What `work` did to the database, as PostgreSQL counts it. */
async function touched(work: () => Promise<unknown>): Promise<Touched> {
  const counts = async () => {
    // Counts are handed in by each connection when it is idle, or when it is asked to.
    await Promise.all(Array.from({ length: 12 }, () => db().query(sql`SELECT pg_stat_force_next_flush(), pg_sleep(0.02)`)))
    return db().query<{ relname: string; written: number; read: number }>(sql`
      SELECT relname, n_tup_ins + n_tup_upd + n_tup_del AS written,
        seq_tup_read + (SELECT coalesce(sum(idx_tup_read), 0)::bigint FROM pg_stat_user_indexes i WHERE i.relid = t.relid) AS read
      FROM pg_stat_user_tables t, (SELECT pg_stat_clear_snapshot()) AS fresh
      -- (Who was seen last when is written whenever somebody goes, and the index of search in its own time.)
      WHERE relname NOT IN ('users', 'sessions', 'search_positions', 'search_words')`)
  }
  const before = new Map((await counts()).map((row) => [row.relname, row]))
  await work()
  const after = await counts()
  const differ = (name: 'written' | 'read') =>
    Object.fromEntries(
      after.flatMap((row) => {
        const more = row[name] - (before.get(row.relname)?.[name] ?? 0)
        return more > 0 ? [[row.relname, more]] : []
      }),
    )
  return { written: differ('written'), members: differ('read').chat_members ?? 0 }
}

test('posting writes the same rows as in a chat of two', async () => {
  for (const chat of [id, dm]) await say(owner, chat, 'warm')
  const small = await touched(() => say(owner, dm, 'one'))
  const large = await touched(() => say(owner, id, 'one'))
  expect(small.written).toEqual({ messages: 1, chat_counters: 1 })
  expect(large.written).toEqual(small.written)
  expect(large.members).toBeLessThan(20)
})

test('what a subscriber is shown neither reads nor returns ten thousand members', async () => {
  await say(owner, id, 'hello')
  const shown: [string, () => Promise<unknown>][] = [
    ['the list of chats', () => servers.call('GET', '/chats', { as: reader })],
    [
      'the chat',
      async () => {
        const chat = await ok(get(reader, `/chats/${id}`), ChatWithMembers)
        expect([chat.member_count, chat.members.map((m) => m.user_id)]).toEqual([subscribers, [owner.id]])
      },
    ],
    [
      'a page of messages',
      async () => {
        const { messages } = await ok(get(owner, `/chats/${id}/messages`), MessagePage)
        expect(messages.every((m) => m.read_count === 0 && m.view_count === 0)).toBe(true)
      },
    ],
    [
      'sync from nothing',
      async () => {
        const { chats } = await ok(post(reader, '/sync', {}), SyncAnswer)
        const channel = chats.find(({ chat }) => chat.id === id)!
        expect([channel.members.map((m) => m.user_id), channel.cursors]).toEqual([[owner.id], []])
      },
    ],
    [
      'catching up',
      async () => {
        const { chats } = await ok(post(owner, '/sync', { chats: { [id]: 2, [dm]: 1 } }), SyncAnswer)
        expect(chats.find(({ chat }) => chat.id === id)).toMatchObject({ members: [], cursors: [] })
      },
    ],
    [
      'connecting, and hearing of it',
      async () => {
        const device = await connect(servers, reader)
        await say(owner, id, 'live')
        await vi.waitFor(() => expect(heard(device, id)).toContain('live'), 5_000)
        await device.ask({ type: 'typing', chat_id: id })
        device.close()
      },
    ],
    ['the directory', () => ok(get(reader, '/channels?q=every'), ChannelList)],
    ['editing', () => patch(owner, `/chats/${id}`, { description: 'All of us' })],
    [
      'a page of members',
      async () => {
        const { members } = await ok(get(owner, `/chats/${id}/members?limit=100`), MemberList)
        expect(members).toHaveLength(100)
      },
    ],
  ]
  // That it would be seen.
  const all = await touched(() =>
    db().query(sql`SELECT count(*) AS n FROM chat_members WHERE chat_id = ${id} AND left_at IS NULL`),
  )
  expect(all.members).toBeGreaterThanOrEqual(subscribers)
  for (const [what, work] of shown) {
    const { members } = await touched(work)
    expect(members, what).toBeLessThan(250)
  }
})

test('coming, reading and going write a few rows each, and are counted', async () => {
  const late = await servers.register('late')
  const came = await touched(() => ok(post(late, `/channels/${id}/subscribe`), Chat, 201))
  expect(came.written).toEqual({ chat_members: 1, user_chats: 1, user_clock: 1, chat_counters: 1 })
  const { id: said } = await say(owner, id, 'look')
  const read = await touched(() => post(late, `/chats/${id}/read`, {}))
  expect(read.written).toEqual({ chat_members: 1, user_chats: 1, user_clock: 1, channel_views: expect.any(Number) })
  expect(read.written.channel_views).toBeLessThanOrEqual(6)
  expect((await ok(get(owner, `/messages/${said}`), Message)).view_count).toBe(1)
  expect((await checkChat(db(), id)).member_count).toBe(subscribers + 1)
  const went = await touched(() => ok(remove(late, `/channels/${id}/subscribe`), Done))
  expect(went.written).toEqual(came.written)
  expect((await checkChat(db(), id)).member_count).toBe(subscribers)

  // Many who read to the same place share their rows of views.
  const many = await Promise.all(Array.from({ length: 30 }, () => servers.register()))
  await Promise.all(many.map((who) => ok(post(who, `/channels/${id}/subscribe`), Chat, 201)))
  const { id: seen } = await say(owner, id, 'look here')
  await Promise.all(many.map((who) => post(who, `/chats/${id}/read`, {})))
  expect((await ok(get(owner, `/messages/${seen}`), Message)).view_count).toBe(30)
  const rows = await db().query(sql`SELECT 1 FROM channel_views WHERE chat_id = ${id}`)
  // Two places at the first level for each of the two readings above, one block at the others.
  expect(rows.length).toBeLessThanOrEqual(6)
})

test('an admin among ten thousand, and the end of it all: a few at a time, until nobody is left', async () => {
  const made = await touched(() => ok(patch(owner, `/chats/${id}/members/${reader.id}`, { role: 'admin' }), Done))
  expect([made.written, made.members < 20]).toEqual([{ chat_members: 1, chat_counters: 1 }, true])
  await say(reader, id, 'as an admin')
  const device = await connect(servers, reader)
  await ok(remove(owner, `/chats/${id}`), Done)
  await device.waitFor('chat_updated', (e) => e.chat_id === id && e.deleted === true)
  await device.waitFor('chat_removed', (e) => e.chat_id === id, 20_000)
  await vi.waitFor(async () => {
    const left = await db().query(sql`SELECT 1 FROM chat_members WHERE chat_id = ${id} AND left_at IS NULL LIMIT 1`)
    expect(left).toEqual([])
  }, 20_000)
  const listed = await db().query(sql`SELECT 1 FROM user_chats WHERE chat_id = ${id} AND is_member LIMIT 1`)
  expect(listed).toEqual([])
}, 60_000)
