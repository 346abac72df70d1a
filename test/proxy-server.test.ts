/** Parley itself behind the repository's Caddyfile: what people do, over https and wss. */
import { once } from 'node:events'
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { WebSocket } from 'ws'
import { type Caddy, startCaddy } from './support/caddy.ts'
import { startServers, type TestServers } from './support/server.ts'

let servers: TestServers
let caddy: Caddy

beforeAll(async () => {
  servers = await startServers({ env: { TRUST_PROXY: '127.0.0.1' } })
  caddy = await startCaddy(Number(new URL(servers.instances[0]!.url).port))
}, 360_000)

afterAll(async () => {
  await caddy?.stop()
  await servers?.close()
})

async function post(path: string, body: object, token?: string, options: { localAddress?: string } = {}) {
  const answer = await caddy.get(`/api/v1${path}`, {
    ...options,
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      'x-forwarded-for': '203.0.113.9',
      ...(token && { authorization: `Bearer ${token}` }),
    },
    body: Buffer.from(JSON.stringify(body)),
  })
  return { status: answer.status, body: JSON.parse(String(answer.body)) }
}

/** Resolves with the first frame of each type; several may come in one write. */
function listen(socket: WebSocket): (type: string) => Promise<Record<string, unknown>> {
  const frames: Record<string, unknown>[] = []
  socket.on('message', (data: Buffer) => frames.push(JSON.parse(String(data))))
  return async (type) => {
    await expect.poll(() => frames.some((frame) => frame.type === type), { timeout: 5_000 }).toBe(true)
    return frames.find((frame) => frame.type === type)!
  }
}

it('lets two people talk over https and wss', async () => {
  const anna = (
    await post('/auth/register', { username: 'anna_tls', password: 'Secret123' }, undefined, { localAddress: '127.0.0.7' })
  ).body
  const ben = (await post('/auth/register', { username: 'ben_tls', password: 'Secret123' })).body
  const chat = (await post('/chats', { type: 'dm', member_ids: [ben.user_id] }, anna.token)).body
  const socket = caddy.socket(`/ws?token=${ben.token}`, { origin: 'https://chat.test' })
  const first = listen(socket)
  await first('user_chats')

  const sent = await post('/messages', { chat_id: chat.id, content: 'over TLS' }, anna.token)
  expect(sent.status).toBe(201)
  expect(await first('new_message')).toMatchObject({ message: { id: sent.body.id, content: 'over TLS' } })

  socket.send(JSON.stringify({ type: 'message', id: '1', chat_id: chat.id, content: 'and back' }))
  expect(await first('ack')).toMatchObject({ id: '1', message: { seq: 2 } })
  socket.close()
  await once(socket, 'close')

  // The device list shows where Anna really came from, not what her header claimed.
  const devices = await caddy.get('/api/v1/auth/sessions', { headers: { authorization: `Bearer ${anna.token}` } })
  expect(JSON.parse(String(devices.body)).sessions).toMatchObject([{ ip: '127.0.0.7', current: true }])
})

it('streams events to whoever has no WebSocket, each at once', async () => {
  const { body: anna } = await post('/auth/login', { login: 'anna_tls', password: 'Secret123' })
  const chat = (await post('/chats', { type: 'dm', member_ids: [anna.user_id] }, anna.token)).body
  const stream = await caddy.open(`/api/v1/events?token=${anna.token}`, { headers: { 'accept-encoding': 'gzip, zstd, br' } })
  expect(stream.statusCode).toBe(200)
  expect(stream.headers['content-type']).toBe('text/event-stream')
  expect(stream.headers['content-encoding']).toBeUndefined()
  let text = ''
  stream.on('data', (chunk) => {
    text += chunk
  })
  await expect.poll(() => text).toContain('"type":"user_chats"')
  // Each is sent only when the one before has arrived.
  for (let n = 1; n <= 3; n += 1) {
    await post('/messages', { chat_id: chat.id, content: `event ${n}` }, anna.token)
    await expect.poll(() => text).toContain(`event ${n}`)
  }
  const { hub } = servers.instances[0]!.server
  expect(hub.size.users).toBe(1)
  stream.destroy()
  await expect.poll(() => hub.size.users).toBe(0)

  const refused = await caddy.get('/api/v1/events?token=x.y.z')
  expect([refused.status, JSON.parse(String(refused.body)).code]).toEqual([401, 'invalid_token'])
})

it('refuses a page of another origin', async () => {
  const { body } = await post('/auth/login', { login: 'anna_tls', password: 'Secret123' })
  const socket = caddy.socket(`/ws?token=${body.token}`, { origin: 'https://evil.test' })
  const [error] = await once(socket, 'error')
  expect(String(error)).toContain('403')
})
