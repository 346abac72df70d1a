import { randomUUID } from 'node:crypto'
import type { ServerEvent } from '../../src/protocol/events.ts'
import type { Message, SyncAnswer } from '../../src/protocol/resources.ts'
import type { HistoryPage } from './chat-state.ts'
import { openEvents } from './events-link.ts'
import { type Answered, Disconnected, type Link, openSocket } from './link.ts'
import { ClientState } from './state.ts'

export { Disconnected, Refused } from './link.ts'

/**
 * A small client over WebSocket, or over an event stream and REST: connects, catches up, stays caught up, sends again what was not acknowledged. It is what
 * tests talk through, and what authors of clients may read.
 */

export interface ClientOptions {
  /** `http://127.0.0.1:8080` */
  url: string
  userId: string
  token: () => string | Promise<string>
  /** Comes back by itself when the connection ends with a code that says so. */
  reconnect?: boolean
  /** What it speaks over; a WebSocket unless told. */
  over?: 'socket' | 'events' | undefined
}

interface Asked {
  resolve: (answer: Answered) => void
  reject: (error: unknown) => void
}

export class Client {
  readonly state: ClientState
  /** Every event in the order it came. */
  readonly events: ServerEvent[] = []
  onEvent: (event: ServerEvent) => void = () => {}
  closedWith: number | undefined
  /** The most messages per chat that a `sync` is to answer with; the server's default unless told. */
  syncLimit: number | undefined
  readonly #options: ClientOptions
  #link: Link | undefined
  /** Sends that no acknowledgement came for, by client_id: they are sent again after a reconnect. */
  readonly #outbox = new Map<string, { command: Record<string, unknown>; asked: Asked }>()
  #syncing: Promise<void> | undefined
  #wanted = false
  /** The next try to connect is due: one, however many things went wrong. */
  #returning = false

  constructor(options: ClientOptions) {
    this.#options = options
    this.state = new ClientState(options.userId)
  }

  get isOpen(): boolean {
    return this.#link?.isOpen === true
  }

  /** Resolves once `ready` has come and the first sync is done. */
  async connect(): Promise<this> {
    this.#wanted = true
    const token = await this.#options.token()
    // The one before may still be closing: nothing is answered on it any more.
    this.#link?.end('connected anew')
    const { promise: ready, resolve, reject } = Promise.withResolvers<void>()
    const open = this.#options.over === 'events' ? openEvents : openSocket
    const link: Link = open(this.#options.url, token, {
      event: (event) => {
        if (event.type === 'ready') resolve()
        if (link === this.#link) this.#heard(event)
      },
      closed: (code) => {
        this.closedWith = code
        reject(new Disconnected(`closed with ${code}`))
        if (link === this.#link) this.#lost(code)
      },
    })
    this.#link = link
    await ready
    // Only now: what commits from here on is told live, what came before is in the answer.
    await this.sync()
    for (const { command, asked } of this.#outbox.values()) this.#ask(command).then(asked.resolve, asked.reject)
    return this
  }

  #lost(code: number): void {
    // One that could not catch up is of no use, though it may be open.
    this.#link?.end(`closed with ${code}`)
    this.#link = undefined
    const comesBack = this.#wanted && this.#options.reconnect === true && code !== 4001
    if (!comesBack || this.#returning) return
    this.#returning = true
    // Everybody was cut off at the same moment: spread the return.
    setTimeout(
      () => {
        this.#returning = false
        if (this.#wanted) this.connect().catch(() => this.#lost(1006))
      },
      50 + Math.random() * 200,
    )
  }

  #heard(event: ServerEvent): void {
    this.events.push(event)
    this.state.event(event)
    this.onEvent(event)
    if (this.state.needsSync) void this.#sync().catch(() => {})
  }

  /** One command; resolves with its ack. */
  ask(command: Record<string, unknown>): Promise<Record<string, unknown>> {
    return this.#ask(command)
  }

  #ask(command: Record<string, unknown>): Promise<Record<string, unknown>> {
    return this.#link?.ask(command) ?? Promise.reject(new Disconnected('not connected'))
  }

  /** A frame as it is, without waiting for anything. */
  raw(text: string | Uint8Array<ArrayBuffer>): void {
    this.#link?.raw(text)
  }

  /** Sends a message; sent again (as the same) after a reconnect until it is answered. */
  async send(
    chatId: string,
    content: string,
    clientId: string = randomUUID(),
    extra: Record<string, unknown> = {},
  ): Promise<Message> {
    const command = { type: 'message', chat_id: chatId, content, client_id: clientId, ...extra }
    const answered = new Promise<Record<string, unknown>>((resolve, reject) => {
      const asked: Asked = {
        resolve: (ack) => {
          this.#outbox.delete(clientId)
          resolve(ack)
        },
        reject: (error) => {
          if (error instanceof Disconnected && this.#options.reconnect === true && this.#wanted) return
          this.#outbox.delete(clientId)
          reject(error)
        },
      }
      this.#outbox.set(clientId, { command, asked })
      this.#ask(command).then(asked.resolve, asked.reject)
    })
    return (await answered).message as Message
  }

  /** Catches up with everything, where peers stand included: after connecting, or when a person looks again. */
  sync(): Promise<void> {
    this.state.wantTicks()
    return this.#sync()
  }

  /** Asks until nothing is missing. Calls that come while one runs share it. */
  #sync(): Promise<void> {
    this.#syncing ??= this.#catchUp()
      .catch((error: unknown) => {
        // A server that is busy is asked again; one that is gone, after the next connecting.
        if (this.isOpen) setTimeout(() => this.isOpen && void this.#sync().catch(() => {}), 500)
        throw error
      })
      .finally(() => {
        this.#syncing = undefined
      })
    return this.#syncing
  }

  async #catchUp(): Promise<void> {
    do {
      const limit = this.syncLimit === undefined ? {} : { limit: this.syncLimit }
      const answer = (await this.#ask({ type: 'sync', ...this.state.asked(), ...limit })) as unknown as SyncAnswer
      this.state.synced(answer)
    } while (this.state.needsSync)
  }

  /** A page of history, whenever its answer came. */
  page(chatId: string, page: HistoryPage): void {
    this.state.page(chatId, page)
    if (this.state.needsSync && this.isOpen) void this.#sync().catch(() => {})
  }

  /** Resolves with the first event (of those that came already, too) that passes. */
  async waitFor<T extends ServerEvent['type']>(
    type: T,
    test: (event: Extract<ServerEvent, { type: T }>) => boolean = () => true,
    ms = 5_000,
  ): Promise<Extract<ServerEvent, { type: T }>> {
    const passes = (event: ServerEvent): event is Extract<ServerEvent, { type: T }> =>
      event.type === type && test(event as Extract<ServerEvent, { type: T }>)
    const until = Date.now() + ms
    for (;;) {
      const found = this.events.find(passes)
      if (found) return found
      if (Date.now() > until)
        throw new Error(`no ${type} came within ${ms} ms; there were: ${this.events.map((e) => e.type).join(', ')}`)
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }

  /** Resolves with the code that the connection was closed with. */
  async waitForClose(ms = 5_000): Promise<number> {
    const until = Date.now() + ms
    while (this.isOpen || this.closedWith === undefined) {
      if (Date.now() > until) throw new Error(`the connection was not closed within ${ms} ms`)
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
    return this.closedWith
  }

  close(): void {
    this.#wanted = false
    this.#link?.end()
  }
}
