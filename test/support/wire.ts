import { setTimeout as sleep } from 'node:timers/promises'
import WebSocket, { type ClientOptions } from 'ws'

/** A WebSocket as bare as it comes: no catching up, no retries; every frame that arrived is kept in its order. */

export type Frame = Record<string, unknown> & { type: string }

export class Wire {
  readonly frames: Frame[] = []
  /** The code that the connection was closed with. */
  code: number | undefined
  readonly socket: WebSocket
  /** Resolves when the handshake is done; rejects with `Unexpected server response: 403` and the like. */
  readonly opened: Promise<void>

  constructor(url: string, path = '/ws', options: ClientOptions = {}) {
    this.socket = new WebSocket(`${url.replace(/^http/, 'ws')}${path}`, options)
    this.opened = new Promise((resolve, reject) => {
      this.socket.once('open', resolve)
      this.socket.once('error', reject)
    })
    this.opened.catch(() => {})
    this.socket.on('error', () => {})
    this.socket.on('message', (data) => this.frames.push(JSON.parse(String(data)) as Frame))
    this.socket.on('close', (code) => {
      this.code = code
    })
  }

  send(value: unknown): void {
    this.socket.send(typeof value === 'string' || Buffer.isBuffer(value) ? value : JSON.stringify(value))
  }

  /** Resolves with the first frame, of those that came already too, that passes. */
  async next(test: (frame: Frame) => boolean, ms = 8_000): Promise<Frame> {
    for (const until = Date.now() + ms; ; await sleep(5)) {
      const found = this.frames.find(test)
      if (found) return found
      if (Date.now() > until || (this.code !== undefined && this.socket.readyState === WebSocket.CLOSED))
        throw new Error(`it did not come (closed: ${this.code}); there were: ${JSON.stringify(this.frames).slice(0, 2_000)}`)
    }
  }

  type(type: string, ms?: number): Promise<Frame> {
    return this.next((frame) => frame.type === type, ms)
  }

  /** Sends a command with an id of its own; resolves with its ack, error or pong. */
  async ask(command: Record<string, unknown>): Promise<Frame> {
    const id = crypto.randomUUID()
    this.send({ ...command, id })
    return this.next((frame) => frame.id === id)
  }

  /** Resolves with the close code. */
  async closed(ms = 10_000): Promise<number> {
    for (const until = Date.now() + ms; this.code === undefined; await sleep(5)) {
      if (Date.now() > until) throw new Error('the connection was not closed')
    }
    return this.code
  }

  end(): void {
    this.socket.terminate()
  }
}

/** Resolves when `test` answers true, asked again and again. */
export async function until(test: () => boolean | Promise<boolean>, what: string, ms = 15_000): Promise<void> {
  for (const end = Date.now() + ms; !(await test()); await sleep(20)) {
    if (Date.now() > end) throw new Error(`not within ${ms} ms: ${what}`)
  }
}
