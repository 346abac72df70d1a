import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { type Sql, sql } from '../src/platform/db/db.ts'
import { Done } from '../src/platform/http/answers.ts'
import type { Client } from './client/client.ts'
import { checkChat, connect, ok, rest } from './support/check.ts'
import { type Account, startServers, type TestServers } from './support/server.ts'
import { createVolleys } from './support/volley.ts'

/** What two people, or two devices of one, do at the same moment over two instances. */

let servers: TestServers
beforeAll(async () => {
  servers = await startServers({ instances: 2 })
})
afterAll(() => servers.close())

const { post, remove, people } = rest(() => servers)
const db = () => servers.instances[0]!.context.db
const ask = (as: Account, whom: Account, at: number) => post(as, '/contacts/requests', { user_id: whom.id }, at)
const block = (as: Account, whom: Account, at = 0) => ok(servers.call('PUT', `/blocks/${whom.id}`, { as, at }), Done)
const unblock = (as: Account, whom: Account, at = 0) => ok(remove(as, `/blocks/${whom.id}`, at), Done)

interface Pair {
  mine: string
  theirs: string
  same: boolean
}

/** How the two stand to each other in the database; what they share stands in both rows. */
async function standing(x: Account, y: Account): Promise<string> {
  const [row] = await db().query<Pair>(sql`
    SELECT a.state AS mine, b.state AS theirs, a.request_id IS NOT DISTINCT FROM b.request_id AND (a.state = 'none' OR a.since = b.since) AS same
    FROM relations a JOIN relations b ON b.user_id = a.other_id AND b.other_id = a.user_id
    WHERE a.user_id = ${x.id} AND a.other_id = ${y.id}`)
  if (!row) return 'none none'
  expect(row.same, `${row.mine} ${row.theirs}`).toBe(true)
  expect(['none none', 'contact contact', 'requested incoming', 'incoming requested']).toContain(`${row.mine} ${row.theirs}`)
  return `${row.mine} ${row.theirs}`
}

const held = (client: Client) =>
  [...client.state.relations.values()]
    .filter((each) => each.relation !== 'none')
    .map(({ user_id, relation, request_id, since, version }) => ({ user_id, relation, request_id, since, version }))
    .sort((a, b) => (a.user_id < b.user_id ? -1 : 1))

/** Live devices hold what a new one is told; versions were taken without a gap and without one twice. */
async function sameAsNew(clients: readonly [Account, Client][]): Promise<void> {
  for (const [account, client] of clients) {
    const fresh = await connect(servers, account, { at: 1 })
    await vi.waitFor(
      () => expect([client.state.userVersion, held(client)]).toEqual([fresh.state.userVersion, held(fresh)]),
      8_000,
    )
    fresh.close()
    const own = client.events.flatMap((e) => ('user_prev' in e ? [[e.user_prev, e.user_version] as const] : []))
    for (const [n, [prev]] of own.entries()) if (n > 0) expect(prev).toBe(own[n - 1]![1])
  }
}

test('crossing requests at once become one contact, whoever was first', async () => {
  const [x, y] = await people(2)
  const clients = await Promise.all([connect(servers, x), connect(servers, y, { at: 1 })])
  for (let round = 0; round < 40; round += 1) {
    const answers = await Promise.all([ask(x, y, 0), ask(y, x, 1), ...(round % 2 ? [ask(x, y, 1)] : [])])
    // Whoever came third found a contact.
    expect(answers.map((a) => a.status).filter((status) => status !== 409 && status !== 200)).toEqual([201])
    expect(await standing(x, y)).toBe('contact contact')
    await ok(remove(round % 2 ? x : y, `/contacts/${round % 2 ? y.id : x.id}`, round % 2), Done)
  }
  await sameAsNew([
    [x, clients[0]],
    [y, clients[1]],
  ])
}, 30_000)

test('accepting against taking back, and against rejecting on another device: one of them happens', async () => {
  const [x, y] = await people(2)
  const clients = await Promise.all([connect(servers, x), connect(servers, y, { at: 1 })])
  const outcomes = new Set<string>()
  for (let round = 0; round < 60; round += 1) {
    const { body } = await ask(x, y, round % 2)
    const accepting = sleep(round % 3).then(() => post(y, `/contacts/requests/${body.id}/accept`, undefined, 0))
    const dropping = sleep((round + 1) % 3).then(() => remove(round % 2 ? x : y, `/contacts/requests/${body.id}`, 1))
    const [accepted, dropped] = await Promise.all([accepting, dropping])
    expect([accepted.status, dropped.status].sort()).toEqual([200, 404])
    const now = await standing(x, y)
    expect(now).toBe(accepted.status === 200 ? 'contact contact' : 'none none')
    outcomes.add(now)
    if (accepted.status === 200) await ok(remove(x, `/contacts/${y.id}`), Done)
  }
  // The race was one.
  expect(outcomes.size).toBe(2)
  await sameAsNew([
    [x, clients[0]],
    [y, clients[1]],
  ])
}, 30_000)

test('removal while a new request is made and accepted: both sides always agree', async () => {
  const [x, y] = await people(2)
  const clients = await Promise.all([connect(servers, x), connect(servers, y, { at: 1 })])
  for (let round = 0; round < 40; round += 1) {
    const { body } = await ask(x, y, 0)
    await Promise.all([
      post(y, `/contacts/requests/${body.id}/accept`, undefined, round % 2),
      sleep(round % 4).then(() => remove(x, `/contacts/${y.id}`, 1)),
      sleep(round % 5).then(() => remove(y, `/contacts/${x.id}`, 0)),
      sleep(round % 3).then(() => ask(y, x, 1)),
      sleep(round % 2).then(() => block(x, y, round % 2)),
    ])
    await standing(x, y)
    await unblock(x, y)
    for (const as of [x, y]) await remove(as, `/contacts/${as === x ? y.id : x.id}`)
    for (const { request_id } of await db().query<{ request_id: string }>(
      sql`SELECT request_id FROM relations WHERE user_id = ${x.id} AND request_id IS NOT NULL`,
    ))
      await ok(remove(x, `/contacts/requests/${request_id}`), Done)
    expect(await standing(x, y)).toBe('none none')
  }
  await sameAsNew([
    [x, clients[0]],
    [y, clients[1]],
  ])
}, 30_000)

test('two hundred blocks against sends under way: once a block is answered nothing of the blocked one is stored', async () => {
  const [me, them] = await people(2)
  const id = await servers.dm(me, them)
  const sender = await connect(servers, them, { at: 1 })
  const witness = await connect(servers, me, { at: 1 })
  const first = await sender.send(id, 'first')
  const { fire, checkShut, kept, refused } = createVolleys(servers, {
    as: them,
    sender,
    chatId: id,
    refusal: [403, 'not_allowed'],
  })
  const lastSeq = async () =>
    (await db().query<{ last_seq: number }>(sql`SELECT last_seq FROM chat_counters WHERE chat_id = ${id}`))[0]!.last_seq
  for (let round = 0; round < 200; round += 1) {
    const sends = fire(round)
    const reacting = post(them, `/messages/${first.id}/reactions`, { emoji: round % 2 ? '👍' : '👎' }, round % 2)
    await sleep(round % 4)
    await block(me, them, round % 2)
    const stands = await lastSeq()
    await checkShut()
    await Promise.all([sends, reacting])
    expect(await lastSeq()).toBe(stands)
    await unblock(me, them, (round + 1) % 2)
  }
  const rows = await db().query<{ content: string }>(
    sql`SELECT content FROM messages WHERE chat_id = ${id} AND message_type = 'text'`,
  )
  expect(rows.map((row) => row.content).sort()).toEqual(['first', ...kept].sort())
  expect(Math.min(kept.length, refused.length)).toBeGreaterThan(10)
  const { last_seq } = await checkChat(db(), id)
  await vi.waitFor(() => expect(witness.state.chats.get(id)?.lastSeq).toBe(last_seq), 8_000)
  await sameAsNew([[me, witness]])
}, 60_000)

test('a block against a direct chat that is being made: there is none, or nothing can be written in it', async () => {
  const made: boolean[] = []
  // How much sooner the opening begins: whoever lost begins sooner the next time, so that they meet on any machine.
  let head = 0
  for (let round = 0; round < 40; round += 1) {
    const [me, them] = await people(2)
    const opening = sleep(Math.max(0, -head)).then(() => servers.call('GET', `/chats/dm/${me.id}`, { as: them, at: round % 2 }))
    const blocking = sleep(Math.max(0, head)).then(() => block(me, them, (round + 1) % 2))
    const [opened] = await Promise.all([opening, blocking])
    expect([201, 403]).toContain(opened.status)
    made.push(opened.status === 201)
    head += (opened.status === 201 ? -1 : 1) * (1 + Math.random() * 9)
    const again = await servers.call('GET', `/chats/dm/${me.id}`, { as: them })
    expect(again.status).toBe(opened.status === 201 ? 200 : 403)
    if (opened.status !== 201) continue
    for (const at of [0, 1]) {
      const { status, body } = await post(them, '/messages', { chat_id: opened.body.id, content: 'x' }, at)
      expect([status, body.code]).toEqual([403, 'not_allowed'])
    }
    expect((await checkChat(db(), opened.body.id as string)).last_seq).toBe(0)
  }
  expect(new Set(made).size).toBe(2)
}, 60_000)

/** The next transaction of the instance that comes to a statement with this text waits there until it is let go. */
function holdAt(instance: number, text: string): { arrived: Promise<void>; letGo: () => void } {
  const { db } = servers.instances[instance]!.context
  const { transaction } = db
  const { promise: arrived, resolve: arrive } = Promise.withResolvers<void>()
  const { promise: free, resolve: letGo } = Promise.withResolvers<void>()
  db.transaction = (work) =>
    transaction((tx) => {
      const query = async <Row extends object>(statement: Sql): Promise<Row[]> => {
        if (statement.text.includes(text) && db.transaction !== transaction) {
          db.transaction = transaction
          arrive()
          await free
        }
        return tx.query<Row>(statement)
      }
      return work({ query })
    })
  return { arrived, letGo }
}

test('a direct chat that comes to be between a block’s look and its locks is found', async () => {
  const [me, them] = await people(2)
  const { arrived, letGo } = holdAt(0, 'FROM user_clock WHERE user_id = ANY')
  const blocking = block(me, them, 0)
  await arrived
  const { body: chat } = await servers.call<{ id: string }>('GET', `/chats/dm/${me.id}`, { as: them, at: 1 })
  // Its list of members is remembered from here on, without a block.
  expect((await post(them, '/messages', { chat_id: chat.id, content: 'before' }, 1)).status).toBe(201)
  letGo()
  await blocking
  for (const at of [1, 0]) {
    const { status, body } = await post(them, '/messages', { chat_id: chat.id, content: 'after' }, at)
    expect([status, body.code]).toEqual([403, 'not_allowed'])
  }
})

test('a block that comes between a look at who may begin a direct chat and its making is seen', async () => {
  const [me, them] = await people(2)
  const { arrived, letGo } = holdAt(0, 'INSERT INTO dm_pairs')
  const opening = servers.call('GET', `/chats/dm/${me.id}`, { as: them, at: 0 })
  await arrived
  await block(me, them, 1)
  letGo()
  const { status, body } = await opening
  expect([status, body.code]).toEqual([403, 'not_allowed'])
  expect(await db().query(sql`SELECT 1 AS found FROM dm_pairs WHERE ${me.id} IN (user_a::text, user_b::text)`)).toEqual([])
})

test('a request that is being made to an account that is being deleted leaves nothing', async () => {
  const [x, y] = await people(2)
  const { arrived, letGo } = holdAt(0, 'INSERT INTO relations')
  const asking = ask(x, y, 0)
  await arrived
  const deleting = servers.call('DELETE', '/users/me', { as: y, body: { password: 'Secret123' }, at: 1 })
  await vi.waitFor(async () => {
    const rows = await db().query(sql`SELECT id FROM users WHERE id = ${y.id} AND deleted_at IS NOT NULL`)
    expect(rows).toHaveLength(1)
  }, 5_000)
  letGo()
  expect([(await asking).status, (await deleting).status]).toEqual([201, 200])
  expect(await standing(x, y)).toBe('none none')
})

test('unread while all at once is written, read, blocked and unblocked: every device ends with the one count', async () => {
  const [me, them, other] = await people(3)
  const chats = [await servers.group(other, [me, them]), await servers.group(them, [me, other]), await servers.dm(me, them)]
  const [phone, desk] = [await connect(servers, me, { at: 0 }), await connect(servers, me, { at: 1 })]
  const small = servers.client(me, { at: 1 })
  small.syncLimit = 2
  await small.connect()
  for (let round = 0; round < 25; round += 1) {
    const writes = Array.from({ length: 8 }, (_, n) =>
      sleep(n).then(() =>
        post(
          n % 2 ? them : other,
          '/messages',
          { chat_id: chats[n % (n % 2 ? 3 : 2)], content: `@${me.username} ${round}` },
          n % 2,
        ),
      ),
    )
    const reads = [0, 1].map((at) =>
      sleep(round % 5).then(() => post(me, `/chats/${chats[(round + at) % 3]}/read`, { seq: round * 2 }, at)),
    )
    const blocks = round % 2 ? unblock(me, them, 1) : block(me, them, 0)
    if (round % 6 === 3) small.close()
    await Promise.all([...writes, ...reads, blocks])
    if (!small.isOpen) await small.connect()
  }
  for (const isBlocked of [true, false]) {
    if (!isBlocked) await unblock(me, them)
    const counted = new Map(
      (
        await db().query<{ chat_id: string; unread: number; mentions: number }>(sql`
          SELECT m.chat_id, count(*)::int AS unread, (count(*) FILTER (WHERE ${me.id}::uuid = ANY(x.mentions)))::int AS mentions
          FROM chat_members m JOIN messages x ON x.chat_id = m.chat_id AND x.seq > m.read_seq AND x.sender_id <> m.user_id AND x.message_type <> 'system'
          WHERE m.user_id = ${me.id} AND NOT EXISTS (SELECT 1 FROM relations r WHERE r.user_id = ${me.id} AND r.other_id = x.sender_id AND r.blocked)
          GROUP BY m.chat_id`)
      ).map(({ chat_id, ...counts }) => [chat_id, counts]),
    )
    const fresh = await connect(servers, me)
    for (const client of [phone, desk, small, fresh])
      await vi.waitFor(
        () =>
          expect(chats.map((id) => ({ unread: client.state.unread(id), mentions: client.state.mentions(id) }))).toEqual(
            chats.map((id) => counted.get(id) ?? { unread: 0, mentions: 0 }),
          ),
        8_000,
      )
    fresh.close()
  }
  await sameAsNew([
    [me, phone],
    [me, desk],
  ])
}, 60_000)

test('two devices do everything at once: both end the same', async () => {
  const [me, ...others] = await people(6)
  const [phone, desk] = [await connect(servers, me!, { at: 0 }), await connect(servers, me!, { at: 1 })]
  const theirs = await Promise.all(others.map((as, n) => connect(servers, as, { at: n % 2 })))
  for (let round = 0; round < 12; round += 1) {
    await Promise.all(
      others.flatMap((other, n) => [
        ask(me!, other, n % 2),
        ask(other, me!, (n + 1) % 2),
        (n + round) % 3 === 0 ? block(me!, other, n % 2) : unblock(me!, other, n % 2),
        ...((n + round) % 4 === 0 ? [remove(me!, `/contacts/${other.id}`, 1)] : []),
        ...((n + round) % 5 === 0 ? [block(other, me!, 1)] : [unblock(other, me!, 0)]),
      ]),
    )
    for (const other of others) await standing(me!, other)
  }
  await sameAsNew([[me!, phone], [me!, desk], ...others.map((as, n): [Account, Client] => [as, theirs[n]!])])
}, 60_000)
