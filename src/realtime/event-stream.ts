import { EventEmitter } from 'node:events'
import type { FastifyReply } from 'fastify'
import { decodeFrames } from './frames.ts'
import type { Line, Sink } from './line.ts'

/**
 * Server-Sent Events as a line of a connection, for networks that let no WebSocket through. The frames that all sockets
 * share come here as well, and their texts leave as events: the same bytes, numbered. Nothing comes in; commands go over REST.
 *
 * The answer begins with the first thing written. Closed before that, nothing was answered, and the route may still say why.
 */
export class EventStream extends EventEmitter<{ pong: []; close: [] }> implements Line, Sink {
  /** The close code, where the stream was closed before it began. */
  refusedWith: number | undefined
  readonly #reply: FastifyReply
  #begun = false
  #id = 0

  constructor(reply: FastifyReply) {
    super()
    this.#reply = reply
    reply.raw.on('error', () => {})
    reply.raw.on('close', () => this.emit('close'))
  }

  get writable(): boolean {
    return !this.#reply.raw.writableEnded && !this.#reply.raw.destroyed
  }

  get writableLength(): number {
    return this.#reply.raw.writableLength
  }

  /** The head, and how long a client is to wait before it comes back: each another while, so that not all come at once. */
  begin(): void {
    if (this.#begun) return
    this.#begun = true
    this.#reply.hijack()
    if (!this.writable) return
    const { raw } = this.#reply
    raw.writeHead(200, {
      ...(this.#reply.getHeaders() as Record<string, string>),
      'Content-Type': 'text/event-stream',
      'Cache-Control': 'no-store, no-transform',
      // nginx collects answers unless told not to.
      'X-Accel-Buffering': 'no',
      // The connection ends with the stream: nothing waits on it when the server stops.
      Connection: 'close',
    })
    raw.write(`retry: ${retryMs()}\n\n`)
  }

  write(frames: Buffer): void {
    this.begin()
    if (!this.writable) return
    const parts: Buffer[] = []
    for (const text of decodeFrames(frames)) {
      this.#id += 1
      // JSON has no raw line breaks, so one line of data holds it.
      parts.push(Buffer.from(`id: ${this.#id}\ndata: `), text, endOfEvent)
    }
    this.#reply.raw.write(Buffer.concat(parts))
  }

  /** A comment, which keeps proxies from taking the stream for dead. That the kernel took it is all the sign of life there is. */
  ping(): void {
    if (!this.#begun || !this.writable) return
    this.#reply.raw.write(': still here\n\n', (error) => {
      if (!error) this.emit('pong')
    })
  }

  pause(): void {}
  resume(): void {}

  close(code: number, reason: string): void {
    if (!this.#begun) this.refusedWith = code
    else if (this.writable)
      this.#reply.raw.end(`retry: ${retryMs()}\nevent: close\ndata: ${JSON.stringify({ code, reason })}\n\n`)
  }

  terminate(): void {
    if (this.#begun && !this.#reply.raw.writableFinished) this.#reply.raw.destroy()
  }
}

const endOfEvent = Buffer.from('\n\n')
const retryMs = () => 500 + Math.floor(Math.random() * 2_500)
