import { connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { startServers, type TestServers } from './support/server.ts'
import { until, Wire } from './support/wire.ts'

/** Frames of the protocol below ours: pings and pongs cost as much as any other frame, and are bounded as well. */

let limited: TestServers
let open: TestServers
beforeAll(async () => {
  limited = await startServers({ env: { RATE_LIMIT_FRAME: '50/1s' } })
  open = await startServers()
})
afterAll(async () => {
  await limited.close()
  await open.close()
})

/** A bare TCP connection with a finished handshake, which reads only when told to. */
async function bare(servers: TestServers): Promise<Socket> {
  const { token } = await servers.register()
  const { port } = new URL(servers.instances[0]!.url)
  const socket = connect(Number(port), '127.0.0.1')
  socket.on('error', () => {})
  const key = Buffer.alloc(16).toString('base64')
  socket.write(
    `GET /ws?token=${token} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${key}\r\n\r\n`,
  )
  await new Promise<void>((resolve) => socket.once('data', () => resolve()))
  socket.pause()
  await until(() => servers.instances[0]!.server.hub.size.users === 1, 'it is let in')
  return socket
}

/** A masked control frame with 125 bytes: 9 is a ping, 10 a pong. */
function control(opcode: number): Buffer {
  return Buffer.concat([Buffer.from([0x80 | opcode, 0x80 | 125, 0, 0, 0, 0]), Buffer.alloc(125, 'x')])
}

test('a flood of pings that nobody reads the answers of is cut', async () => {
  const socket = await bare(open)
  const many = Buffer.concat(Array.from({ length: 500 }, () => control(9)))
  let sent = 0
  while (open.instances[0]!.server.hub.size.users > 0) {
    socket.write(many)
    sent += many.length
    expect(sent, 'bytes whose answers would wait').toBeLessThan(50_000_000)
    await sleep(1)
  }
  socket.destroy()
})

test.each([
  ['pings', 9],
  ['pongs', 10],
])('%s count as frames', async (_what, opcode) => {
  const socket = await bare(limited)
  for (let n = 0; n < 1_000; n += 1) socket.write(control(opcode))
  await until(() => limited.instances[0]!.server.hub.size.users === 0, 'it is cut')
  socket.destroy()
})

test('of a flood of frames behind one that takes its time only so many are taken in, and all are answered in the end', async () => {
  const account = await open.register()
  const chat_id = await open.group(account, [])
  const wire = new Wire(open.instances[0]!.url, `/ws?token=${account.token}`)
  await wire.type('user_chats')
  const { db } = open.instances[0]!.context
  const { query } = db
  const { promise: free, resolve: letGo } = Promise.withResolvers<void>()
  db.query = (statement) => free.then(() => query(statement))
  const count = 700
  try {
    wire.send({ type: 'join_chat', chat_id })
    for (let n = 0; n < count; n += 1) wire.send({ type: 'nothing', id: `${n}`, pad: 'x'.repeat(60_000) })
    // Long enough to take in all 42 MB; what the kernel holds on the way is less than half of it.
    await sleep(2_000)
    expect(wire.socket.bufferedAmount).toBeGreaterThan(5_000_000)
  } finally {
    db.query = query
    letGo()
  }
  await until(() => wire.frames.filter((frame) => frame.type === 'error').length === count, 'all are answered', 40_000)
  wire.end()
})

test('a ping is answered with what it carried', async () => {
  const { token } = await open.register()
  const wire = new Wire(open.instances[0]!.url, `/ws?token=${token}`)
  await wire.type('ready')
  const answer = new Promise<string>((resolve) => wire.socket.once('pong', (data) => resolve(String(data))))
  wire.socket.ping('are you there')
  expect(await answer).toBe('are you there')
  wire.end()
})

test('an offer of HTTP/2 is ignored, not refused', async () => {
  const { port } = new URL(open.instances[0]!.url)
  const body = '{"login":"nobody","password":"Secret123"}'
  const socket = connect(Number(port), '127.0.0.1')
  let answer = ''
  socket.on('data', (chunk) => {
    answer += chunk
  })
  socket.write(
    `POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n` +
      `Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
  )
  await until(() => answer.includes('invalid_credentials'), 'it is answered')
  expect(answer).toMatch(/^HTTP\/1\.1 401 /)
  socket.destroy()
})
