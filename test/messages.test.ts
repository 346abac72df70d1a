import { afterAll, beforeAll, expect, test } from 'vitest'
import { MessagePage, StatusAnswer } from '../src/modules/messages/schema.ts'
import { Done } from '../src/platform/http/answers.ts'
import { ChatWithMembers, Message } from '../src/protocol/resources.ts'
import { checkChat, connect, nobody, ok, refusal, rest } from './support/check.ts'
import { type Account, startServers, type TestServers } from './support/server.ts'

let servers: TestServers
let x: Account
let y: Account
let stranger: Account
let chat: string
beforeAll(async () => {
  servers = await startServers({ instances: 2 })
  ;[x, y, stranger] = await people(3)
  chat = await servers.dm(x, y)
})
afterAll(() => servers.close())

const { get, post, remove, people } = rest(() => servers)
const send = (as: Account, body: object, at = 0) => post(as, '/messages', { chat_id: chat, content: 'x', ...body }, at)
const say = (as: Account, body: object, at = 0) => ok(send(as, body, at), Message, 201)
const page = (as: Account, query = '', id = chat) => ok(get(as, `/chats/${id}/messages${query}`), MessagePage)

test('a message is answered, told and kept exactly as it was sent', async () => {
  const reader = await connect(servers, y, { at: 1 })
  const writer = await connect(servers, x)
  const contents = [
    'a',
    '  around  \r\n\t',
    '*bold* _it_ `code` <b>&amp;</b> https://example.org/?a=1&b=2',
    'e\u0301 \u00e9 \u200d\u200e\u202e שלום 你好 👩‍👩‍👧‍👦',
    '\u0001\u001f\u007f\ufeff\u2028"\\',
    `'; DROP TABLE messages; --`,
    '👍'.repeat(10_000),
    'ü'.repeat(10_000),
    '\u0001'.repeat(10_000),
  ]
  for (const [n, content] of contents.entries()) {
    const sent = n % 2 ? await writer.send(chat, content) : await say(x, { content })
    expect([sent.content, sent.sender_id, sent.message_type, sent.status]).toEqual([content, x.id, 'text', 'sent'])
    expect([sent.reply_to, sent.edited_at, sent.deleted_at, sent.system, sent.is_edited]).toEqual([null, null, null, null, false])
    const { message, version, prev } = await reader.waitFor('new_message', (e) => e.message.id === sent.id)
    expect([message.content, message.version, version, prev]).toEqual([content, sent.version, sent.version, sent.version - 1])
    // The sending socket hears it, too.
    await writer.waitFor('new_message', (e) => e.message.id === sent.id)
    expect((await ok(get(y, `/messages/${sent.id}`), Message)).content).toBe(content)
  }
  expect((await page(y)).messages.map((m) => m.content)).toEqual(contents)
})

test('what is no message is refused the same over REST and WebSocket, and takes no number', async () => {
  const device = await connect(servers, x)
  const before = (await page(x)).total
  for (const bad of [
    { content: '' },
    { content: ' \n\t\u00a0\u3000' },
    { content: 'x'.repeat(10_001) },
    { content: '👍'.repeat(10_001) },
    { content: 'a\0b' },
    { content: '\ud83d' },
    { content: 5 },
    { content: null },
    { content: undefined },
    { message_type: 'system' },
    { message_type: 'call' },
    { client_id: 'mine' },
    { reply_to_id: 'x' },
    { chat_id: 'x' },
    { sender_id: y.id },
    { seq: 1 },
  ]) {
    const what = JSON.stringify(bad).slice(0, 60)
    expect(await refusal(send(x, bad)), what).toBe('400 invalid_input')
    const asked = device.ask({ type: 'message', chat_id: chat, content: 'x', ...bad })
    await expect(asked, what).rejects.toMatchObject({ code: 'invalid_input' })
  }
  for (const [as, chat_id] of [
    [stranger, chat],
    [x, nobody],
  ] as const) {
    expect(await refusal(send(as, { chat_id }))).toBe('404 chat_not_found')
    expect(await refusal(get(as, `/chats/${chat_id}/messages`))).toBe('404 chat_not_found')
  }
  expect(await refusal(servers.call('POST', '/messages', { body: { chat_id: chat, content: 'x' } }))).toBe('401 unauthorized')
  await expect(device.ask({ type: 'message', chat_id: nobody, content: 'x' })).rejects.toMatchObject({ code: 'chat_not_found' })
  expect((await page(x)).total).toBe(before)
  await checkChat(servers.instances[0]!.context.db, chat)
})

test('the same client_id is the same message, for one sender in one chat', async () => {
  const client_id = crypto.randomUUID()
  const first = await say(x, { content: 'first', client_id })
  expect(first.client_id).toBe(client_id)
  // Another content does not make it another message, nor does another instance or the socket.
  for (const at of [0, 1])
    expect(await ok(send(x, { content: 'second', client_id: client_id.toUpperCase() }, at), Message)).toEqual(first)
  const device = await connect(servers, x, { at: 1 })
  const ack = await device.ask({ type: 'message', chat_id: chat, content: 'third', client_id })
  expect(ack).toMatchObject({ duplicate: true, message: { id: first.id, content: 'first' } })
  expect((await say(y, { client_id })).id).not.toBe(first.id)
  expect((await say(x, { client_id, chat_id: await servers.dm(x, stranger) })).id).not.toBe(first.id)
  // Read meanwhile, it is answered as it stands.
  await ok(post(y, `/messages/status`, { message_id: first.id, status: 'read' }), StatusAnswer)
  expect((await ok(send(x, { client_id }), Message)).status).toBe('read')
  expect((await say(x, {})).client_id).not.toBe((await say(x, {})).client_id)
})

test('a reply quotes a message of the same chat', async () => {
  const long = await say(x, { content: `${'👍'.repeat(199)}ab${'c'.repeat(50)}` })
  const reply = await say(y, { content: 're', reply_to_id: long.id })
  const { id, username } = x
  expect(reply.reply_to).toEqual({
    id: long.id,
    seq: long.seq,
    sender: { id, username, display_name: username, avatar_url: null },
    content: `${'👍'.repeat(199)}a`,
    message_type: 'text',
    deleted: false,
  })
  const device = await connect(servers, x, { at: 1 })
  const again = await device.send(chat, 'rere', undefined, { reply_to_id: reply.id.toUpperCase() })
  expect([again.reply_to?.id, again.reply_to?.content]).toEqual([reply.id, 're'])
  expect((await page(x, '?limit=1')).messages).toEqual([again])
  const elsewhere = await say(x, { chat_id: await servers.dm(x, x) })
  for (const reply_to_id of [nobody, elsewhere.id]) {
    expect(await refusal(send(x, { reply_to_id }))).toBe('400 invalid_reply')
    await expect(device.send(chat, 'x', undefined, { reply_to_id })).rejects.toMatchObject({ code: 'invalid_reply' })
  }
})

test('history: every page is a range of numbers, whichever way it is asked for', async () => {
  const [a, b] = await people(2)
  const id = await servers.dm(a, b)
  expect(await page(a, '', id)).toEqual({ messages: [], total: 0, limit: 50, offset: 0, has_more: false, version: 2 })
  for (const query of ['?before=1', '?after=0', '?around=0', '?around=7', '?offset=3']) {
    expect(await page(a, query, id)).toMatchObject({ messages: [], has_more: false })
  }
  const device = await connect(servers, a)
  const sent = await Promise.all(Array.from({ length: 120 }, (_, n) => device.send(id, `m${n + 1}`)))
  expect(sent.map((m) => m.seq)).toEqual(Array.from({ length: 120 }, (_, n) => n + 1))
  const expected: Record<string, [first: number, last: number, more: boolean]> = {
    '': [71, 120, true],
    '?limit=1': [120, 120, true],
    '?limit=100': [21, 120, true],
    '?before=121&limit=100': [21, 120, true],
    '?before=1000&limit=2': [119, 120, true],
    '?before=52': [2, 51, true],
    '?before=51': [1, 50, false],
    '?before=2': [1, 1, false],
    '?before=1': [0, 0, false],
    '?before=0': [0, 0, false],
    '?after=0': [1, 50, true],
    '?after=70': [71, 120, false],
    '?after=69': [70, 119, true],
    '?after=119': [120, 120, false],
    '?after=120': [0, 0, false],
    '?after=999999999999999': [0, 0, false],
    '?around=60&limit=5': [58, 62, true],
    '?around=60&limit=1': [60, 60, true],
    '?around=60&limit=2': [59, 60, true],
    '?around=1&limit=5': [1, 5, true],
    '?around=0&limit=5': [1, 5, true],
    '?around=120&limit=5': [118, 120, true],
    '?around=5000&limit=5': [118, 120, true],
    '?offset=50': [21, 70, true],
    '?offset=119': [1, 1, false],
    '?offset=120': [0, 0, false],
    '?offset=999999999999999': [0, 0, false],
    '?offset=10&before=61&limit=10': [51, 60, true],
  }
  for (const [query, [first, last, more]] of Object.entries(expected)) {
    const { messages, total, has_more, version } = await page(b, query, id)
    const range = first === 0 ? [] : Array.from({ length: last - first + 1 }, (_, n) => first + n)
    expect([messages.map((m) => m.seq), has_more], query).toEqual([range, more])
    expect([total, version], query).toEqual([120, 122])
  }
  for (const query of [
    'limit=0',
    'limit=101',
    'limit=x',
    'limit=1.5',
    'before=-1',
    'after=',
    'around=1e3',
    'offset=-1',
    'page=2',
  ]) {
    expect(await refusal(get(a, `/chats/${id}/messages?${query}`)), query).toBe('400 invalid_input')
  }
  for (const query of ['before=1&after=1', 'after=1&around=1', 'before=9&around=1', 'limit=1&limit=2']) {
    expect(await refusal(get(a, `/chats/${id}/messages?${query}`)), query).toBe('400 invalid_input')
  }
  const walked: string[] = []
  for (let before = 1_000, more = true; more; ) {
    const { messages, has_more } = await page(b, `?before=${before}&limit=33`, id)
    walked.unshift(...messages.map((m) => m.content))
    before = messages[0]!.seq
    more = has_more
  }
  expect(walked).toEqual(sent.map((m) => m.content))
})

test('one message: for members of its chat', async () => {
  const sent = await say(x, { content: 'mine' })
  expect(await ok(get(y, `/messages/${sent.id}`), Message)).toEqual(sent)
  expect(await refusal(get(stranger, `/messages/${sent.id}`))).toBe('404 message_not_found')
  expect(await refusal(get(x, `/messages/${nobody}`))).toBe('404 message_not_found')
  expect(await refusal(get(x, `/messages/${sent.seq}`))).toBe('400 invalid_input')
  for (const body of [{ message_id: sent.id }, { message_id: 'x', status: 'read' }, { message_id: sent.id, status: 'sent' }])
    expect(await refusal(post(y, '/messages/status', body))).toBe('400 invalid_input')
  for (const [as, message_id] of [
    [stranger, sent.id],
    [y, nobody],
  ] as const)
    expect(await refusal(post(as, '/messages/status', { message_id, status: 'read' }))).toBe('404 message_not_found')

  const group = await servers.group(x, [y])
  const system = (await page(y, '', group)).messages[0]!
  expect(await ok(get(y, `/messages/${system.id}`), Message)).toMatchObject({ message_type: 'system', content: '', seq: 1 })
  await ok(remove(x, `/chats/${group}/members/${y.id}`), Done)
  expect(await refusal(get(y, `/messages/${system.id}`))).toBe('404 message_not_found')
  expect(await refusal(post(y, '/messages/status', { message_id: system.id, status: 'read' }))).toBe('404 message_not_found')
  expect(await refusal(send(y, { chat_id: group }, 1))).toBe('404 chat_not_found')
  expect((await ok(get(x, `/chats/${group}`), ChatWithMembers)).last_message?.system?.action).toBe('member_removed')
})
