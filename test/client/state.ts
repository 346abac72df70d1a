import type { ServerEvent } from '../../src/protocol/events.ts'
import type { Me, Relation, SyncAnswer, SyncChat } from '../../src/protocol/resources.ts'
import { type ChatStamped, ChatState, type HistoryPage } from './chat-state.ts'

/**
 * The client's algorithm: what a client holds, and how events and answers of `sync` change it. No network in here.
 *
 * An event is applied when nothing is missing before it; what is already known is dropped; anything else waits (in the
 * stash) for a sync to close the hole. Answers of `sync` may be older than events that came while they were on their way.
 */

/** Events that arrived before what they build on. */
const maxStash = 1_000
/** Chats whose ticks are asked for at once. */
const maxTicks = 200

type UserStamped = Extract<ServerEvent, { user_version: number; user_prev: number }>

export interface Position {
  chats: Record<string, number>
  user_version: number
  ticks: string[]
}

export class ClientState {
  readonly myId: string
  readonly chats = new Map<string, ChatState>()
  userVersion = 0
  me: Me | undefined
  /** What I hold of others, by their id; what has ended stays as `none`, so that an older answer does not bring it back. */
  readonly relations = new Map<string, Relation>()
  #stash: ServerEvent[] = []
  /** Set when something is missing: the owner of this state asks `sync`. */
  needsSync = false
  /** What was asked from, while the answer is on its way. */
  #asked: Position | undefined
  /** Chats whose peers' cursors may have moved unheard. */
  #ticks = new Set<string>()

  constructor(myId: string) {
    this.myId = myId
  }

  /** Receipts may have been missed: they take no version, so that they have to be asked for by name. */
  wantTicks(): void {
    for (const [id, chat] of this.chats) if (chat.waitsForTicks) this.#ticks.add(id)
  }

  /** What to ask `sync` with. */
  position(): Position {
    return {
      chats: Object.fromEntries(Array.from(this.chats, ([id, { version }]) => [id, version])),
      user_version: this.userVersion,
      ticks: [...this.#ticks].slice(0, maxTicks),
    }
  }

  // --- events ----------------------------------------------------------------------------------------------------

  event(event: ServerEvent): void {
    if ('prev' in event) this.#chatEvent(event)
    else if ('user_prev' in event) this.#userEvent(event)
    else this.#passing(event)
  }

  #hold(event: ServerEvent): void {
    if (this.#stash.length >= maxStash) this.#stash = []
    this.#stash.push(event)
    this.needsSync = true
  }

  #chatEvent(event: ChatStamped): void {
    const state = this.chats.get(event.chat_id)
    // Not mine (any more): it comes back by `chat_added` or `sync`, if at all. While an answer is on its way that may
    // bring it, what is newer than the answer must not be lost.
    if (!state) {
      if (this.#asked) this.#stash.push(event)
      return
    }
    if (event.version <= state.version) return
    if (event.prev > state.version || state.partial) this.#hold(event)
    else state.apply(event)
  }

  #userEvent(event: UserStamped): void {
    // From here on this connection hears the chat, and a sync that told of it before may have been too early: what was
    // said in between comes with the next one.
    if (event.type === 'chat_added' && event.chat.version > (this.chats.get(event.chat.id)?.version ?? -1)) this.needsSync = true
    if (event.user_version <= this.userVersion) return
    if (event.user_prev > this.userVersion) {
      this.#hold(event)
      return
    }
    this.userVersion = event.user_version
    switch (event.type) {
      case 'me_updated':
        this.me = event.me
        return
      case 'my_updated':
        this.chats.get(event.chat_id)?.mine(event.my, { ...event, version: event.chat_version })
        return
      case 'chat_removed':
        this.chats.delete(event.chat_id)
        return
      case 'chat_added': {
        const { chat } = event
        this.chats.get(chat.id)?.mine(chat.my, chat)
        return
      }
      case 'contact_request':
      case 'contact_accepted':
      case 'relation_updated':
        this.#relation(event.relation)
        return
      default:
        event satisfies never
    }
  }

  #relation(relation: Relation): void {
    if (relation.version > (this.relations.get(relation.user_id)?.version ?? 0)) this.relations.set(relation.user_id, relation)
  }

  #passing(event: ServerEvent): void {
    if (event.type === 'read') this.chats.get(event.chat_id)?.moved(event.user_id, event.read_seq, event.read_seq)
    else if (event.type === 'delivered') this.chats.get(event.chat_id)?.moved(event.user_id, 0, event.delivered_seq)
    else if (event.type === 'my_reaction') this.chats.get(event.chat_id)?.reacted(event.seq, event.emoji, event.removed)
  }

  // --- catching up -----------------------------------------------------------------------------------------------

  /** A sync is about to be asked with the position as it is now. */
  asked(): Position {
    this.#asked = this.position()
    this.needsSync = false
    return this.#asked
  }

  /** Applying the same answer twice changes nothing. */
  synced(answer: SyncAnswer): void {
    const asked = this.#asked ?? this.position()
    this.#asked = undefined
    for (const id of answer.removed) this.chats.delete(id)
    // What it tells of my own may be older than what was heard meanwhile.
    const isOld = answer.user_version < this.userVersion && !answer.relations_reset
    let again = answer.has_more
    for (const entry of answer.chats) again = this.#entry(entry, asked, isOld) || again
    if (answer.relations_reset) this.relations.clear()
    for (const relation of answer.relations) this.#relation(relation)
    if (!isOld) this.me = answer.me
    // Own news that came before a chat was here found nothing to change there: they are asked for again.
    const hasNew = answer.chats.some(({ chat, reset }) => reset || asked.chats[chat.id] === undefined)
    if (!isOld || hasNew) this.userVersion = answer.user_version
    for (const id of asked.ticks) this.#ticks.delete(id)
    this.needsSync ||= again || (isOld && hasNew) || this.#ticks.size > 0
    const stash = this.#stash
    this.#stash = []
    for (const event of stash) this.event(event)
  }

  /** Says whether something about this chat has to be asked again. */
  #entry(entry: SyncChat, asked: Position, isOld: boolean): boolean {
    const { chat, reset } = entry
    const since = asked.chats[chat.id]
    let state = this.chats.get(chat.id)
    // It was removed while the answer was on its way: this is but a part of it, on top of what is no longer here.
    if (!state && since !== undefined && !reset) return true
    const isNew = !state || reset
    if (!state || isNew) {
      state = new ChatState(this.myId, entry, (id) => this.isBlocked(id))
      this.chats.set(chat.id, state)
    }
    const again = state.entry(entry, isNew ? 0 : since!)
    if (isNew || !isOld) state.mine(chat.my, chat)
    return again
  }

  /** A page of history, whenever its answer came. */
  page(chatId: string, page: HistoryPage): void {
    if (this.chats.get(chatId)?.page(page)) this.needsSync = true
  }

  // --- what a person sees ----------------------------------------------------------------------------------------

  isBlocked(userId: string): boolean {
    return this.relations.get(userId)?.relation === 'blocked'
  }

  unread(chatId: string): number {
    return this.chats.get(chatId)?.unread() ?? 0
  }

  mentions(chatId: string): number {
    return this.chats.get(chatId)?.mentions() ?? 0
  }

  /** The ticks of my message: by the cursors of the others who had joined before it. */
  status(chatId: string, seq: number): 'sent' | 'delivered' | 'read' {
    return this.chats.get(chatId)?.status(seq) ?? 'sent'
  }
}
