import {
  decode,
  type Effect,
  encodeEvents,
  encodePassing,
  isFrom,
  type News,
  type Passing,
  type Stamped,
  type StreamId,
} from '../platform/news.ts'
import { batched } from './batched.ts'
import { encodeFrame } from './frames.ts'
import { Gate } from './gate.ts'
import type { HubOptions, LocalChat, LocalUser, Memberships, Peer } from './local.ts'
import { subscriber } from './subscriber.ts'

/**
 * Who is connected to this instance and how events get to them; knows no business rule. Each chat and each user that
 * somebody here listens to has a gate. Membership is judged at fan-out: who is removed at version v hears v and
 * nothing later, whatever the bus lost, because the gate lets nothing later pass before it has seen v.
 */

export const peopleChannel = 'people'
const sweepMs = 5_000
const sweepSlice = 2_000

export class Hub implements News {
  readonly #users = new Map<string, LocalUser>()
  readonly #chats = new Map<string, LocalChat>()
  readonly #options: HubOptions
  readonly #memberships: (userId: string) => Promise<Memberships | undefined>
  readonly #subscribe: (channel: string) => Promise<unknown>
  #sweepTimer: NodeJS.Timeout | undefined
  #sweepAt = 0

  constructor(options: HubOptions) {
    this.#options = options
    this.#memberships = batched((ids) => options.sources.memberships(ids))
    this.#subscribe = subscriber(options.bus)
  }

  start(): void {
    this.#sweepTimer = setInterval(() => void this.sweep(false), sweepMs)
    this.#sweepTimer.unref()
  }

  stop(): void {
    clearInterval(this.#sweepTimer)
    for (const user of this.#users.values()) user.gate.close()
    for (const chat of this.#chats.values()) chat.gate.close()
    this.#users.clear()
    this.#chats.clear()
  }

  // --- telling -----------------------------------------------------------------------------------------------------

  tell(stream: StreamId, events: readonly Stamped[]): void {
    if (events.length === 0) return
    this.#receive(stream, events)
    this.#options.bus.publish(stream, encodeEvents(this.#options.instanceId, events))
  }

  pass(stream: StreamId, event: Passing): void {
    this.#receivePassing(stream, event)
    this.#options.bus.publish(stream, encodePassing(this.#options.instanceId, event))
  }

  passTo(users: readonly string[], frame: string): void {
    if (users.length === 0) return
    const event = { frame, to: users }
    this.#receivePeople(event)
    this.#options.bus.publish(peopleChannel, encodePassing(this.#options.instanceId, event))
  }

  /** What the bus brings. This instance's own publications have passed its gates already. */
  receive(channel: string, payload: Buffer): void {
    if (isFrom(this.#options.instanceId, payload)) return
    const { events, passing } = decode(payload)
    if (events) this.#receive(channel as StreamId, events)
    else if (passing && channel === peopleChannel) this.#receivePeople(passing)
    else if (passing) this.#receivePassing(channel as StreamId, passing)
  }

  #receive(stream: StreamId, events: readonly Stamped[]): void {
    const gate = stream.startsWith('chat:') ? this.#chats.get(stream.slice(5))?.gate : this.#users.get(stream.slice(5))?.gate
    if (gate) for (const event of events) gate.push(event)
  }

  #receivePassing(stream: StreamId, { frame, to, not }: Passing): void {
    const bytes = encodeFrame(frame)
    if (stream.startsWith('user:')) {
      const user = this.#users.get(stream.slice(5))
      if (user) this.#toUser(user, bytes)
      return
    }
    const chat = this.#chats.get(stream.slice(5))
    if (!chat) return
    const only = to && new Set(to)
    for (const user of chat.users.keys()) {
      if (user.id !== not && (!only || only.has(user.id))) this.#toUser(user, bytes)
    }
  }

  #receivePeople({ frame, to = [] }: Passing): void {
    const here = to.map((id) => this.#users.get(id)).filter((user) => user !== undefined)
    if (here.length === 0) return
    const bytes = encodeFrame(frame)
    for (const user of here) this.#toUser(user, bytes)
  }

  #toUser(user: LocalUser, bytes: Buffer): void {
    for (const peer of user.peers) peer.send(bytes)
  }

  #deliverChat(chat: LocalChat, event: Stamped): void {
    const { effect, version } = event
    const bytes = encodeFrame(event.frame)
    let frames = 0
    for (const [user, { from }] of chat.users) {
      if (version <= from) continue
      frames += user.peers.size
      this.#toUser(user, bytes)
    }
    this.#options.metrics?.delivered(frames, event.at === undefined ? undefined : Date.now() - event.at)
    if (effect) this.#apply(chat, effect, version)
  }

  #apply(chat: LocalChat, effect: Effect, version: number): void {
    if ('joined' in effect) {
      const user = this.#users.get(effect.joined)
      if (user && !chat.users.has(user)) this.#attach(user, chat, version)
    } else if ('left' in effect) {
      chat.lastLeft = version
      const user = this.#users.get(effect.left)
      if (user && version > (chat.users.get(user)?.memberAt ?? -1)) this.#left(user, chat)
    } else if ('gone' in effect) {
      chat.lastLeft = version
      for (const user of [...chat.users.keys()]) this.#left(user, chat)
    }
  }

  #left(user: LocalUser, chat: LocalChat): void {
    this.#detach(user, chat)
    this.#options.onLeft?.(user.id, chat.id)
  }

  #deliverUser(user: LocalUser, event: Stamped): void {
    const attach = event.effect && 'attach' in event.effect ? event.effect.attach : undefined
    if (attach === undefined && user.chain === undefined) {
      this.#toOwn(user, event)
      return
    }
    // What follows an event that needs the database waits for it, so that a user's events keep their order.
    const step = async () => {
      if (attach === undefined) this.#toOwn(user, event)
      else await this.#addChat(user, attach, event)
    }
    const chain: Promise<void> = (user.chain ?? Promise.resolve()).then(step).catch((error: unknown) => {
      this.#options.onError(error, 'a chat could not be added to a live connection')
      for (const peer of [...user.peers]) peer.fail()
    })
    user.chain = chain
    void chain.then(() => {
      if (user.chain === chain) user.chain = undefined
    })
  }

  #toOwn(user: LocalUser, event: Stamped): void {
    if (event.effect && 'detach' in event.effect) {
      const chat = this.#chats.get(event.effect.detach)
      if (chat?.users.has(user)) this.#left(user, chat)
    }
    this.#toUser(user, encodeFrame(event.frame))
  }

  /** Subscribes first, then tells the chat as it stands: the frame is never older than what the gate has let pass. */
  async #addChat(user: LocalUser, chatId: string, stamp: { version: number; prev: number }): Promise<void> {
    await this.#bring(user)
    for (;;) {
      const added = await this.#options.sources.chatAdded(user.id, chatId, stamp)
      const chat = this.#chats.get(chatId)
      if (added && chat?.users.has(user) && added.version < chat.gate.version) continue
      if (added) this.#toUser(user, encodeFrame(added.frame))
      return
    }
  }

  // --- who is here -------------------------------------------------------------------------------------------------

  /** Resolves with the chats that this connection hears from now on. What happens meanwhile is told already. */
  async join(peer: Peer): Promise<string[]> {
    let user = this.#users.get(peer.userId)
    if (!user) {
      user = this.#newUser(peer.userId)
      this.#options.onPresence(peer.userId, true)
    }
    user.peers.add(peer)
    await user.ready
    return Array.from(user.chats, (chat) => chat.id)
  }

  leave(peer: Peer): void {
    const user = this.#users.get(peer.userId)
    if (!user?.peers.delete(peer) || user.peers.size > 0) return
    this.#users.delete(user.id)
    user.gate.close()
    this.#options.bus.unsubscribe([`user:${user.id}`])
    for (const chat of user.chats) this.#detach(user, chat)
    this.#options.onPresence(user.id, false)
  }

  /** Whether this user hears this chat here. */
  hears(userId: string, chatId: string): boolean {
    const user = this.#users.get(userId)
    const chat = this.#chats.get(chatId)
    return user !== undefined && chat?.users.has(user) === true
  }

  get size(): { users: number; chats: number } {
    return { users: this.#users.size, chats: this.#chats.size }
  }

  #newUser(id: string): LocalUser {
    const user: LocalUser = {
      id,
      peers: new Set(),
      chats: new Set(),
      chain: undefined,
      ready: Promise.resolve(),
      gate: new Gate({
        deliver: (event) => this.#deliverUser(user, event),
        load: (since) => this.#options.sources.userChanges(id, since),
        onFill: this.#options.metrics?.filled,
      }),
    }
    this.#users.set(id, user)
    user.ready = this.#subscribe(`user:${id}`).then(() => this.#bring(user))
    // Whoever awaits `ready` sees the error; nobody else has to.
    user.ready.catch(() => {})
    return user
  }

  /**
   * Makes `user` hear exactly their chats: subscribe to those without a gate, then read the list again, which is then
   * newer than every subscription. A list older than somebody's leaving
   * is read once more; of a channel, their leaving is told on their own stream, which waits until this is done.
   */
  async #bring(user: LocalUser): Promise<void> {
    const pinned = new Set<LocalChat>()
    try {
      let list = await this.#memberships(user.id)
      for (;;) {
        for (const { chat_id } of list?.chats ?? []) {
          const chat = this.#chats.get(chat_id) ?? this.#newChat(chat_id)
          if (pinned.has(chat)) continue
          chat.pins += 1
          pinned.add(chat)
        }
        await Promise.all(Array.from(pinned, (chat) => chat.subscribed))
        list = await this.#memberships(user.id)
        let stale = false
        for (const { chat_id, version } of list?.chats ?? []) {
          const chat = this.#chats.get(chat_id)
          if (chat === undefined || !pinned.has(chat)) stale = true
          else {
            // The subscription is older than the list: what came in between is held and newer than `version`.
            chat.gate.open(version)
            if (chat.lastLeft > version) stale = true
          }
        }
        if (!stale) break
      }
      if (this.#users.get(user.id) !== user) return
      for (const { chat_id, version } of list?.chats ?? []) {
        const chat = this.#chats.get(chat_id)
        const listening = chat?.users.get(user)
        if (listening) listening.memberAt = Math.max(listening.memberAt, version)
        else if (chat) this.#attach(user, chat, version)
      }
      user.gate.open(list?.user_version ?? 0)
    } finally {
      for (const chat of pinned) {
        chat.pins -= 1
        this.#dropIfUnused(chat)
      }
    }
  }

  #newChat(id: string): LocalChat {
    const chat: LocalChat = {
      id,
      users: new Map(),
      subscribed: this.#subscribe(`chat:${id}`),
      lastLeft: -1,
      pins: 0,
      gate: new Gate({
        deliver: (event) => this.#deliverChat(chat, event),
        load: (since) => this.#options.sources.chatChanges(id, since),
        onFill: this.#options.metrics?.filled,
      }),
    }
    this.#chats.set(id, chat)
    return chat
  }

  #attach(user: LocalUser, chat: LocalChat, from: number): void {
    chat.users.set(user, { from, memberAt: from })
    user.chats.add(chat)
  }

  #detach(user: LocalUser, chat: LocalChat): void {
    chat.users.delete(user)
    user.chats.delete(chat)
    this.#dropIfUnused(chat)
  }

  #dropIfUnused(chat: LocalChat): void {
    if (chat.users.size > 0 || chat.pins > 0 || this.#chats.get(chat.id) !== chat) return
    this.#chats.delete(chat.id)
    chat.gate.close()
    this.#options.bus.unsubscribe([`chat:${chat.id}`])
  }

  // --- what the bus lost -------------------------------------------------------------------------------------------

  /**
   * Compares what was heard with PostgreSQL: everything after a gap in the bus, a slice at a time otherwise, because a
   * quiet stream never reveals its hole. Lists of members are compared through their users' versions.
   */
  async sweep(everything: boolean): Promise<void> {
    const chats = [...this.#chats.keys()]
    const users = [...this.#users.keys()]
    const all = Math.max(chats.length, users.length)
    const slices = everything ? Math.ceil(all / sweepSlice) : Math.min(1, all)
    for (let n = 0; n < slices; n += 1) {
      const start = everything ? n * sweepSlice : this.#sweepAt
      this.#sweepAt = start + sweepSlice >= all ? 0 : start + sweepSlice
      try {
        const truth = await this.#options.sources.versions(
          chats.slice(start, start + sweepSlice),
          users.slice(start, start + sweepSlice),
        )
        for (const [id, version] of truth.chats) this.#chats.get(id)?.gate.behind(version)
        for (const [id, version] of truth.users) this.#users.get(id)?.gate.behind(version)
      } catch (error) {
        this.#options.onError(error, 'versions could not be compared with the database')
        return
      }
    }
  }
}
