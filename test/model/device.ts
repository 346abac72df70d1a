import type { ServerEvent } from '../../src/protocol/events.ts'
import { Client } from '../client/client.ts'
import type { Account } from '../support/server.ts'
import type { World } from './world.ts'

/** One device of a user: it keeps its state when its connection goes, and everything it ever heard is written down. */

/** What one connection was told, in order. */
export interface Hearing {
  device: string
  userId: string
  events: { event: ServerEvent; at: number }[]
  /** Versions of chats after the first catching up; undefined while it has not come so far. */
  caughtUp: Record<string, number> | undefined
}

export const rank = { sent: 0, delivered: 1, read: 2 } as const

export class Device {
  readonly name: string
  readonly userId: string
  account: Account
  client: Client
  /** Every connection it had. */
  readonly hearings: Hearing[] = []
  /** Ended on purpose; the next connect signs in anew. */
  signedOut = false
  readonly complaints: string[] = []
  readonly #world: World
  readonly #ticks = new Map<string, number>()
  #connecting: Promise<void> | undefined
  #at = 0

  constructor(world: World, name: string, account: Account) {
    this.#world = world
    this.name = name
    this.userId = account.id
    this.account = account
    this.client = this.#make()
  }

  #make(): Client {
    const { instances } = this.#world.servers
    const at = () => instances[this.#at]!.url
    const options = {
      userId: this.userId,
      token: () => this.account.token,
      over: process.env.MODEL_OVER === 'events' ? ('events' as const) : ('socket' as const),
      get url() {
        return at()
      },
    }
    const client = new Client(options)
    client.onEvent = (event) => this.#heard(client, event)
    return client
  }

  #heard(client: Client, event: ServerEvent): void {
    if (client !== this.client) return
    if (event.type === 'ready') this.hearings.push({ device: this.name, userId: this.userId, events: [], caughtUp: undefined })
    this.hearings.at(-1)?.events.push({ event, at: Date.now() })
    if ('chat_id' in event) this.lookAtTicks(event.chat_id)
  }

  get isOpen(): boolean {
    return this.client.isOpen && this.#connecting === undefined
  }

  /** Resolves when connected and caught up, or when that failed. */
  connect(at: number): Promise<void> {
    if (this.#connecting) return this.#connecting
    if (this.client.isOpen) return Promise.resolve()
    this.#connecting = this.#connect(at).finally(() => {
      this.#connecting = undefined
    })
    return this.#connecting
  }

  async #connect(at: number): Promise<void> {
    if (this.signedOut) {
      const account = await this.#world.servers.login(this.account, at)
      // Refused by a mishap: the next connect tries again.
      if (account.token === undefined) return
      this.account = account
      this.signedOut = false
      this.client = this.#make()
    }
    this.#at = at
    const { client, hearings } = this
    const before = hearings.length
    try {
      await client.connect()
      if (hearings.length === before + 1 && client === this.client) hearings.at(-1)!.caughtUp = client.state.position().chats
    } catch {
      // Closed meanwhile, or the session has ended.
    }
    this.lookAtTicks()
  }

  disconnect(): void {
    this.client.close()
  }

  /** Ticks of my own messages, as this device shows them, never go back while there is anybody to count. */
  lookAtTicks(only?: string): void {
    const { state } = this.client
    for (const [chatId, chat] of state.chats) {
      if (only !== undefined && chatId !== only) continue
      for (const [seq, message] of chat.messages) {
        if (message.sender_id !== this.userId || message.message_type === 'system') continue
        const status = chat.status(seq)
        const key = `${chatId} ${seq}`
        const before = this.#ticks.get(key) ?? 0
        const now = rank[status]
        if (now < before && chat.receivers(seq).length > 0)
          this.complaints.push(`${this.name}: ticks of ${key} went from ${before} to ${now}`)
        this.#ticks.set(key, now)
      }
    }
  }
}
