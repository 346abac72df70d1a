import { afterAll, beforeAll, expect, test } from 'vitest'
import { errors } from '../src/protocol/errors.ts'
import { type Account, startServers, type TestServers } from './support/server.ts'
import { Wire } from './support/wire.ts'

/** Frames that are wrong, each in its own way: refused with the documented code, and nothing is changed. */

let servers: TestServers
let anna: Account
let ben: Account
let chat: string
let a: Wire
let b: Wire

beforeAll(async () => {
  servers = await startServers()
  ;[anna, ben] = [await servers.register('anna'), await servers.register('ben')]
  chat = await servers.dm(anna, ben)
  ;[a, b] = [anna, ben].map(({ token }) => new Wire(servers.instances[0]!.url, `/ws?token=${token}`)) as [Wire, Wire]
  await Promise.all([a.type('user_chats'), b.type('user_chats')])
  expect(await a.ask({ type: 'message', chat_id: chat, content: 'the only one' })).toMatchObject({ type: 'ack' })
})
afterAll(async () => {
  a.end()
  b.end()
  await servers.close()
})

const total = async () => {
  const { body } = await servers.call<{ total: number }>('GET', `/chats/${chat}/messages`, { as: anna })
  return body.total
}

const other = '01890a5d-ac96-774b-bcce-b302099a8057'
const cases: [what: string, frame: string, code: string, field?: string][] = [
  ['broken JSON', '{"type":', 'malformed_frame'],
  ['nothing', '', 'malformed_frame'],
  ['an array', '[{"type":"ping"}]', 'malformed_frame'],
  ['null', 'null', 'malformed_frame'],
  ['a string', '"ping"', 'malformed_frame'],
  ['a prototype key', '{"type":"ping","__proto__":{"admin":true}}', 'malformed_frame'],
  ['a constructor key', '{"type":"ping","constructor":{"prototype":{"admin":true}}}', 'malformed_frame'],
  ['depth', `{"type":"ping","x":${'['.repeat(20_000)}${']'.repeat(20_000)}}`, 'invalid_input', 'x'],
  ['no type', '{}', 'unknown_type'],
  ['a type that is no string', '{"type":{"toString":"ping"}}', 'unknown_type'],
  ['an unknown type', '{"type":"drop"}', 'unknown_type'],
  ['a type from the prototype', '{"type":"hasOwnProperty"}', 'unknown_type'],
  ['an event as command', '{"type":"new_message"}', 'unknown_type'],
  ['an unknown field', '{"type":"ping","admin":true}', 'invalid_input', 'admin'],
  ['an id that is a number', '{"type":"ping","id":1}', 'invalid_input', 'id'],
  ['an empty id', '{"type":"ping","id":""}', 'invalid_input', 'id'],
  ['an id too long', `{"type":"ping","id":"${'x'.repeat(101)}"}`, 'invalid_input', 'id'],
  ['a missing chat', '{"type":"message","content":"x"}', 'invalid_input', 'chat_id'],
  ['a chat that is no UUID', '{"type":"message","chat_id":"1","content":"x"}', 'invalid_input', 'chat_id'],
  ['a chat with SQL', `{"type":"read","chat_id":"${other}'--"}`, 'invalid_input', 'chat_id'],
  ['a chat that is not there', `{"type":"message","chat_id":"${other}","content":"x"}`, 'chat_not_found'],
  ['reading a chat that is not there', `{"type":"read","chat_id":"${other}"}`, 'chat_not_found'],
  ['delivery in a chat that is not there', `{"type":"delivered","chat_id":"${other}"}`, 'chat_not_found'],
  ['typing in a chat that is not there', `{"type":"typing","chat_id":"${other}"}`, 'chat_not_found'],
  ['opening a chat that is not there', `{"type":"join_chat","chat_id":"${other}"}`, 'chat_not_found'],
  ['text that is a list', '{"type":"message","chat_id":"CHAT","content":["x"]}', 'invalid_input', 'content'],
  ['empty text', '{"type":"message","chat_id":"CHAT","content":""}', 'invalid_input', 'content'],
  ['white space', '{"type":"message","chat_id":"CHAT","content":" \\n\\u00a0\\u3000"}', 'invalid_input', 'content'],
  [
    'nothing that is seen',
    '{"type":"message","chat_id":"CHAT","content":"\\u200b\\u2060 \\u202e\\ufe0f\\u3164"}',
    'invalid_input',
    'content',
  ],
  ['text too long', `{"type":"message","chat_id":"CHAT","content":"${'x'.repeat(10_001)}"}`, 'invalid_input', 'content'],
  ['NUL', '{"type":"message","chat_id":"CHAT","content":"a\\u0000b"}', 'invalid_input', 'content'],
  ['half a surrogate', '{"type":"message","chat_id":"CHAT","content":"a\\ud800b"}', 'invalid_input', 'content'],
  [
    'a forged system message',
    '{"type":"message","chat_id":"CHAT","content":"x","message_type":"system"}',
    'invalid_input',
    'message_type',
  ],
  ['a forged call', '{"type":"message","chat_id":"CHAT","content":"x","message_type":"call"}', 'invalid_input', 'message_type'],
  ['another sender', `{"type":"message","chat_id":"CHAT","content":"x","sender_id":"${other}"}`, 'invalid_input', 'sender_id'],
  [
    'a client_id that is no UUID',
    '{"type":"message","chat_id":"CHAT","content":"x","client_id":"1"}',
    'invalid_input',
    'client_id',
  ],
  ['a reply to nothing', `{"type":"message","chat_id":"CHAT","content":"x","reply_to_id":"${other}"}`, 'invalid_reply'],
  ['seq below zero', '{"type":"read","chat_id":"CHAT","seq":-1}', 'invalid_input', 'seq'],
  ['half a seq', '{"type":"read","chat_id":"CHAT","seq":1.5}', 'invalid_input', 'seq'],
  ['seq as text', '{"type":"read","chat_id":"CHAT","seq":"1"}', 'invalid_input', 'seq'],
  ['infinite seq', '{"type":"read","chat_id":"CHAT","seq":1e400}', 'invalid_input', 'seq'],
  ['seq past 2^53', '{"type":"delivered","chat_id":"CHAT","seq":9007199254740993}', 'invalid_input', 'seq'],
  ['typing as text', '{"type":"typing","chat_id":"CHAT","is_typing":"yes"}', 'invalid_input', 'is_typing'],
  ['sync with a list', '{"type":"sync","chats":[]}', 'invalid_input', 'chats'],
  ['sync with a name', '{"type":"sync","chats":{"x":1}}', 'invalid_input', 'chats.x'],
  ['sync with a limit of 0', '{"type":"sync","limit":0}', 'invalid_input', 'limit'],
  ['sync with a version of infinity', '{"type":"sync","user_version":1e999}', 'invalid_input', 'user_version'],
]

test('what is wrong is refused with its code, and changes nothing', async () => {
  const before = await total()
  for (const [what, text, code, field] of cases) {
    a.frames.length = 0
    a.send(text.replace('CHAT', chat))
    const error = await a.next((frame) => frame.type !== 'online_status')
    expect(error, what).toMatchObject({ type: 'error', code, error: errors[code as keyof typeof errors][1] })
    if (field !== undefined) expect(Object.keys(error.details as object), what).toContain(field)
    expect(
      Object.keys(error).filter((key) => !['type', 'id', 'code', 'error', 'details'].includes(key)),
      what,
    ).toEqual([])
  }
  expect(await total()).toBe(before)
  expect(await a.ask({ type: 'ping' })).toMatchObject({ type: 'pong' })
})

test('cursors never pass the last message, whatever is asked', async () => {
  const last = await total()
  expect(await b.ask({ type: 'read', chat_id: chat, seq: Number.MAX_SAFE_INTEGER })).toMatchObject({
    type: 'ack',
    read_seq: last,
  })
  expect(await b.ask({ type: 'read', chat_id: chat, seq: 0 })).toMatchObject({ type: 'ack', read_seq: last })
})
