import { connect, type Socket } from 'node:net'

/**
 * A WebSocket client that costs next to nothing, because it shares two processors with what it measures: frames are
 * found in the bytes as they came, and one buffer serves all sockets, whose content is gone after the callback.
 */

export interface Handler {
  /** One text frame: `bytes` from `start` to `end`, valid only during the call. */
  text(peer: Peer, bytes: Buffer, start: number, end: number, now: number): void
  closed(peer: Peer, code: number): void
}

/** Of all sockets of the process. Large enough for what a busy socket has waiting. */
const shared = Buffer.allocUnsafe(256 * 1_024)
const opcodes = { text: 1, close: 8, ping: 9 }

let lastMask = 0x2f6e2b1

/** A client's frame: masked by a key that is not zero, as RFC 6455 wants it, so that the server has its work to do. */
export function clientFrame(opcode: number, text: string): Buffer {
  const length = Buffer.byteLength(text)
  const head = length < 126 ? 6 : length < 65_536 ? 8 : 14
  const frame = Buffer.allocUnsafe(head + length)
  frame[0] = 0x80 | opcode
  if (head === 6) frame[1] = 0x80 | length
  else if (head === 8) {
    frame[1] = 0x80 | 126
    frame.writeUInt16BE(length, 2)
  } else {
    frame[1] = 0x80 | 127
    frame.writeUInt32BE(0, 2)
    frame.writeUInt32BE(length, 6)
  }
  lastMask = (Math.imul(lastMask, 1_103_515_245) + 12_345) | 0x01010101
  frame.writeInt32BE(lastMask, head - 4)
  frame.write(text, head)
  const mask = [frame[head - 4]!, frame[head - 3]!, frame[head - 2]!, frame[head - 1]!] as const
  for (let n = 0; n < length; n += 1) frame[head + n] = frame[head + n]! ^ mask[n & 3]!
  return frame
}

export class Peer {
  readonly url: URL
  readonly token: string
  /** The one chat whose messages are counted here, and this peer's place among those who hear it; -1 for none. */
  readonly chat: number
  readonly slot: number
  isOpen = false
  /** False for a peer that is not expected to hear everything: it does not read. */
  counts = true
  /** The version of the last message heard: the next one must be the next. */
  version = -1
  #socket: Socket | undefined
  #upgraded = false
  /** The beginning of a frame whose end has not come yet. */
  #rest: Buffer | undefined
  readonly #handler: Handler

  constructor(spec: { url: string; token: string; chat: number }, slot: number, handler: Handler) {
    this.url = new URL(spec.url)
    this.token = spec.token
    this.chat = spec.chat
    this.slot = slot
    this.#handler = handler
  }

  connect(): void {
    const { hostname, port } = this.url
    this.#upgraded = false
    this.#rest = undefined
    const callback = (size: number) => {
      this.#read(shared.subarray(0, size))
      return true
    }
    const socket = connect({ host: hostname, port: Number(port || 80), noDelay: true, onread: { buffer: shared, callback } })
    this.#socket = socket
    socket.on('error', () => {})
    socket.on('close', () => socket === this.#socket && this.#closed(1006))
    socket.write(
      `GET /ws?token=${this.token} HTTP/1.1\r\nHost: ${this.url.host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
        'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
    )
  }

  send(text: string): void {
    this.#socket?.write(clientFrame(opcodes.text, text))
  }

  write(frame: Buffer): void {
    this.#socket?.write(frame)
  }

  /** Stops reading, as a peer whose screen is off or whose train is in a tunnel. */
  pause(): void {
    this.#socket?.pause()
  }

  resume(): void {
    this.#socket?.resume()
  }

  /** Without a goodbye. */
  cut(): void {
    const socket = this.#socket
    this.#socket = undefined
    this.isOpen = false
    socket?.destroy()
  }

  #closed(code: number): void {
    this.cut()
    this.#handler.closed(this, code)
  }

  #read(chunk: Buffer): void {
    const now = performance.now()
    let bytes = this.#rest === undefined ? chunk : Buffer.concat([this.#rest, chunk])
    this.#rest = undefined
    if (!this.#upgraded) {
      const end = bytes.indexOf('\r\n\r\n')
      if (end < 0) {
        this.#rest = Buffer.from(bytes)
        return
      }
      if (!bytes.toString('latin1', 0, 12).endsWith(' 101')) {
        this.#closed(1002)
        return
      }
      this.#upgraded = true
      bytes = bytes.subarray(end + 4)
    }
    let at = 0
    while (bytes.length - at >= 2) {
      const short = bytes[at + 1]! & 0x7f
      const head = short < 126 ? 2 : short === 126 ? 4 : 10
      if (bytes.length - at < head) break
      const length = short < 126 ? short : short === 126 ? bytes.readUInt16BE(at + 2) : bytes.readUInt32BE(at + 6)
      const start = at + head
      const end = start + length
      if (end > bytes.length) break
      const opcode = bytes[at]! & 0x0f
      if (opcode === opcodes.text) this.#handler.text(this, bytes, start, end, now)
      else if (opcode === opcodes.ping) this.#socket?.write(clientFrame(0x0a, ''))
      else if (opcode === opcodes.close) {
        this.#closed(length >= 2 ? bytes.readUInt16BE(start) : 1005)
        return
      }
      at = end
    }
    if (at < bytes.length) this.#rest = Buffer.from(bytes.subarray(at))
  }
}

export const messageFrame = (text: string): Buffer => clientFrame(opcodes.text, text)
