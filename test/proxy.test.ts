/** The api's part of the Caddyfile: a real Caddy in front of the server, https and wss. */
import { once } from 'node:events'
import websocket from '@fastify/websocket'
import fastify from 'fastify'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type Caddy, startCaddy } from './support/caddy.ts'

type Seen = { url: string; ip: string; protocol: string; host: string }

/**
 * What stands behind the proxy; it trusts Caddy's address alone, as docker-compose.yml has it. Only the paths, the ping
 * frame and the stream's form are the server's own.
 */
async function upstream() {
  const app = fastify({ trustProxy: ['127.0.0.1'], bodyLimit: 2 ** 30, forceCloseConnections: true })
  const seen: Seen[] = []
  const streams: { write: (text: string) => void; closed: Promise<unknown> }[] = []
  await app.register(websocket)
  app.addHook('onRequest', async (request) => {
    seen.push({ url: request.url, ip: request.ip, protocol: request.protocol, host: request.host })
  })
  app.addContentTypeParser('*', async (_request: unknown, payload: AsyncIterable<Buffer>) => {
    let size = 0
    for await (const chunk of payload) size += chunk.length
    return { size }
  })
  app.get('/health', async (_request, reply) => {
    reply.header('X-Frame-Options', 'SAMEORIGIN')
    return { status: 'ok', filler: 'x'.repeat(2_000) }
  })
  app.post('/api/v1/media', async (request) => request.body)
  app.get('/ws', { websocket: true }, (socket) => {
    socket.on('message', (text: Buffer) => {
      if (JSON.parse(String(text)).type === 'ping') socket.send(JSON.stringify({ type: 'pong', timestamp: 1 }))
    })
  })
  app.get('/api/v1/events', (_request, reply) => {
    reply.hijack()
    reply.raw.writeHead(200, { 'content-type': 'text/event-stream' })
    reply.raw.write('event: ready\ndata: {}\n\n')
    streams.push({ write: (text) => reply.raw.write(text), closed: once(reply.raw, 'close') })
  })
  await app.listen({ host: '127.0.0.1', port: 0 })
  return { port: (app.server.address() as { port: number }).port, seen, streams, close: () => app.close() }
}

const secret = 'eyJhbGciOiJIUzI1NiJ9.secret.of-the-test'
let api: Awaited<ReturnType<typeof upstream>>
let caddy: Caddy

beforeAll(async () => {
  api = await upstream()
  caddy = await startCaddy(api.port, { MAX_UPLOAD: '2MiB' })
}, 360_000)

afterAll(async () => {
  await caddy?.stop()
  await api?.close()
})

it('serves the server over https and sends plain http there', async () => {
  const answer = await caddy.get('/health')
  expect(answer.status).toBe(200)
  expect(JSON.parse(String(answer.body))).toMatchObject({ status: 'ok' })
  const plain = await caddy.plain('/health')
  expect(plain.statusCode).toBe(308)
  expect(plain.headers.location).toMatch(/^https:\/\/chat\.test.*\/health$/)
})

it('adds the headers the server does not set, and leaves those it does', async () => {
  const { headers } = await caddy.get('/health')
  expect(headers).toMatchObject({
    'strict-transport-security': 'max-age=31536000; includeSubDomains',
    'x-content-type-options': 'nosniff',
    'referrer-policy': 'no-referrer',
    'x-frame-options': 'SAMEORIGIN',
    'permissions-policy': expect.stringContaining('microphone=(self)'),
  })
  expect(headers.server).toBeUndefined()
})

it('passes on the address, scheme and name it has seen itself, not those a client claims', async () => {
  const forged = {
    'X-Forwarded-For': '203.0.113.9',
    'X-Real-IP': '203.0.113.9',
    Forwarded: 'for=203.0.113.9',
    'X-Forwarded-Proto': 'http',
  }
  await caddy.get('/health?forged', { headers: { ...forged, 'X-Forwarded-Host': 'evil.test' }, localAddress: '127.0.0.7' })
  const request = api.seen.find(({ url }) => url === '/health?forged')
  expect(request).toEqual({ url: '/health?forged', ip: '127.0.0.7', protocol: 'https', host: 'chat.test' })

  const socket = caddy.socket('/ws?forged', forged)
  await once(socket, 'open')
  socket.terminate()
  expect(api.seen.find(({ url }) => url === '/ws?forged')).toMatchObject({ ip: '127.0.0.1' })
})

it('carries a WebSocket', async () => {
  const socket = caddy.socket(`/ws?token=${secret}`)
  await once(socket, 'open')
  socket.send(JSON.stringify({ type: 'ping', filler: 'x'.repeat(60_000) }))
  const [data] = await once(socket, 'message')
  expect(JSON.parse(String(data))).toEqual({ type: 'pong', timestamp: 1 })
  socket.close()
  await once(socket, 'close')
})

it('holds no event back, and lets the server know when the client has left', async () => {
  const stream = await caddy.open(`/api/v1/events?token=${secret}`, { headers: { 'accept-encoding': 'gzip, zstd' } })
  expect(stream.headers['content-encoding']).toBeUndefined()
  const parts = stream[Symbol.asyncIterator]()
  expect(String((await parts.next()).value)).toContain('event: ready')
  // Each is sent only when the one before has arrived: a proxy that collects them would stop here.
  for (let n = 1; n <= 3; n++) {
    api.streams[0]!.write(`data: ${n}\n\n`)
    expect(String((await parts.next()).value)).toBe(`data: ${n}\n\n`)
  }
  stream.destroy()
  await api.streams[0]!.closed
})

it('compresses answers', async () => {
  const { headers, body } = await caddy.get('/health', { headers: { 'accept-encoding': 'gzip' } })
  expect(headers['content-encoding']).toBe('gzip')
  expect(body.length).toBeLessThan(500)
})

it('takes uploads up to its limit and refuses larger ones in the form of the api', async () => {
  const upload = (bytes: number) =>
    caddy.get('/api/v1/media', {
      method: 'POST',
      headers: { 'content-type': 'application/octet-stream' },
      body: Buffer.alloc(bytes),
    })
  expect(JSON.parse(String((await upload(2_000_000)).body))).toEqual({ size: 2_000_000 })
  const refused = await upload(2_200_000)
  expect(refused.status).toBe(413)
  expect(refused.headers['content-type']).toBe('application/json')
  expect(JSON.parse(String(refused.body))).toMatchObject({ code: 'body_too_large' })
})

// The last one: it ends the server.
it('answers in the form of the api while the server is away, and never logs a token, a signature or a search', async () => {
  const headers = {
    authorization: `Bearer ${secret}`,
    cookie: `session=${secret}`,
    referer: `https://chat.test/?token=${secret}`,
  }
  const paths = [`/api/v1/media/a.webp?u=1&s=${secret}`, `/api/v1/search?q=${secret}`, `/api/v1/events?%74oken=${secret}`]
  for (const path of paths) await caddy.get(path.replace('/events', '/nothing'), { headers })
  await api.close()
  for (const path of paths) {
    const answer = await caddy.get(path, { headers })
    expect(answer.status).toBe(503)
    expect(answer.headers['retry-after']).toBe('5')
    expect(JSON.parse(String(answer.body))).toMatchObject({ code: 'unavailable' })
  }
  const socket = caddy.socket(`/ws?token=${secret}`, { authorization: `Bearer ${secret}` })
  const [error] = await once(socket, 'error')
  expect(String(error)).toContain('503')

  // Every request above has left its line, and the last ones theirs among the errors too.
  await expect.poll(() => caddy.accessLog()).toContain('"status":503')
  const [access, errors] = [await caddy.accessLog(), caddy.output()]
  for (const path of ['/ws', '/api/v1/media/a.webp', '/api/v1/search', '/api/v1/events'])
    expect(access).toContain(`"uri":"${path}?…"`)
  expect(errors).toContain('"uri":"/ws?…"')
  expect(errors).toContain('connection refused')
  expect(access + errors).not.toContain('secret')
})
