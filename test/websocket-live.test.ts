import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { type Sql, sql } from '../src/platform/db/db.ts'
import { type Account, startServers, type TestServers } from './support/server.ts'
import { type Frame, until, Wire } from './support/wire.ts'

/** Signs of life, order, limits and the end of sessions, over two instances. */

let servers: TestServers
const wires: Wire[] = []

beforeAll(async () => {
  servers = await startServers({ instances: 2 })
})
afterEach(() => {
  for (const wire of wires.splice(0)) wire.end()
})
afterAll(() => servers.close())

async function open(account: Account, at = 0): Promise<Wire> {
  const wire = new Wire(servers.instances[at]!.url, `/ws?token=${account.token}`)
  wires.push(wire)
  await wire.type('user_chats')
  return wire
}

const people = (...names: string[]) => Promise.all(names.map((name) => servers.register(name)))
/** Live connections of the first instance. */
async function connections(): Promise<number> {
  const text = await (await fetch(`${servers.instances[0]!.url}/metrics`)).text()
  return Number(/^parley_websocket_connections (\d+)/m.exec(text)?.[1])
}
const ofType = (wire: Wire, type: string) => wire.frames.filter((frame) => frame.type === type)

test('typing is told once in 3 s, ends by itself after 5 s, and only to members', async () => {
  const [anna, ben, eve] = (await people('anna', 'ben', 'eve')) as [Account, Account, Account]
  const chat = await servers.dm(anna, ben)
  const [a, b, e] = [await open(anna), await open(ben, 1), await open(eve)]
  expect(await e.ask({ type: 'typing', chat_id: chat })).toMatchObject({ type: 'error', code: 'chat_not_found' })
  const begun = Date.now()
  // At once: one after the other they may take longer than 3 s on a busy machine.
  for (const answer of await Promise.all(Array.from({ length: 10 }, () => a.ask({ type: 'typing', chat_id: chat }))))
    expect(answer).toMatchObject({ type: 'ack' })
  const told = await b.type('typing')
  expect(told).toEqual({ type: 'typing', chat_id: chat, user_id: anna.id, is_typing: true, timestamp: expect.any(Number) })
  await b.next((frame) => frame.type === 'typing' && frame.is_typing === false)
  expect(Date.now() - begun).toBeGreaterThan(4_900)
  expect(ofType(b, 'typing').map((frame) => frame.is_typing)).toEqual([true, false])
  // Stopping is told at once, and once.
  await a.ask({ type: 'typing', chat_id: chat })
  await a.ask({ type: 'typing', chat_id: chat, is_typing: false })
  await a.ask({ type: 'typing', chat_id: chat, is_typing: false })
  await until(() => ofType(b, 'typing').length === 4, 'the second start and its end')
  await sleep(200)
  expect(ofType(b, 'typing').map((frame) => frame.is_typing)).toEqual([true, false, true, false])
  expect(ofType(a, 'typing')).toEqual([])
  expect(ofType(e, 'typing')).toEqual([])
})

test('a chat on the screen is told to the others, wherever they are', async () => {
  const [anna, ben, eve] = (await people('anna', 'ben', 'eve')) as [Account, Account, Account]
  const chat = await servers.dm(anna, ben)
  const [a, a2, b, e] = [await open(anna), await open(anna, 1), await open(ben, 1), await open(eve)]
  expect(await e.ask({ type: 'join_chat', chat_id: chat })).toMatchObject({ type: 'error', code: 'chat_not_found' })
  expect(await a.ask({ type: 'join_chat', chat_id: chat })).toMatchObject({ type: 'ack', user_ids: [anna.id] })
  await b.next((frame) => frame.type === 'chat_presence' && frame.is_joined === true && frame.user_id === anna.id)
  const both = await b.ask({ type: 'join_chat', chat_id: chat })
  expect((both.user_ids as string[]).sort()).toEqual([anna.id, ben.id].sort())
  await a2.ask({ type: 'join_chat', chat_id: chat })
  expect(await b.ask({ type: 'leave_chat', chat_id: chat })).toMatchObject({ type: 'ack' })
  await a.next((frame) => frame.type === 'chat_presence' && frame.is_joined === false && frame.user_id === ben.id)
  expect(await b.ask({ type: 'leave_chat', chat_id: chat })).toMatchObject({ type: 'ack' })
  // On one of two devices it stays open.
  await a.ask({ type: 'leave_chat', chat_id: chat })
  expect(await b.ask({ type: 'join_chat', chat_id: chat })).toMatchObject({ user_ids: expect.arrayContaining([anna.id, ben.id]) })
  // A connection that ends closes its chats.
  a2.end()
  await until(async () => {
    const { user_ids } = await b.ask({ type: 'join_chat', chat_id: chat })
    return (user_ids as string[]).join() === ben.id
  }, 'the chat of the connection that ended')
  expect(ofType(e, 'chat_presence')).toEqual([])
})

test('who goes away while a chat is being put on their screen has it on none', async () => {
  const [anna, ben] = (await people('anna', 'ben')) as [Account, Account]
  const chat = await servers.dm(anna, ben)
  const [stays, goes, b] = [await open(anna), await open(anna), await open(ben)]
  const { db } = servers.instances[0]!.context
  // What a chat is, is looked up once: the look waits for this lock.
  await db.transaction(async (tx) => {
    await tx.query(sql`LOCK TABLE chats IN ACCESS EXCLUSIVE MODE`)
    goes.send({ type: 'join_chat', chat_id: chat })
    await until(
      async () => (await tx.query(sql`SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'chats'::regclass`)).length > 0,
      'the look',
    )
    goes.end()
    await until(async () => (await connections()) === 2, 'the end of the connection')
  })
  expect((await b.ask({ type: 'join_chat', chat_id: chat })).user_ids).toEqual([ben.id])
  // The one that stayed can still have it open, and close it.
  await stays.ask({ type: 'join_chat', chat_id: chat })
  await stays.ask({ type: 'leave_chat', chat_id: chat })
  expect((await b.ask({ type: 'join_chat', chat_id: chat })).user_ids).toEqual([ben.id])
})

test('a session that ends while its connection is let in has none', async () => {
  const anna = await servers.register('anna')
  const ending = await servers.login(anna)
  const witness = await open(anna, 1)
  const { db } = servers.instances[1]!.context
  const { query } = db
  const { promise: arrived, resolve: arrive } = Promise.withResolvers<void>()
  const { promise: free, resolve: letGo } = Promise.withResolvers<void>()
  db.query = async <Row extends object>(statement: Sql) => {
    const rows = await query<Row>(statement)
    if (statement.text.includes('FROM sessions s JOIN users')) {
      db.query = query
      arrive()
      await free
    }
    return rows
  }
  const late = new Wire(servers.instances[1]!.url, `/ws?token=${ending.token}`)
  wires.push(late)
  await arrived
  // It was seen alive. The news of its end come before the connection is known to be its own.
  for (const as of [ending, anna]) expect((await servers.call('POST', '/auth/logout', { as })).status).toBe(200)
  expect(await witness.closed()).toBe(4001)
  letGo()
  expect(await late.closed()).toBe(4001)
  expect(ofType(late, 'ready')).toEqual([])
})

test('a connection has twenty chats on its screen, and no more', async () => {
  const [anna] = (await people('anna')) as [Account]
  const chats = await Promise.all(Array.from({ length: 21 }, () => servers.group(anna, [])))
  const a = await open(anna)
  const join = (chat_id: string) => a.ask({ type: 'join_chat', chat_id })
  for (const chat of chats.slice(0, 20)) expect(await join(chat)).toMatchObject({ type: 'ack' })
  const last = chats[20]!
  expect(await join(last)).toMatchObject({ code: 'invalid_input', details: { chat_id: expect.any(String) } })
  // One that is there already is none more; one that is left makes room.
  expect(await join(chats[19]!)).toMatchObject({ type: 'ack', user_ids: [anna.id] })
  expect(await a.ask({ type: 'leave_chat', chat_id: chats[0]! })).toMatchObject({ type: 'ack' })
  expect(await join(last)).toMatchObject({ type: 'ack', user_ids: [anna.id] })
})

test('a hundred sends without waiting keep their order, over REST and WebSocket of others in between', async () => {
  const [anna, ben] = (await people('anna', 'ben')) as [Account, Account]
  const chat = await servers.dm(anna, ben)
  const [a, b] = [await open(anna), await open(ben, 1)]
  const first = (await a.ask({ type: 'message', chat_id: chat, content: 'first' })).message as { id: string }
  const others = Array.from({ length: 20 }, (_, n) =>
    servers.call('POST', '/messages', { as: ben, at: n % 2, body: { chat_id: chat, content: `between ${n}` } }),
  )
  for (let n = 0; n < 100; n += 1) {
    const reply = n % 3 === 0 ? { reply_to_id: first.id } : {}
    a.send({ type: 'message', id: `m${n}`, chat_id: chat, content: `mine ${n}`, ...reply })
  }
  expect((await Promise.all(others)).map((answer) => answer.status)).toEqual(Array(20).fill(201))
  const acked: Frame[] = []
  for (let n = 0; n < 100; n += 1) acked.push(await a.next((frame) => frame.id === `m${n}`))
  const seqs = acked.map((frame) => (frame.message as { seq: number }).seq)
  expect(seqs).toEqual([...seqs].sort((x, y) => x - y))
  expect(new Set(seqs).size).toBe(100)
  for (const wire of [a, b]) {
    await until(() => ofType(wire, 'new_message').length === 121, 'all messages')
    expect(ofType(wire, 'new_message').map((frame) => (frame.message as { seq: number }).seq)).toEqual(
      Array.from({ length: 121 }, (_, n) => n + 1),
    )
  }
})

test('acknowledgements come in the order of their sends', async () => {
  const [anna, ben] = (await people('anna', 'ben')) as [Account, Account]
  const chat = await servers.dm(anna, ben)
  const a = await open(anna)
  for (let n = 0; n < 300; n += 1) a.send({ type: 'message', id: `m${n}`, chat_id: chat, content: `${n}` })
  await until(() => ofType(a, 'ack').length === 300, 'all acknowledgements')
  expect(ofType(a, 'ack').map((frame) => frame.id)).toEqual(Array.from({ length: 300 }, (_, n) => `m${n}`))
})

test('whoever was removed may neither write nor hear, on the open socket', async () => {
  const [anna, ben, carl] = (await people('anna', 'ben', 'carl')) as [Account, Account, Account]
  const chat = await servers.group(anna, [ben, carl])
  const [a, b, c] = [await open(anna), await open(ben, 1), await open(carl)]
  await b.ask({ type: 'join_chat', chat_id: chat })
  await b.ask({ type: 'typing', chat_id: chat })
  expect((await servers.call('DELETE', `/chats/${chat}/members/${ben.id}`, { as: anna })).status).toBe(200)
  for (const type of ['message', 'read', 'delivered', 'typing', 'join_chat']) {
    const command = { type, chat_id: chat, ...(type === 'message' && { content: 'still here?' }) }
    await until(async () => (await b.ask(command)).code === 'chat_not_found', `${type} refused`, 3_000)
  }
  const sent = await a.ask({ type: 'message', chat_id: chat, content: 'without you' })
  await c.next((frame) => frame.type === 'new_message' && (frame.message as { content: string }).content === 'without you')
  await b.type('chat_removed')
  await sleep(300)
  expect(JSON.stringify(b.frames)).not.toContain('without you')
  expect(sent.type).toBe('ack')
  // Nobody who is not a member is on the list of those who look at it.
  const { user_ids } = await c.ask({ type: 'join_chat', chat_id: chat })
  expect(user_ids).toEqual([carl.id])
})

const endings: [what: string, end: (account: Account, second: Account) => Promise<unknown>, whose: 'one' | 'both' | 'other'][] = [
  ['logout', (one) => servers.call('POST', '/auth/logout', { as: one }), 'one'],
  ['logout-all', (one) => servers.call('POST', '/auth/logout-all', { as: one }), 'both'],
  [
    'ending another session',
    async (one) => {
      const { body } = await servers.call<{ sessions: { id: string; current: boolean }[] }>('GET', '/auth/sessions', { as: one })
      const id = body.sessions.find((session) => !session.current)!.id
      expect((await servers.call('DELETE', `/auth/sessions/${id}`, { as: one })).status).toBe(200)
    },
    'other',
  ],
  [
    'a new password',
    async (one) => {
      const body = { old_password: 'Secret123', new_password: 'Secret1234' }
      expect((await servers.call('PATCH', '/users/me/password', { as: one, body })).status).toBe(200)
    },
    'other',
  ],
  [
    'deleting the account',
    async (one) => {
      expect((await servers.call('DELETE', '/users/me', { as: one, body: { password: 'Secret123' } })).status).toBe(200)
    },
    'both',
  ],
]

test.each(endings)(
  '%s closes the sockets of what it ends with 4001 after session_ended, on both instances',
  async (_what, end, whose) => {
    const one = await servers.register('one')
    const second = await servers.login(one)
    const [here, there, otherHere, otherThere] = await Promise.all([open(one), open(one, 1), open(second), open(second, 1)])
    await end(one, second)
    const ended =
      whose === 'one' ? [here, there] : whose === 'other' ? [otherHere, otherThere] : [here, there, otherHere, otherThere]
    for (const wire of ended) {
      expect(await wire.closed(3_000)).toBe(4001)
      expect(wire.frames.at(-1)).toMatchObject({ type: 'session_ended', session_id: wire.frames[0]!.session_id })
    }
    for (const wire of [here, there, otherHere, otherThere].filter((wire) => !ended.includes(wire))) {
      expect(await wire.ask({ type: 'ping' })).toMatchObject({ type: 'pong' })
    }
    const gone = whose === 'other' ? second : one
    expect(await new Wire(servers.instances[1]!.url, `/ws?token=${gone.token}`).closed()).toBe(4001)
  },
)

test('a session that ends while its connection is opened does not get through', async () => {
  const one = await servers.register('one')
  const many = Array.from({ length: 20 }, (_, n) => new Wire(servers.instances[n % 2]!.url, `/ws?token=${one.token}`))
  wires.push(...many)
  await many[0]!.opened
  await servers.call('POST', '/auth/logout', { as: one })
  for (const wire of many) expect(await wire.closed(5_000)).toBe(4001)
})
