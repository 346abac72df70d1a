import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { MessagePage } from '../src/modules/messages/schema.ts'
import { sql } from '../src/platform/db/db.ts'
import { Done } from '../src/platform/http/answers.ts'
import { ChatWithMembers, type Message } from '../src/protocol/resources.ts'
import { checkChat, connect, heard, ok, rest } from './support/check.ts'
import { loseDatabase } from './support/lose-database.ts'
import { startServers, type TestServers } from './support/server.ts'
import { createVolleys } from './support/volley.ts'

/** Sends against what else happens at the same moment. */

let servers: TestServers
beforeAll(async () => {
  servers = await startServers({ instances: 2 })
})
afterAll(() => servers.close())

const { post, remove, people } = rest(() => servers)
const db = () => servers.instances[0]!.context.db
const seqsOf = (events: { type: string }[], id: string) =>
  events.flatMap((e) => {
    const { type, message } = e as { type: string; message: Message }
    return type === 'new_message' && message.chat_id === id ? [message.seq] : []
  })

test('two hundred removals against sends: what is acknowledged is there, and nothing comes after the removal', async () => {
  const [owner, out, witness] = await people(3)
  const id = await servers.group(owner, [out, witness])
  const seen = await connect(servers, witness, { at: 1 })
  const sender = await connect(servers, out, { at: 1 })
  const { fire, checkShut, kept, refused } = createVolleys(servers, {
    as: out,
    sender,
    chatId: id,
    refusal: [404, 'chat_not_found'],
  })
  for (let round = 0; round < 200; round += 1) {
    const sends = fire(round)
    await sleep(round % 4)
    await ok(remove(owner, `/chats/${id}/members/${out.id}`, round % 2), Done)
    await checkShut()
    await sends
    expect((await post(owner, `/chats/${id}/members`, { user_ids: [out.id] })).status).toBe(200)
  }
  const rows = await db().query<{ seq: number; content: string; sender_id: string; action: string | null }>(
    sql`SELECT seq, content, sender_id, system->>'action' AS action FROM messages WHERE chat_id = ${id} ORDER BY seq`,
  )
  // The removal comes after every message of its round, and no message of theirs comes while they are out.
  let round = 0
  let isOut = false
  for (const row of rows) {
    if (row.action === 'member_removed') isOut = true
    else if (row.action === 'member_added') {
      isOut = false
      round += 1
    } else if (row.sender_id === out.id) expect([isOut, row.content.split('.')[0]]).toEqual([false, String(round)])
  }
  expect(
    rows
      .filter((row) => row.sender_id === out.id)
      .map((row) => row.content)
      .sort(),
  ).toEqual(kept.sort())
  // The race was one: of both there were plenty.
  expect(Math.min(kept.length, refused.length)).toBeGreaterThan(10)
  const { last_seq } = await checkChat(db(), id)
  await vi.waitFor(() => expect(seen.state.chats.get(id)?.lastSeq).toBe(last_seq), 10_000)
  expect(seqsOf(seen.events, id)).toEqual(Array.from({ length: last_seq - 1 }, (_, n) => n + 2))
}, 60_000)

test('a client that connects at any moment of a stream ends with everything, once, in order', async () => {
  const [x, y] = await people(2)
  const id = await servers.dm(x, y)
  const writer = await connect(servers, x)
  const total = 400
  const sending = (async () => {
    for (let n = 0; n < total; n += 4) {
      await Promise.all(Array.from({ length: 4 }, (_, k) => writer.send(id, `${n + k}`)))
      await sleep(2)
    }
  })()
  const readers = Array.from({ length: 24 }, async (_, n) => {
    const client = servers.client(y, { at: n % 2 })
    for (let times = 0; times < 3; times += 1) {
      await sleep(Math.random() * 250)
      // The same client goes and comes back, and catches up from where it was.
      client.close()
      client.events.length = 0
      await client.connect()
    }
    return client
  })
  const clients = await Promise.all(readers)
  await sending
  for (const client of clients) {
    await vi.waitFor(() => expect(client.state.chats.get(id)?.version).toBe(total + 2), 10_000)
    const { messages } = client.state.chats.get(id)!
    const held = [...messages.keys()].sort((a, b) => a - b)
    // The newest page of when it came first, and all since.
    expect(held).toEqual(Array.from({ length: held.length }, (_, n) => total - held.length + n + 1))
    expect(held.length).toBeGreaterThanOrEqual(50)
    expect(held.map((seq) => messages.get(seq)!.content)).toEqual(held.map((seq) => String(seq - 1)))
    // What was told live (since it came last) came in order, without a hole and without a second time.
    const live = seqsOf(client.events, id)
    expect(live).toEqual(Array.from({ length: live.length }, (_, n) => live[0]! + n))
  }
}, 60_000)

test('many write to one chat, over both instances and both ways: all hear the same, in the same order', async () => {
  const everybody = await people(8)
  const id = await servers.group(everybody[0]!, everybody.slice(1))
  const clients = await Promise.all(everybody.map((who, n) => connect(servers, who, { at: n % 2 })))
  await Promise.all(
    clients.map(async (client, who) => {
      for (let n = 0; n < 25; n += 1) {
        if (n % 5 === 4) {
          const { status } = await post(everybody[who]!, '/messages', { chat_id: id, content: `${who}.${n}` }, (who + 1) % 2)
          expect(status).toBe(201)
        } else expect((await client.send(id, `${who}.${n}`)).content).toBe(`${who}.${n}`)
      }
    }),
  )
  const { last_seq } = await checkChat(db(), id)
  expect(last_seq).toBe(201)
  const truth = await db().query<{ content: string }>(
    sql`SELECT content FROM messages WHERE chat_id = ${id} AND seq > 1 ORDER BY seq`,
  )
  const order = truth.map((row) => row.content)
  for (const client of clients) await vi.waitFor(() => expect(heard(client, id)).toEqual(order), 10_000)
  // Each sender's in the order in which they were sent.
  for (const who of everybody.keys()) {
    const mine = order.filter((content) => content.startsWith(`${who}.`))
    expect(mine).toEqual(Array.from({ length: 25 }, (_, n) => `${who}.${n}`))
  }
})

test('sends that nobody waits for keep their order on one socket', async () => {
  const [x, y] = await people(2)
  const chats = [await servers.dm(x, y), await servers.dm(x, x), await servers.group(x, [y])]
  const device = await connect(servers, x)
  // Several chats at once, so that their batches mix.
  const sent = await Promise.all(Array.from({ length: 240 }, (_, n) => device.send(chats[n % 3]!, `${Math.floor(n / 3)}`)))
  for (const [k, id] of chats.entries()) {
    const mine = sent.filter((_, n) => n % 3 === k)
    expect(mine.map((m) => m.content)).toEqual(Array.from({ length: 80 }, (_, n) => String(n)))
    expect(mine.map((m) => m.seq)).toEqual(Array.from({ length: 80 }, (_, n) => mine[0]!.seq + n))
    await checkChat(db(), id)
  }
})

test('a send and its repetitions at once over both instances, among others: one message', async () => {
  const [x, y] = await people(2)
  const id = await servers.dm(x, y)
  for (let round = 0; round < 20; round += 1) {
    const client_id = crypto.randomUUID()
    const body = { chat_id: id, content: `${round}`, client_id }
    const others = Array.from({ length: 4 }, (_, n) => post(y, '/messages', { chat_id: id, content: 'y' }, n % 2))
    const answers = await Promise.all([0, 1, 0, 1].map((at) => post(x, '/messages', body, at)))
    expect(answers.map((a) => a.status).sort()).toEqual([200, 200, 200, 201])
    expect(new Set(answers.map((a) => a.body.id)).size).toBe(1)
    expect((await Promise.all(others)).map((a) => a.status)).toEqual([201, 201, 201, 201])
  }
  expect((await checkChat(db(), id)).last_seq).toBe(100)
})

test('what was committed and told by nobody is told by its repetition, and by who finds it after a lost answer', async () => {
  const [x, y] = await people(2)
  const id = await servers.dm(x, y)
  const device = await connect(servers, y, { at: 1 })
  const { hub } = servers.instances[0]!.server
  const { sweep } = servers.instances[1]!.server.hub
  // Told, not found by looking.
  servers.instances[1]!.server.hub.sweep = async () => {}
  const body = { chat_id: id, content: 'once', client_id: crypto.randomUUID() }
  const { tell } = hub
  hub.tell = () => {}
  expect((await post(x, '/messages', body)).status).toBe(201)
  hub.tell = tell
  expect((await post(x, '/messages', body)).status).toBe(200)
  await device.waitFor('new_message', (e) => e.message.content === 'once')
  const { query } = db()
  const database = loseDatabase(db(), (batch) => query(batch))
  try {
    expect((await post(x, '/messages', { chat_id: id, content: 'twice' })).status).toBe(201)
  } finally {
    database.restore()
  }
  expect(database.refused).toBe(3)
  await device.waitFor('new_message', (e) => e.message.content === 'twice')
  servers.instances[1]!.server.hub.sweep = sweep
  expect(heard(device, id)).toEqual(['once', 'twice'])
  expect((await checkChat(db(), id)).last_seq).toBe(2)
})

test('a chat whose lock is held keeps waiting what is sent to it, and nothing that is sent beside it', async () => {
  const [x, y] = await people(2)
  const [busy, ...free] = await Promise.all([servers.dm(x, y), ...Array.from({ length: 4 }, () => servers.group(x, [y]))])
  const say = async (chat_id: string) => (await post(x, '/messages', { chat_id, content: 'x' })).status
  for (let round = 0; round < 10; round += 1) {
    let answered = 0
    const { waiting } = await db().transaction(async (tx) => {
      await tx.query(sql`SELECT 1 FROM chat_counters WHERE chat_id = ${busy} FOR UPDATE`)
      const waiting = [busy, busy].map((id) => say(id!).finally(() => (answered += 1)))
      expect(await Promise.all(free.map(say))).toEqual(free.map(() => 201))
      expect(answered).toBe(0)
      return { waiting }
    })
    expect(await Promise.all(waiting)).toEqual([201, 201])
  }
  for (const id of [busy, ...free]) await checkChat(db(), id)
})

test('what waits for a chat whose lock is held keeps its order, whatever comes after it', async () => {
  const [x, y] = await people(2)
  const id = await servers.dm(x, y)
  const device = await connect(servers, x)
  for (let round = 0; round < 10; round += 1) {
    const { sends } = await db().transaction(async (tx) => {
      await tx.query(sql`SELECT 1 FROM chat_counters WHERE chat_id = ${id} FOR UPDATE`)
      const sends: Promise<Message>[] = []
      // Some of them come while the first ones are found to have to wait.
      for (let n = 0; n < 30; n += 1) {
        sends.push(device.send(id, `${n}`))
        await new Promise((resolve) => setImmediate(resolve))
      }
      return { sends }
    })
    const seqs = (await Promise.all(sends)).map(({ seq }) => seq)
    expect(seqs).toEqual(seqs.map((_, n) => seqs[0]! + n))
  }
})

test('sends while the group is deleted, and while the direct chat is: gone is what came before, and nothing else', async () => {
  const [x, y] = await people(2)
  const device = await connect(servers, y, { at: 1 })
  for (let round = 0; round < 20; round += 1) {
    const group = await servers.group(x, [y])
    const sends = Array.from({ length: 6 }, (_, n) =>
      sleep(n).then(() => post(y, '/messages', { chat_id: group, content: `${n}` }, n % 2)),
    )
    await sleep(round % 5)
    await ok(remove(x, `/chats/${group}`, round % 2), Done)
    expect((await post(y, '/messages', { chat_id: group, content: 'late' }, 1)).status).toBe(404)
    const sent = (await Promise.all(sends)).filter((a) => a.status === 201).length
    expect((await checkChat(db(), group)).last_seq).toBe(sent + 1)
  }
  const dm = await servers.dm(x, y)
  const sending = Promise.all(
    Array.from({ length: 60 }, (_, n) => sleep(n).then(() => post(x, '/messages', { chat_id: dm, content: `${n}` }, n % 2))),
  )
  for (let n = 0; n < 6; n += 1) {
    await sleep(8)
    await ok(remove(y, `/chats/${dm}`, n % 2), Done)
  }
  expect((await sending).every((a) => a.status === 201)).toBe(true)
  const page = await ok(servers.call('GET', `/chats/${dm}/messages?limit=100`, { as: y }), MessagePage)
  const chat = await ok(servers.call('GET', `/chats/${dm}`, { as: y }), ChatWithMembers)
  expect([page.total, chat.unread_count]).toEqual([60 - chat.my.cleared_seq, 60 - chat.my.cleared_seq])
  const fresh = await connect(servers, y)
  for (const client of [device, fresh]) {
    await vi.waitFor(() => {
      const held = client.state.chats.get(dm)!
      expect([...held.messages.keys()].sort((a, b) => a - b)).toEqual(page.messages.map((m) => m.seq))
    }, 10_000)
  }
})

test('a bad row fails alone, and what was sent beside it keeps its order', async () => {
  const [x, y] = await people(2)
  const [id, other] = [await servers.dm(x, y), await servers.dm(x, x)]
  // A message that the database cannot take, for whatever reason.
  await db().query(sql`CREATE FUNCTION refuse_bad() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''bad''; END'`)
  await db().query(
    sql`CREATE TRIGGER refuse_bad BEFORE INSERT ON messages FOR EACH ROW WHEN (NEW.content = 'bad') EXECUTE FUNCTION refuse_bad()`,
  )
  const device = await connect(servers, x)
  for (let round = 0; round < 15; round += 1) {
    const known = crypto.randomUUID()
    const { id: first } = await device.send(id, 'known', known)
    // The bad one before and after one that is there already, with others around them: all in one write.
    const sends = ['0', '1', 'bad', 'known', '2', '3', '4', '5', '6', '7'].map((content) =>
      device.send(id, content, content === 'known' ? known : undefined).then(
        (message) => ({ content, seq: message.seq, id: message.id }),
        (error: { code?: string }) => ({ content, code: error.code }),
      ),
    )
    const beside = Array.from({ length: 3 }, (_, n) => device.send(other, `${round}.${n}`))
    const answers = await Promise.all(sends)
    expect(answers[2]).toEqual({ content: 'bad', code: 'internal_error' })
    expect(answers[3]).toMatchObject({ id: first })
    const seqs = answers.filter(({ content }) => /\d/.test(content)).map((answer) => ('seq' in answer ? answer.seq : undefined))
    expect(seqs).toEqual(Array.from({ length: 8 }, (_, n) => seqs[0]! + n))
    await Promise.all(beside)
  }
  await db().query(sql`DROP TRIGGER refuse_bad ON messages`)
  await checkChat(db(), id)
  await checkChat(db(), other)
})
