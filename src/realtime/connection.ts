import sjson from 'secure-json-parse'
import type { Outcome } from '../platform/command.ts'
import { AppError, errorBody } from '../platform/errors.ts'
import type { Identity } from '../platform/identity.ts'
import { type CloseReason, closeCodes } from '../protocol/close-codes.ts'
import { encodeFrame } from './frames.ts'
import type { Line, Sink } from './line.ts'
import type { Peer } from './local.ts'
import { Outbox } from './outbox.ts'

/**
 * One live connection, over a WebSocket or an event stream: `waiting` for auth -> `joining` (subscribing; events of that time are left to `sync`) -> `open` -> `draining` (nothing
 * new is begun) -> `closed`. Frames are carried out one after the other in the order they
 * came; a command may say that only its answer is still to come (a send that waits for its commit), then the next begins.
 * Both queues are bounded: what comes in pauses the socket, what goes out closes it (4008).
 */

/** Frames that may wait for those before them; more pause reading from the socket. */
const maxWaiting = 64
/** Answers that may be outstanding; more pause reading as well. */
const maxPending = 256

export interface ConnectionOptions {
  line: Line
  /** What ready-made frames are written to: the socket below the WebSocket. */
  sink: Sink
  /** Carries out one frame. Rejects with AppError where it is refused. */
  run: (connection: Connection, frame: Record<string, unknown>) => Promise<Outcome>
  onClose: (connection: Connection) => void
  /** True when one more frame is within the limit. */
  allowFrame: (connection: Connection) => boolean
  asAppError: (error: unknown) => AppError
  metrics?: { frames: { in: number; out: number }; closed(reason: CloseReason): void }
}

export class Connection implements Peer {
  state: 'waiting' | 'joining' | 'open' | 'draining' | 'closed' = 'waiting'
  identity: Identity | undefined
  /** When anything was last heard from the peer, Unix ms. */
  lastHeard = Date.now()
  /** The frame limit's bucket: tokens left, and when they were counted. */
  tokens = -1
  tokensAt = 0
  #openChats: Set<string> | undefined
  readonly #options: ConnectionOptions
  readonly #outbox: Outbox
  #waiting: string[] | undefined
  #running = false
  #pending = 0
  #paused = false

  constructor(options: ConnectionOptions) {
    this.#options = options
    this.#outbox = new Outbox(options.sink, () => this.close('too_slow'))
    // Handlers first: a frame sent right after the handshake must find them.
    options.line.on('message', (data: Buffer, isBinary: boolean) => this.#heard(data, isBinary))
    options.line.on('pong', () => this.#signOfLife())
    options.line.on('ping', () => this.#signOfLife())
    options.line.on('error', () => {})
    options.line.on('close', () => this.#closed())
  }

  /** Chats on this connection's screen; made when first asked for, as most connections never need it. */
  get openChats(): Set<string> {
    this.#openChats ??= new Set()
    return this.#openChats
  }

  get userId(): string {
    return this.identity?.user_id ?? ''
  }

  get sessionId(): string {
    return this.identity?.session_id ?? ''
  }

  get isClosed(): boolean {
    return this.state === 'closed'
  }

  /** Closed, or about to be: it is not opened any more. */
  get isEnding(): boolean {
    return this.state === 'closed' || this.state === 'draining'
  }

  /** An event from the hub. Before `ready` it is dropped: `sync` comes after `ready` and has it. */
  send(frame: Buffer): void {
    if (this.state === 'open' || this.state === 'draining') this.#push(frame)
  }

  /** The connection's own answer. */
  sendText(text: string): void {
    if (this.state !== 'closed') this.#push(encodeFrame(text))
  }

  #push(frame: Buffer): void {
    if (this.#options.metrics) this.#options.metrics.frames.out += 1
    this.#outbox.push(frame)
  }

  fail(): void {
    this.close('internal_error')
  }

  /** Does the connection's own work (signing in by the query's token) before the first frame that came is carried out. */
  begin(work: () => Promise<void>): void {
    this.#running = true
    void work().then(() => this.#next())
  }

  /** Finishes what was begun, then closes with `shutting_down`. */
  drain(): void {
    if (this.state === 'closed' || this.state === 'draining') return
    this.state = 'draining'
    this.#waiting = undefined
    this.#closeWhenDrained()
  }

  #closeWhenDrained(): void {
    if (this.state === 'draining' && !this.#running && this.#pending === 0) this.close('shutting_down')
  }

  /** The peer is gone without a word: there is nobody to say goodbye to. */
  cut(): void {
    this.#closed()
    this.#options.line.terminate()
  }

  ping(): void {
    if (this.state !== 'closed') this.#options.line.ping()
  }

  close(reason: CloseReason): void {
    if (this.state === 'closed') return
    const [code, text] = closeCodes[reason]
    this.#options.metrics?.closed(reason)
    // A peer that does not read gets no more than the code: what waits for it would only delay its coming back.
    if (reason === 'too_slow') this.#outbox.discard()
    else this.#outbox.flush()
    this.#closed()
    this.#options.line.close(code, text)
    // A peer that does not answer the close in time is cut off.
    const { line } = this.#options
    setTimeout(() => line.terminate(), reason === 'too_slow' ? 500 : 3_000).unref()
  }

  #closed(): void {
    if (this.state === 'closed') return
    this.state = 'closed'
    this.#waiting = undefined
    this.#resume()
    this.#options.onClose(this)
  }

  #touch(): void {
    this.lastHeard = Date.now()
  }

  /** Pings and pongs cost as much as any frame, and count as such. */
  #signOfLife(): void {
    if (this.state === 'closed') return
    this.#touch()
    if (!this.#options.allowFrame(this)) this.close('too_many_frames')
  }

  #heard(data: Buffer, isBinary: boolean): void {
    if (this.state === 'closed' || this.state === 'draining') return
    this.#touch()
    if (this.#options.metrics) this.#options.metrics.frames.in += 1
    if (isBinary) {
      this.close('binary_frame')
      return
    }
    if (!this.#options.allowFrame(this)) {
      this.close('too_many_frames')
      return
    }
    const text = data.toString()
    if (this.#running) {
      this.#waiting ??= []
      this.#waiting.push(text)
      if (this.#waiting.length >= maxWaiting) this.#pause()
    } else {
      this.#running = true
      void this.#handle(text).then(() => this.#next())
    }
  }

  async #next(): Promise<void> {
    for (let text = this.#waiting?.shift(); text !== undefined && !this.isClosed; text = this.#waiting?.shift()) {
      await this.#handle(text)
    }
    this.#waiting = undefined
    this.#running = false
    this.#maybeResume()
    this.#closeWhenDrained()
  }

  async #handle(text: string): Promise<void> {
    let id: string | undefined
    try {
      const frame = parseFrame(text)
      if (typeof frame.id === 'string') id = frame.id.slice(0, 100)
      const outcome = await this.#options.run(this, frame)
      if (outcome && 'later' in outcome) {
        this.#pending += 1
        if (this.#pending >= maxPending) this.#pause()
        void (outcome.later as Promise<object | undefined>)
          .then((fields) => this.#ack(id, fields))
          .catch((error: unknown) => this.#refuse(id, error))
          .finally(() => {
            this.#pending -= 1
            this.#maybeResume()
            this.#closeWhenDrained()
          })
      } else this.#ack(id, outcome)
    } catch (error) {
      this.#refuse(id, error)
    }
  }

  #ack(id: string | undefined, fields: object | undefined): void {
    if (id !== undefined && fields !== undefined) this.sendText(JSON.stringify({ type: 'ack', id, ...fields }))
  }

  #refuse(id: string | undefined, error: unknown): void {
    const refusal = this.#options.asAppError(error)
    this.sendText(JSON.stringify({ type: 'error', ...(id !== undefined && { id }), ...errorBody(refusal) }))
  }

  #pause(): void {
    if (this.#paused) return
    this.#paused = true
    this.#options.line.pause()
  }

  #maybeResume(): void {
    if (this.#paused && !this.#running && this.#pending < maxPending / 2) this.#resume()
  }

  #resume(): void {
    if (!this.#paused) return
    this.#paused = false
    this.#options.line.resume()
  }
}

function parseFrame(text: string): Record<string, unknown> {
  let value: unknown
  try {
    value = sjson.parse(text, { protoAction: 'error', constructorAction: 'error' })
  } catch {
    throw new AppError('malformed_frame')
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new AppError('malformed_frame')
  return value as Record<string, unknown>
}
