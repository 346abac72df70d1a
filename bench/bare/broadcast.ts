import { randomUUID } from 'node:crypto'
import { createServer } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { WebSocketServer } from 'ws'
import { frame } from '../../src/protocol/events.ts'
import { encodeFrame } from '../../src/realtime/frames.ts'

/**
 * What `ws` on Node can do at all here: whatever a socket says is told to all, as the very bytes that the server tells,
 * with nothing of a server behind it: no sign-in, no check, no database, no order. `turn`: ready-made frames of one turn of
 * the event loop leave each socket in one write, as the server's do. `each`: each frame in a write of its own.
 */

const perTurn = process.argv[2] === 'turn'
const chat_id = randomUUID()
const sockets = new Set<Socket>()
let version = 0
let waiting: Buffer[] = []

function flush(): void {
  const bytes = waiting.length === 1 ? waiting[0]! : Buffer.concat(waiting)
  waiting = []
  for (const socket of sockets) socket.write(bytes)
}

function tell(bytes: Buffer): void {
  if (!perTurn) {
    for (const socket of sockets) socket.write(bytes)
    return
  }
  if (waiting.length === 0) setImmediate(flush)
  waiting.push(bytes)
}

/** The shape is the server's: if it grows there, it has to grow here. */
function event(content: string): string {
  version += 1
  const sender = { id: randomUUID(), username: 'bench_0a1b2c3d_100', display_name: 'bench_0a1b2c3d_100', avatar_url: null }
  const message: Parameters<typeof messageEvent>[0] = {
    id: randomUUID(),
    chat_id,
    seq: version,
    version,
    sender_id: sender.id,
    sender,
    client_id: randomUUID(),
    message_type: 'text',
    content,
    reply_to: null,
    forwarded_from: null,
    media: [],
    mentions: [],
    reactions: [],
    system: null,
    is_edited: false,
    edited_at: null,
    deleted_at: null,
    pinned_at: null,
    created_at: new Date().toISOString(),
  }
  return messageEvent(message)
}

type NewMessage = Extract<Parameters<typeof frame>[0], { type: 'new_message' }>
const messageEvent = (message: NewMessage['message']): string =>
  frame({ type: 'new_message', chat_id, version: message.version, prev: message.version - 1, message })

const http = createServer()
new WebSocketServer({ server: http, perMessageDeflate: false, clientTracking: false }).on('connection', (ws, request) => {
  const { socket } = request
  socket.setNoDelay(true)
  sockets.add(socket)
  ws.on('error', () => {})
  ws.on('close', () => sockets.delete(socket))
  ws.on('message', (data: Buffer) => {
    const text = data.toString()
    const id = /"id":"(\d+)"/.exec(text)?.[1] ?? ''
    const content = /"content":"([^"]*)"/.exec(text)?.[1] ?? ''
    tell(encodeFrame(event(content)))
    socket.write(encodeFrame(`{"type":"ack","id":"${id}"}`))
  })
  socket.write(encodeFrame('{"type":"ready"}'))
})
http.listen(0, '127.0.0.1', () => console.log(`is ready on http://127.0.0.1:${(http.address() as AddressInfo).port}`))
process.on('SIGTERM', () => process.exit())
