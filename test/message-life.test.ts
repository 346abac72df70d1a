import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { EditList, Forwarded, MessagePage, ReactionList } from '../src/modules/messages/schema.ts'
import { sql } from '../src/platform/db/db.ts'
import { Done } from '../src/platform/http/answers.ts'
import { ChatWithMembers, Message } from '../src/protocol/resources.ts'
import { checkChat, connect, nobody, ok, refusal, rest } from './support/check.ts'
import { type Account, startServers, type TestServers } from './support/server.ts'

/** Messages after they were sent: edited, deleted, answered, passed on. */

let servers: TestServers
beforeAll(async () => {
  servers = await startServers({ instances: 2 })
})
afterAll(() => servers.close())

const { get, post, patch, remove, put, people } = rest(() => servers)
const db = () => servers.instances[0]!.context.db
const say = (as: Account, chat_id: string, content = 'x', more: object = {}) =>
  ok(post(as, '/messages', { chat_id, content, ...more }), Message, 201)
const edit = (as: Account, id: string, content: string, at = 0) => patch(as, `/messages/${id}`, { content }, at)
const wipe = (as: Account, id: string, at = 0) => remove(as, `/messages/${id}`, at)
const view = (as: Account, id: string) => ok(get(as, `/messages/${id}`), Message)
const edits = async (as: Account, id: string) =>
  (await ok(get(as, `/messages/${id}/edits`), EditList)).edits.map((e) => e.content)
const history = async (as: Account, id: string) => (await ok(get(as, `/chats/${id}/messages?limit=100`), MessagePage)).messages

test('an edit replaces the text everywhere, and the texts before it are kept', async () => {
  const [a, b] = await people(2)
  const id = await servers.dm(a, b)
  const { id: message } = await say(a, id, 'first')
  const device = await connect(servers, b, { at: 1 })
  const edited = await ok(edit(a, message, 'second'), Message)
  expect([edited.content, edited.is_edited, edited.edited_at !== null, edited.seq]).toEqual(['second', true, true, 1])
  await ok(edit(a, message, 'third', 1), Message)
  const told = await device.waitFor('message_edited', (e) => e.message.content === 'third')
  expect(told).toMatchObject({ chat_id: id, prev: told.version - 1, message: { id: message, version: told.version } })
  expect(device.state.chats.get(id)?.messages.get(1)).toMatchObject({ content: 'third', is_edited: true })
  expect((await view(b, message)).content).toBe('third')
  expect(await edits(b, message)).toEqual(['first', 'second'])
  // The same text again is no change.
  const { version } = await checkChat(db(), id)
  await ok(edit(a, message, 'third'), Message)
  expect((await checkChat(db(), id)).version).toBe(version)
  // The times are those at which each text was written.
  const [first, second] = (await ok(get(a, `/messages/${message}/edits`), EditList)).edits
  expect(first!.edited_at).toBe(edited.created_at)
  expect(second!.edited_at).toBe(edited.edited_at)
})

test('only the last hundred texts of a message are kept', async () => {
  const [a] = await people(1)
  const id = await servers.dm(a, a)
  const { id: message } = await say(a, id, '0')
  for (let n = 1; n <= 105; n += 1) await edit(a, message, String(n))
  const kept = await edits(a, message)
  expect([kept.length, kept[0], kept.at(-1)]).toEqual([100, '5', '104'])
})

test('who may edit and delete: the sender; in a group owner and admins may delete', async () => {
  const [owner, admin, member, other, stranger] = await people(5)
  const id = await servers.group(owner, [admin, member, other])
  await patch(owner, `/chats/${id}/members/${admin.id}`, { role: 'admin' })
  const { id: message } = await say(member, id, 'mine')
  for (const who of [owner, admin, other]) expect(await refusal(edit(who, message, 'x'))).toBe('403 forbidden')
  expect(await refusal(wipe(other, message))).toBe('403 forbidden')
  for (const gone of [message, nobody]) {
    expect(await refusal(edit(stranger, gone, 'x'))).toBe('404 message_not_found')
    expect(await refusal(wipe(stranger, gone))).toBe('404 message_not_found')
    expect(await refusal(get(stranger, `/messages/${gone}/edits`))).toBe('404 message_not_found')
  }
  for (const content of ['', ' \n', 'x'.repeat(10_001), 1, null])
    expect(await refusal(patch(member, `/messages/${message}`, { content }))).toBe('400 invalid_input')
  expect(await view(member, message)).toMatchObject({ content: 'mine', is_edited: false })
  await ok(wipe(admin, message), Done)
  expect(await refusal(edit(member, message, 'x'))).toBe('409 message_deleted')
  // What the server wrote is nobody's.
  const [system] = await history(owner, id)
  for (const refused of [edit(owner, system!.id, 'x'), wipe(owner, system!.id)])
    expect(await refusal(refused)).toMatch(/^403 (not_editable|forbidden)$/)
  // Who has left has no say, about their own words either.
  const { id: last } = await say(member, id, 'last words')
  await ok(post(member, `/chats/${id}/leave`), Done)
  expect(await refusal(edit(member, last, 'x'))).toBe('404 message_not_found')
  expect(await refusal(wipe(member, last))).toBe('404 message_not_found')
  // In a direct chat nobody deletes what the other wrote.
  const dm = await servers.dm(owner, admin)
  const { id: theirs } = await say(owner, dm)
  expect(await refusal(wipe(admin, theirs))).toBe('403 forbidden')
  // Over the WebSocket it is the same.
  const device = await connect(servers, other, { at: 1 })
  await expect(device.ask({ type: 'edit', message_id: last, content: 'x' })).rejects.toMatchObject({ code: 'forbidden' })
  await expect(device.ask({ type: 'delete', message_id: last })).rejects.toMatchObject({ code: 'forbidden' })
  await expect(device.ask({ type: 'edit', message_id: theirs, content: 'x' })).rejects.toMatchObject({
    code: 'message_not_found',
  })
})

test('a deleted message keeps its place, and nothing of what it said is left', async () => {
  const [a, b, c] = await people(3)
  const id = await servers.group(a, [b, c])
  const original = await say(b, id, `secret @${c.username}`)
  const reply = await say(c, id, 'what?', { reply_to_id: original.id })
  await edit(b, original.id, `secret2 @${c.username}`)
  await ok(post(a, `/messages/${original.id}/reactions`, { emoji: '👍' }), ReactionList)
  await ok(put(a, `/chats/${id}/pins/${original.id}`), Message)
  const [device, quiet] = await Promise.all([connect(servers, c, { at: 1 }), connect(servers, a, { at: 0 })])
  expect(device.state.mentions(id)).toBe(1)
  const { total } = await ok(get(a, `/chats/${id}/messages`), MessagePage)
  await ok(wipe(b, original.id), Done)
  const told = await device.waitFor('message_deleted', (e) => e.message_id === original.id)
  expect(told).toMatchObject({ chat_id: id, seq: original.seq, prev: told.version - 1 })
  const gone = {
    content: '',
    mentions: [],
    reactions: [],
    reply_to: null,
    forwarded_from: null,
    is_edited: false,
    pinned_at: null,
  }
  expect(told.message).toMatchObject(gone)
  for (const viewer of [a, b, c]) {
    const seen = await view(viewer, original.id)
    expect(seen).toMatchObject({ ...gone, seq: original.seq, sender_id: b.id })
    expect(seen.deleted_at).not.toBeNull()
    expect(await edits(viewer, original.id)).toEqual([])
    expect((await view(viewer, reply.id)).reply_to).toMatchObject({ id: original.id, content: '', deleted: true })
  }
  expect((await ok(get(a, `/chats/${id}/messages`), MessagePage)).total).toBe(total)
  // Live clients show the quote as gone too, and count one less.
  expect(device.state.chats.get(id)?.messages.get(reply.seq)?.reply_to).toMatchObject({ content: '', deleted: true })
  await vi.waitFor(() => expect([device.state.unread(id), device.state.mentions(id)]).toEqual([0, 0]), 5_000)
  expect(quiet.state.chats.get(id)?.messages.get(original.seq)).toMatchObject({ content: '', reactions: [] })
  // Not a word in any table.
  const rows = await db().query<{ n: number }>(sql`
    SELECT (SELECT count(*) FROM messages WHERE content LIKE '%secret%') + (SELECT count(*) FROM message_edits WHERE chat_id = ${id})
      + (SELECT count(*) FROM message_reactions WHERE chat_id = ${id}) + (SELECT count(*) FROM message_mentions WHERE chat_id = ${id}) AS n`)
  expect(Number(rows[0]!.n)).toBe(0)
  // Again is no change.
  const { version } = await checkChat(db(), id)
  await ok(wipe(b, original.id), Done)
  expect((await checkChat(db(), id)).version).toBe(version)
  expect(await refusal(post(c, `/messages/${original.id}/reactions`, { emoji: '👍' }))).toBe('409 message_deleted')
  expect(await refusal(post(c, `/messages/${original.id}/forward`, { chat_ids: [id] }))).toBe('409 message_deleted')
  expect(await refusal(put(a, `/chats/${id}/pins/${original.id}`))).toBe('409 message_deleted')
  // Whoever answers it now quotes what is there.
  expect((await say(a, id, 'gone?', { reply_to_id: original.id })).reply_to).toMatchObject({ content: '', deleted: true })
})

test('a quote shows the message as it is now', async () => {
  const [a, b] = await people(2)
  const id = await servers.dm(a, b)
  const original = await say(a, id, '😀'.repeat(300))
  const reply = await say(b, id, 'yes', { reply_to_id: original.id })
  expect(reply.reply_to).toMatchObject({
    id: original.id,
    seq: 1,
    content: '😀'.repeat(200),
    deleted: false,
    sender: { id: a.id },
  })
  const device = await connect(servers, b)
  await edit(a, original.id, 'shorter')
  await device.waitFor('message_edited')
  expect(device.state.chats.get(id)?.messages.get(2)?.reply_to?.content).toBe('shorter')
  expect((await view(a, reply.id)).reply_to?.content).toBe('shorter')
})

test('a message goes on to several chats at once, with who wrote it first', async () => {
  const [a, b, c, stranger] = await people(4)
  const from = await servers.dm(a, b)
  const [one, two] = [await servers.group(b, [c]), await servers.dm(b, c)]
  const original = await say(a, from, 'pass it on', { reply_to_id: (await say(b, from)).id })
  const forward = (as: Account, id: string, chat_ids: string[], client_id?: string) =>
    post(as, `/messages/${id}/forward`, { chat_ids, ...(client_id && { client_id }) })
  const device = await connect(servers, c, { at: 1 })
  const client_id = randomUUID()
  const { messages } = await ok(forward(b, original.id, [one, two, one], client_id), Forwarded, 201)
  expect(messages.map((m) => m.chat_id)).toEqual([one, two])
  for (const message of messages) {
    expect(message).toMatchObject({ content: 'pass it on', sender_id: b.id, reply_to: null })
    expect(message.forwarded_from).toEqual({ sender: expect.objectContaining({ id: a.id }) })
  }
  const told = await device.waitFor('new_message', (e) => e.chat_id === two)
  expect(told.message.forwarded_from?.sender.id).toBe(a.id)
  // The same again sends nothing twice.
  const again = await ok(forward(b, original.id, [one, two], client_id), Forwarded, 201)
  expect(again.messages.map((m) => m.id)).toEqual(messages.map((m) => m.id))
  // Passed on once more, it is still by the first author.
  const further = await ok(forward(c, messages[0]!.id, [await servers.dm(c, c)]), Forwarded, 201)
  expect(further.messages[0]).toMatchObject({ sender_id: c.id, forwarded_from: { sender: { id: a.id } } })

  // One chat that is not mine, and nothing is sent at all.
  const before = await Promise.all([one, two].map((id) => checkChat(db(), id)))
  expect(await refusal(forward(b, original.id, [one, nobody]))).toBe('404 chat_not_found')
  expect(await refusal(forward(b, original.id, [two, await servers.dm(a, c)]))).toBe('404 chat_not_found')
  expect(await refusal(forward(stranger, original.id, [await servers.dm(stranger, stranger)]))).toBe('404 message_not_found')
  expect(await refusal(forward(b, nobody, [one]))).toBe('404 message_not_found')
  const [system] = await history(b, one)
  expect(await refusal(forward(b, system!.id, [two]))).toBe('403 not_editable')
  for (const chat_ids of [[], ['x'], undefined, Array.from({ length: 11 }, () => randomUUID())])
    expect(await refusal(post(b, `/messages/${original.id}/forward`, { chat_ids }))).toBe('400 invalid_input')
  expect(await Promise.all([one, two].map((id) => checkChat(db(), id)))).toEqual(before)
})

test('edit against delete: whatever comes first, the text is gone in the end', async () => {
  const [a, b, c] = await people(3)
  const id = await servers.group(a, [b, c])
  const device = await connect(servers, c, { at: 1 })
  let [edited, refused] = [0, 0]
  for (let round = 0; round < 40; round += 1) {
    const { id: message, seq } = await say(b, id, `text ${round}`)
    const [change, removal] = await Promise.all([
      edit(b, message, `changed ${round}`, round % 2),
      wipe(a, message, (round + 1) % 2),
    ])
    expect(removal.status).toBe(200)
    if (change.status === 200) edited += 1
    else expect([change.status, change.body.code]).toEqual([409, 'message_deleted'])
    if (change.status !== 200) refused += 1
    expect(await view(c, message)).toMatchObject({ content: '', is_edited: false })
    expect(await edits(c, message)).toEqual([])
    await device.waitFor('message_deleted', (e) => e.seq === seq)
    expect(device.state.chats.get(id)?.messages.get(seq)).toMatchObject({ content: '', is_edited: false })
  }
  expect([edited > 0, refused > 0]).toEqual([true, true])
  await checkChat(db(), id)
})

test('delete against reply: a reply never shows what was deleted before it was told', async () => {
  const [a, b] = await people(2)
  const id = await servers.dm(a, b)
  const device = await connect(servers, b, { at: 1 })
  let [after, before] = [0, 0]
  for (let round = 0; round < 40; round += 1) {
    const { id: message, seq } = await say(a, id, `secret ${round}`)
    const replying = sleep(round % 4).then(() => say(b, id, 'so?', { reply_to_id: message }))
    const [reply] = await Promise.all([replying, wipe(a, message, 1)])
    await device.waitFor('message_deleted', (e) => e.seq === seq)
    await device.waitFor('new_message', (e) => e.message.id === reply.id)
    const told = device.events.flatMap((e) => (e.type === 'new_message' && e.message.id === reply.id ? [e] : []))[0]!
    const deletion = device.events.flatMap((e) => (e.type === 'message_deleted' && e.seq === seq ? [e] : []))[0]!
    if (told.version > deletion.version) after += 1
    else before += 1
    if (told.version > deletion.version) expect(told.message.reply_to).toMatchObject({ content: '', deleted: true })
    expect(device.state.chats.get(id)?.messages.get(reply.seq)?.reply_to).toMatchObject({ content: '', deleted: true })
  }
  // The race was one: it went either way.
  expect([after > 0, before > 0]).toEqual([true, true])
  const fresh = await connect(servers, b)
  for (const message of fresh.state.chats.get(id)!.messages.values())
    if (message.reply_to) expect(message.reply_to).toMatchObject({ content: '', deleted: true })
})

test('whoever was away hears of changes to messages old and new', async () => {
  const [a, b] = await people(2)
  const id = await servers.dm(a, b)
  const sent: { id: string; seq: number }[] = []
  for (let n = 0; n < 60; n += 1) sent.push(await say(a, id, `${n}`))
  const away = await connect(servers, b)
  away.close()
  await edit(a, sent[3]!.id, 'edited')
  await ok(wipe(a, sent[50]!.id), Done)
  await edit(a, sent[55]!.id, 'edited')
  const extra = await say(a, id, 'new')
  await edit(a, extra.id, 'new, edited')
  await away.connect()
  const state = away.state.chats.get(id)!
  expect(state.messages.get(sent[50]!.seq)).toMatchObject({ content: '' })
  expect(state.messages.get(sent[55]!.seq)).toMatchObject({ content: 'edited' })
  expect(state.messages.get(extra.seq)).toMatchObject({ content: 'new, edited', is_edited: true })
  expect(away.state.unread(id)).toBe((await ok(get(b, `/chats/${id}`), ChatWithMembers)).unread_count)
})
