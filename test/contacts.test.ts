import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { BlockList, ContactList, RequestAnswer, RequestList } from '../src/modules/contacts/schema.ts'
import { FoundUsers } from '../src/modules/users/schema.ts'
import { sql } from '../src/platform/db/db.ts'
import { Done } from '../src/platform/http/answers.ts'
import { Chat, Me, SyncAnswer, UserPublic } from '../src/protocol/resources.ts'
import type { Client } from './client/client.ts'
import { connect, nobody, ok, refusal, rest } from './support/check.ts'
import { type Account, startServers, type TestServers } from './support/server.ts'

/** Requests and contacts: who may, who is told, and what a client holds of it, live, resumed and new. */

let servers: TestServers
beforeAll(async () => {
  servers = await startServers({ instances: 2 })
})
afterAll(() => servers.close())

const { get, post, patch, remove, people } = rest(() => servers)
const put = (as: Account, path: string) => servers.call('PUT', path, { as })

const ask = (as: Account, whom: Account, status = 201) =>
  ok(post(as, '/contacts/requests', { user_id: whom.id }), RequestAnswer, status)
const accept = (as: Account, id: string) => ok(post(as, `/contacts/requests/${id}/accept`), UserPublic)
const requests = async (as: Account, direction: 'incoming' | 'outgoing', query = '') =>
  (await ok(get(as, `/contacts/requests?direction=${direction}${query}`), RequestList)).requests
const contacts = async (as: Account) => (await ok(get(as, '/contacts'), ContactList)).contacts.map((user) => user.id)
const relation = async (as: Account, whom: Account) =>
  (await ok(get(as, `/users/search?q=${whom.username}`), FoundUsers)).users.find((user) => user.id === whom.id)?.relation
const befriend = async (a: Account, b: Account) => accept(b, (await ask(a, b)).id)

/** What this client holds of others, but for what has ended. */
const held = (client: Client) =>
  Object.fromEntries(
    [...client.state.relations.values()]
      .filter((each) => each.relation !== 'none')
      .map(({ user_id, relation, request_id, since, version }) => [user_id, { relation, request_id, since, version }]),
  )
const kinds = (client: Client) => Object.fromEntries(Object.entries(held(client)).map(([id, { relation }]) => [id, relation]))

/** What the client holds is what a new one is told. */
async function sameAsNew(...clients: Client[]): Promise<void> {
  for (const client of clients) {
    const account = accounts.get(client.state.myId)!
    const fresh = await connect(servers, account, { at: 1 })
    await vi.waitFor(
      () => expect([client.state.userVersion, held(client)]).toEqual([fresh.state.userVersion, held(fresh)]),
      5_000,
    )
    fresh.close()
  }
}
const accounts = new Map<string, Account>()
const device = (account: Account, at = 0) => {
  accounts.set(account.id, account)
  return connect(servers, account, { at })
}

test('asked and accepted: both are told on all devices, both lists have them, and everybody sees what they hold', async () => {
  const [x, y] = await people(2)
  const [x1, x2, y1, y2] = [await device(x, 0), await device(x, 1), await device(y, 0), await device(y, 1)]
  const request = await ask(x, y)
  expect(request).toMatchObject({ direction: 'outgoing', relation: 'requested', user: { id: y.id } })
  for (const client of [y1, y2]) {
    const told = await client.waitFor('contact_request')
    expect(told.request).toMatchObject({
      id: request.id,
      direction: 'incoming',
      user: { id: x.id },
      created_at: request.created_at,
    })
    expect(kinds(client)).toEqual({ [x.id]: 'incoming' })
  }
  for (const client of [x1, x2]) await client.waitFor('relation_updated', (e) => e.relation.relation === 'requested')
  expect([await relation(x, y), await relation(y, x)]).toEqual(['requested', 'incoming'])
  expect((await requests(x, 'outgoing')).map((r) => r.id)).toEqual([request.id])
  expect((await requests(y, 'incoming')).map((r) => [r.id, r.user.id])).toEqual([[request.id, x.id]])
  expect([await requests(x, 'incoming'), await requests(y, 'outgoing'), await contacts(x)]).toEqual([[], [], []])

  // Again is the same; who asked cannot accept, and nobody else can do anything.
  expect((await ask(x, y, 200)).id).toBe(request.id)
  const [stranger] = await people(1)
  for (const as of [x, stranger])
    expect(await refusal(post(as, `/contacts/requests/${request.id}/accept`))).toBe('404 request_not_found')
  expect(await refusal(remove(stranger, `/contacts/requests/${request.id}`))).toBe('404 request_not_found')

  expect(await accept(y, request.id)).toMatchObject({ id: x.id, is_online: true })
  for (const [client, other] of [
    [x1, y],
    [x2, y],
    [y1, x],
    [y2, x],
  ] as const) {
    expect((await client.waitFor('contact_accepted')).user.id).toBe(other.id)
    expect(kinds(client)).toEqual({ [other.id]: 'contact' })
  }
  expect([await contacts(x), await contacts(y), await relation(x, y), await relation(y, x)]).toEqual([
    [y.id],
    [x.id],
    'contact',
    'contact',
  ])
  expect([await requests(x, 'outgoing'), await requests(y, 'incoming')]).toEqual([[], []])
  expect(await refusal(post(x, '/contacts/requests', { user_id: y.id }))).toBe('409 already_contacts')
  expect(await refusal(post(y, `/contacts/requests/${request.id}/accept`))).toBe('404 request_not_found')
  await sameAsNew(x1, x2, y1, y2)
})

test('two requests that cross are a contact at once', async () => {
  const [x, y] = await people(2)
  const [client, other] = [await device(x), await device(y, 1)]
  const first = await ask(x, y)
  expect(await ask(y, x, 200)).toMatchObject({ id: first.id, relation: 'contact', direction: 'incoming' })
  await Promise.all([client, other].map((each) => each.waitFor('contact_accepted')))
  expect([await contacts(x), await contacts(y)]).toEqual([[y.id], [x.id]])
  await sameAsNew(client, other)
})

test('rejected, taken back and removed: gone on both sides, told to both, and asked again as something new', async () => {
  const [x, y] = await people(2)
  const chat = await servers.dm(x, y)
  const [client, other] = [await device(x), await device(y, 1)]
  const gone = async () => {
    await vi.waitFor(() => expect([kinds(client), kinds(other)]).toEqual([{}, {}]), 5_000)
    expect([await relation(x, y), await relation(y, x), await contacts(x), await contacts(y)]).toEqual(['none', 'none', [], []])
    await sameAsNew(client, other)
  }
  const ids = new Set<string>()
  for (const by of [x, y]) {
    const { id } = await ask(x, y)
    ids.add(id)
    await vi.waitFor(
      () => expect([kinds(client), kinds(other)]).toEqual([{ [y.id]: 'requested' }, { [x.id]: 'incoming' }]),
      5_000,
    )
    await ok(remove(by, `/contacts/requests/${id}`), Done)
    expect(await refusal(remove(by, `/contacts/requests/${id}`))).toBe('404 request_not_found')
    await gone()
  }
  for (const by of [x, y]) {
    const { id } = await ask(x, y)
    ids.add(id)
    await accept(y, id)
    await ok(remove(by, `/contacts/${by === x ? y.id : x.id}`), Done)
    expect(await refusal(remove(by, `/contacts/${by === x ? y.id : x.id}`))).toBe('404 contact_not_found')
    await gone()
  }
  expect(ids.size).toBe(4)
  expect(client.state.chats.has(chat)).toBe(true)
})

test('oneself, nobody and people who are gone cannot be asked', async () => {
  const [x, y] = await people(2)
  expect(await refusal(post(x, '/contacts/requests', { user_id: x.id }))).toBe('400 invalid_input')
  expect(await refusal(post(x, '/contacts/requests', { user_id: nobody }))).toBe('404 user_not_found')
  expect(await refusal(remove(x, `/contacts/${nobody}`))).toBe('404 contact_not_found')
  expect(await refusal(remove(x, `/contacts/${x.id}`))).toBe('404 contact_not_found')
  expect((await servers.call('DELETE', '/users/me', { as: y, body: { password: 'Secret123' } })).status).toBe(200)
  expect(await refusal(post(x, '/contacts/requests', { user_id: y.id }))).toBe('404 user_not_found')
})

test('who deletes their account is on nobody’s list any more', async () => {
  const [x, friend, asker, asked, blocker] = await people(5)
  await befriend(x, friend)
  await ask(asker, x)
  await ask(x, asked)
  await ok(put(blocker, `/blocks/${x.id}`), Done)
  const clients = await Promise.all([friend, asker, asked].map((as) => device(as)))
  expect(clients.map((client) => kinds(client))).toEqual([{ [x.id]: 'contact' }, { [x.id]: 'requested' }, { [x.id]: 'incoming' }])
  expect((await servers.call('DELETE', '/users/me', { as: x, body: { password: 'Secret123' } })).status).toBe(200)
  for (const client of clients) await vi.waitFor(() => expect(kinds(client)).toEqual({}), 5_000)
  expect([await contacts(friend), await requests(asker, 'outgoing'), await requests(asked, 'incoming')]).toEqual([[], [], []])
  expect((await ok(get(blocker, '/blocks'), BlockList)).blocks).toEqual([])
  await sameAsNew(...clients)
})

test('contacts are listed online first, then by name, in pages', async () => {
  const [x, ...others] = await people(8)
  const names = ['Émile', 'zoe', 'Anna', 'anna', 'Bo', 'Yves', 'Carl']
  for (const [n, other] of others.entries()) {
    await ok(patch(other, '/users/me', { display_name: names[n] }), Me)
    await befriend(x!, other)
  }
  // Yves looks offline, though he is there.
  await ok(patch(others[5]!, '/users/me', { status: 'invisible' }), Me)
  const open = await Promise.all([others[1]!, others[4]!, others[5]!].map((as) => connect(servers, as, { at: 1 })))
  await vi.waitFor(async () => {
    const { contacts } = await ok(get(x!, '/contacts'), ContactList)
    expect(contacts.map((user) => [user.display_name, user.is_online])).toEqual([
      ['Bo', true],
      ['zoe', true],
      ['anna', false],
      ['Anna', false],
      ['Carl', false],
      ['Émile', false],
      ['Yves', false],
    ])
  }, 5_000)
  const paged: string[] = []
  for (let cursor: string | null = null, pages = 0; pages < 4; pages += 1) {
    const query: string = cursor === null ? '' : `&cursor=${cursor}`
    const page = await ok(get(x!, `/contacts?limit=2${query}`), ContactList)
    expect(page.has_more).toBe(pages < 3)
    paged.push(...page.contacts.map((user) => user.display_name))
    cursor = page.next_cursor
  }
  expect(paged).toEqual(['Bo', 'zoe', 'anna', 'Anna', 'Carl', 'Émile', 'Yves'])
  for (const cursor of ['x', 'WzEsMl0', 'bnVsbA'])
    expect(await refusal(get(x!, `/contacts?cursor=${cursor}`))).toBe('400 invalid_input')
  for (const client of open) client.close()
})

test('requests and blocks come in pages', async () => {
  const [x, ...others] = await people(5)
  for (const other of others) await ask(other, x!)
  for (const other of others) await ok(put(x!, `/blocks/${other.id}`), Done)
  expect(await requests(x!, 'incoming')).toEqual([])
  const blocked: string[] = []
  let cursor: string | null = null
  do {
    const page: typeof BlockList._output = await ok(
      get(x!, `/blocks?limit=3${cursor === null ? '' : `&cursor=${cursor}`}`),
      BlockList,
    )
    blocked.push(...page.blocks.map((user) => user.id))
    cursor = page.next_cursor
  } while (cursor !== null)
  expect(blocked).toEqual(others.map((other) => other.id).sort())
  for (const other of others) await ok(remove(x!, `/blocks/${other.id}`), Done)
  const asked: string[] = []
  do {
    const page: typeof RequestList._output = await ok(
      get(x!, `/contacts/requests?limit=3${cursor === null ? '' : `&cursor=${cursor}`}`),
      RequestList,
    )
    asked.push(...page.requests.map((request) => request.user.id))
    cursor = page.next_cursor
  } while (cursor !== null)
  expect(asked).toEqual(others.map((other) => other.id).reverse())
})

test('a device that was away, and one that was never told, end with what a new one has', async () => {
  const [x, ...others] = await people(7)
  const away = await device(x!)
  const live = await device(x!, 1)
  const [a, b, c, d, e, f] = others as [Account, Account, Account, Account, Account, Account]
  await befriend(x!, a)
  await ask(x!, b)
  await vi.waitFor(() => expect(Object.keys(kinds(away))).toHaveLength(2), 5_000)
  away.close()
  await away.waitForClose()
  // Committed and told by nobody.
  const tells = servers.instances.map(({ server }) => server.hub.tell)
  for (const { server } of servers.instances) server.hub.tell = () => {}
  await ok(remove(a, `/contacts/${x!.id}`), Done)
  const { id } = (await requests(b, 'incoming'))[0]!
  await accept(b, id)
  await ask(c, x!)
  await ask(d, x!)
  await ok(put(x!, `/blocks/${d.id}`), Done)
  const chat = await servers.dm(x!, e)
  await ok(patch(x!, `/chats/${chat}/settings`, { pinned: true }), Chat)
  await ask(f, x!)
  for (const [n, { server }] of servers.instances.entries()) server.hub.tell = tells[n]!
  await servers.instances[1]!.server.hub.sweep(true)
  const expected = { [b.id]: 'contact', [c.id]: 'incoming', [d.id]: 'blocked', [f.id]: 'incoming' }
  await vi.waitFor(() => expect(kinds(live)).toEqual(expected), 5_000)
  await vi.waitFor(() => expect(live.state.chats.get(chat)?.my.pinned).toBe(true), 5_000)
  await away.connect()
  expect(kinds(away)).toEqual(expected)
  await sameAsNew(live, away)
})

test('sync tells relations in the order of the user’s clock, with what else is theirs, in pages that skip nothing', async () => {
  const [x, y] = await people(2)
  const { db } = servers.instances[0]!.context
  // Chats and relations of which each took a version in turn, more of them than one answer has room for.
  const chats: string[] = []
  for (let n = 0; n < 6; n += 1) chats.push(await servers.group(x, [y]))
  await db.query(sql`
    INSERT INTO users (id, display_name) SELECT gen_random_uuid(), 'many ' || n FROM generate_series(1, 250) n`)
  await db.query(sql`
    INSERT INTO relations (user_id, other_id, state, since, version)
    SELECT ${x.id}, id, CASE WHEN n % 5 = 0 THEN 'none' ELSE 'contact' END, now(), 100 + n
    FROM (SELECT id, row_number() OVER () AS n FROM users WHERE display_name LIKE 'many %') u`)
  for (const [n, chat] of chats.entries())
    await db.query(
      sql`UPDATE user_chats SET version = ${[50, 150, 210, 320, 340, 400][n]!} WHERE user_id = ${x.id} AND chat_id = ${chat}`,
    )
  // The other rows in between are what nobody sees: versions need not be without holes here.
  await db.query(sql`UPDATE relations SET version = version + 1000 WHERE user_id = ${x.id} AND version IN (150, 210, 320, 340)`)
  await db.query(sql`UPDATE user_clock SET version = 1500 WHERE user_id = ${x.id}`)
  const known = Object.fromEntries(
    (await ok(post(x, '/sync', { user_version: 1500 }), SyncAnswer)).chats.map(({ chat, version }) => [chat.id, version]),
  )
  for (const from of [0, 60, 205]) {
    const told: number[] = []
    const own: number[] = []
    let user_version = from
    for (let pages = 0; ; pages += 1) {
      expect(pages).toBeLessThan(6)
      const answer = await ok(post(x, '/sync', { chats: known, user_version }), SyncAnswer)
      const versions = answer.relations.map((each) => each.version)
      expect(versions).toEqual([...versions].sort((a, b) => a - b))
      expect(versions.length).toBeLessThanOrEqual(100)
      told.push(...versions)
      own.push(...answer.chats.map(({ chat }) => chats.indexOf(chat.id)))
      expect(answer.user_version).toBeGreaterThan(user_version)
      // Nothing below what the client will ask from next is still to be told.
      user_version = answer.user_version
      const missing = await db.query<{ version: number }>(sql`
        SELECT version FROM relations WHERE user_id = ${x.id} AND version > ${from} AND version <= ${user_version}
          AND (state <> 'none' OR ${from > 0}::boolean) AND NOT version = ANY(${told}::bigint[])`)
      expect(missing).toEqual([])
      if (!answer.has_more) break
    }
    expect(user_version).toBe(1500)
    expect(new Set(own)).toEqual(new Set([50, 150, 210, 320, 340, 400].flatMap((version, n) => (version > from ? [n] : []))))
    // Each once.
    expect([told.length, own.length]).toEqual([new Set(told).size, new Set(own).size])
  }
  // Ahead of the database: everything anew.
  const anew = await ok(post(x, '/sync', { user_version: 99_999 }), SyncAnswer)
  expect([anew.relations_reset, anew.relations.length, anew.has_more]).toEqual([true, 100, true])
})

test('so many requests in a day, and no more', async () => {
  const strict = await startServers({ env: { RATE_LIMIT_CONTACT: '2/1d' } })
  const call = rest(() => strict)
  const [x, y, z] = await call.people(3)
  expect((await call.post(x, '/contacts/requests', { user_id: y.id })).status).toBe(201)
  expect((await call.post(x, '/contacts/requests', { user_id: y.id })).status).toBe(200)
  const answer = await call.post(x, '/contacts/requests', { user_id: z.id })
  expect([answer.status, answer.body.code]).toEqual([429, 'rate_limited'])
  expect(Number(answer.headers.get('retry-after'))).toBeGreaterThan(80_000)
  expect((await call.post(y, '/contacts/requests', { user_id: z.id })).status).toBe(201)
  await strict.close()
})
