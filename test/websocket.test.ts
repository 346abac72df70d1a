import { request } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import type { ClientOptions } from 'ws'
import { errors } from '../src/protocol/errors.ts'
import { type Account, startServers, type TestServers } from './support/server.ts'
import { Wire } from './support/wire.ts'

/** Handshake, signing in, the form of frames and what is refused: the protocol to the letter. */

let servers: TestServers
let anna: Account
let ben: Account
let chat: string
const wires: Wire[] = []

beforeAll(async () => {
  servers = await startServers({
    env: { CORS_ORIGINS: 'https://web.example', RATE_LIMIT_FRAME: '50/1s', ACCESS_TOKEN_TTL: '4s' },
  })
  ;[anna, ben] = [await servers.register('anna'), await servers.register('ben')]
  chat = await servers.dm(anna, ben)
})
afterEach(() => {
  for (const wire of wires.splice(0)) wire.end()
})
afterAll(() => servers.close())

const fresh = async (account: Account) => (await servers.login(account)).token
const url = () => servers.instances[0]!.url

function open(token?: string, options?: ClientOptions): Wire {
  const wire = new Wire(url(), token === undefined ? '/ws' : `/ws?token=${token}`, options)
  wires.push(wire)
  return wire
}

async function ready(account: Account, options?: ClientOptions): Promise<Wire> {
  const wire = open(await fresh(account), options)
  await wire.type('user_chats')
  return wire
}

test('ready, then user_chats, by the token of the query', async () => {
  const wire = await ready(anna)
  expect(wire.frames.map((frame) => frame.type)).toEqual(['ready', 'user_chats'])
  expect(wire.frames[0]).toMatchObject({ user_id: anna.id, heartbeat: 25, session_id: expect.any(String) })
  expect(wire.frames[1]).toEqual({ type: 'user_chats', chat_ids: [chat] })
})

test('frames sent right after the handshake are carried out after ready, in their order', async () => {
  const wire = open(await fresh(anna))
  await wire.opened
  for (let n = 0; n < 5; n += 1) wire.send({ type: 'message', id: `m${n}`, chat_id: chat, content: `early ${n}` })
  await wire.next((frame) => frame.id === 'm4')
  expect(wire.frames[0]!.type).toBe('ready')
  const acks = wire.frames.filter((frame) => frame.type === 'ack')
  expect(acks.map((frame) => frame.id)).toEqual(['m0', 'm1', 'm2', 'm3', 'm4'])
})

test('the first frame signs in, what was sent behind it waits', async () => {
  const wire = open()
  await wire.opened
  wire.send({ type: 'auth', token: await fresh(anna), id: 'a' })
  wire.send({ type: 'ping', id: 'p' })
  await wire.next((frame) => frame.id === 'p')
  expect(wire.frames.map((frame) => frame.type)).toEqual(['ready', 'user_chats', 'ack', 'pong'])
})

test('before signing in every command is refused and changes nothing', async () => {
  const wire = open()
  await wire.opened
  expect(await wire.ask({ type: 'message', chat_id: chat, content: 'no' })).toMatchObject({ type: 'error', code: 'unauthorized' })
  expect(await wire.ask({ type: 'ping' })).toMatchObject({ type: 'error', code: 'unauthorized' })
  expect(await wire.ask({ type: 'auth' })).toMatchObject({
    type: 'error',
    code: 'invalid_input',
    details: { token: 'is required' },
  })
})

test('no token within 5 s, a bad one and an expired one', async () => {
  const begun = Date.now()
  const silent = open()
  const empty = open('')
  const bad = open('nonsense')
  const badFirst = open()
  await badFirst.opened
  badFirst.send({ type: 'auth', token: 'nonsense' })
  const old = await fresh(anna)
  const survivor = open(old)
  const renewed = open(old)
  await renewed.type('ready')
  expect(await bad.closed()).toBe(4001)
  expect(await empty.closed()).toBe(4001)
  expect(await badFirst.closed()).toBe(4001)
  // A token of the same session comes by refreshing; one of another session is refused and changes nothing.
  const session = await servers.login(anna)
  const mine = open(session.token)
  await mine.type('ready')
  expect(await mine.ask({ type: 'auth', token: await fresh(anna) })).toMatchObject({ type: 'error', code: 'invalid_token' })
  expect(await mine.ask({ type: 'auth', token: await fresh(ben) })).toMatchObject({ type: 'error', code: 'invalid_token' })
  expect(await mine.ask({ type: 'auth', token: 'nonsense' })).toMatchObject({ type: 'error', code: 'invalid_token' })
  await sleep(1_500)
  const { body } = await servers.call<{ token: string }>('POST', '/auth/refresh', {
    body: { refresh_token: session.refresh_token },
  })
  const signedInAt = Date.now()
  expect(await mine.ask({ type: 'auth', token: body.token })).toMatchObject({ type: 'ack', expires_at: expect.any(String) })
  // The others' token ends 4 s after it was made.
  expect(await survivor.closed()).toBe(4003)
  expect(await renewed.closed()).toBe(4003)
  expect(mine.code).toBeUndefined()
  expect(await open(old).closed()).toBe(4003)
  expect(await silent.closed()).toBe(4001)
  expect(Date.now() - begun).toBeGreaterThan(4_900)
  expect(await mine.closed()).toBe(4003)
  expect(Date.now() - signedInAt).toBeGreaterThan(2_900)
})

test('commands are answered by their id, without one only errors are', async () => {
  const wire = await ready(anna)
  wire.send({ type: 'typing', chat_id: chat })
  wire.send({ type: 'leave_chat', chat_id: chat })
  wire.send({ type: 'message', chat_id: chat, content: 'quiet' })
  wire.send({ type: 'ping' })
  wire.send({ type: 'message', chat_id: chat, content: ' ' })
  const refused = await wire.type('error')
  expect(refused).toEqual({ type: 'error', code: 'invalid_input', error: errors.invalid_input[1], details: expect.any(Object) })
  await wire.next((frame) => (frame.message as { content?: string } | undefined)?.content === 'quiet')
  expect(await wire.ask({ type: 'ping' })).toEqual({ type: 'pong', id: expect.any(String), timestamp: expect.any(Number) })
  expect(wire.frames.filter((frame) => frame.type === 'pong')).toHaveLength(2)
  expect(wire.frames.filter((frame) => frame.type === 'ack')).toHaveLength(0)
})

test('a message is acknowledged whole, and comes to the socket that sent it too', async () => {
  const wire = await ready(anna)
  const ack = await wire.ask({ type: 'message', chat_id: chat, content: ' *as it is*\r\n\u{1f468}‍\u{1f469} ' })
  expect(ack).toMatchObject({
    type: 'ack',
    message: { content: ' *as it is*\r\n\u{1f468}‍\u{1f469} ', status: 'sent', sender_id: anna.id },
  })
  const { id } = ack.message as { id: string }
  const event = await wire.next((frame) => frame.type === 'new_message' && (frame.message as { id: string }).id === id)
  for (const own of ['status', 'delivered_count', 'read_count']) expect(event.message).not.toHaveProperty(own)
})

test('a binary frame, a frame too large, and one just small enough', async () => {
  const binary = await ready(anna)
  binary.send(Buffer.from('{"type":"ping"}'))
  expect(await binary.closed()).toBe(1003)
  const large = await ready(anna)
  large.send('x'.repeat(65_537))
  expect(await large.closed()).toBe(1009)
  const huge = await ready(anna)
  huge.send('x'.repeat(8_000_000))
  expect(await huge.closed()).toBe(1009)
  const fragments = await ready(anna)
  for (let n = 0; n < 5; n += 1) fragments.socket.send('x'.repeat(20_000), { fin: n === 4 })
  expect(await fragments.closed()).toBe(1009)
  const fitting = await ready(anna)
  fitting.send(`{"type":"ping","id":"p"${' '.repeat(65_536 - 24)}}`)
  expect(await fitting.next((frame) => frame.id === 'p')).toMatchObject({ type: 'pong' })
})

test('text that is no UTF-8 ends the connection', async () => {
  const wire = await ready(anna)
  wire.socket.send(Buffer.from([0x7b, 0xff, 0x7d]), { binary: false })
  expect(await wire.closed()).toBe(1007)
})

test('a thousand frames at once end their connection with 4009, and no other', async () => {
  const calm = await ready(ben)
  const flood = await ready(anna)
  for (let n = 0; n < 1_000; n += 1) flood.send({ type: 'ping' })
  expect(await flood.closed()).toBe(4009)
  expect(flood.frames.filter((frame) => frame.type === 'pong').length).toBeLessThanOrEqual(260)
  expect(await calm.ask({ type: 'ping' })).toMatchObject({ type: 'pong' })
  const back = await ready(anna)
  expect(await back.ask({ type: 'message', chat_id: chat, content: 'after the flood' })).toMatchObject({ type: 'ack' })
  // Before signing in as well.
  const stranger = open()
  await stranger.opened
  for (let n = 0; n < 1_000; n += 1) stranger.send('{}')
  expect(await stranger.closed()).toBe(4009)
})

test('of one session, fifty connections; the oldest makes room', async () => {
  const token = await fresh(anna)
  const other = await ready(anna)
  const mine: Wire[] = []
  for (let n = 0; n < 52; n += 1) {
    const wire = open(token)
    await wire.type('user_chats')
    mine.push(wire)
  }
  expect(await Promise.all(mine.slice(0, 2).map((wire) => wire.closed()))).toEqual([4010, 4010])
  for (const wire of [mine[2]!, mine[51]!, other]) expect(await wire.ask({ type: 'ping' })).toMatchObject({ type: 'pong' })
})

test('a burst of 200 frames is within the limit', async () => {
  const wire = await ready(anna)
  for (let n = 0; n < 190; n += 1) wire.send({ type: 'ping', id: `${n}` })
  await wire.next((frame) => frame.id === '189')
  expect(wire.frames.filter((frame) => frame.type === 'pong')).toHaveLength(190)
})

test('browsers may connect from here and from the origins that are named', async () => {
  const token = await fresh(anna)
  for (const origin of ['https://web.example', url(), url().replace('http', 'https')]) {
    await open(token, { origin }).type('ready')
  }
  for (const origin of [
    'https://evil.example',
    'https://web.example.evil.example',
    'http://web.example',
    'null',
    'https://127.0.0.1',
  ]) {
    await expect(open(token, { origin }).opened, origin).rejects.toThrow('403')
  }
  const answer = await new Promise<{ status: number | undefined; text: string }>((resolve) => {
    const headers = {
      origin: 'https://evil.example',
      connection: 'upgrade',
      upgrade: 'websocket',
      'sec-websocket-version': '13',
      'sec-websocket-key': Buffer.alloc(16).toString('base64'),
    }
    request(`${url()}/ws`, { headers }, (response) => {
      let text = ''
      response.on('data', (chunk) => {
        text += chunk
      })
      response.on('end', () => resolve({ status: response.statusCode, text }))
    }).end()
  })
  expect(answer.status).toBe(403)
  expect(JSON.parse(answer.text)).toMatchObject({ code: 'origin_not_allowed', request_id: expect.any(String) })
})

test('without an upgrade it is 426', async () => {
  const response = await fetch(`${url()}/ws`)
  expect(response.status).toBe(426)
  expect(await response.json()).toMatchObject({ code: 'upgrade_required', request_id: expect.any(String) })
})
