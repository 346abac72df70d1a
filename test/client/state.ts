import type { ServerEvent } from '../../src/protocol/events.ts'
import type {
  ChatEvent,
  Cursor,
  Me,
  Member,
  Message,
  MessageEvent,
  My,
  SyncAnswer,
  SyncChat,
} from '../../src/protocol/resources.ts'

/**
 * The client's algorithm: what a client holds, and how events and answers of `sync` change it. No network in here.
 *
 * Invariant: a chat at version v holds every change up to v of what it holds at all. An event is applied when nothing is
 * missing before it; what is already known is dropped; anything else waits (in the stash) for a sync to close the hole.
 */

export interface ChatState {
  version: number
  chat: ChatEvent
  my: My
  /** As told last; counted here where every message after the read cursor is held. */
  toldUnread: number
  lastSeq: number
  members: Map<string, Member>
  cursors: Map<string, Cursor>
  /** By seq; holes are legal. */
  messages: Map<number, MessageEvent | Message>
}

/** Events that arrived before what they build on. */
const maxStash = 1_000

type ChatStamped = Extract<ServerEvent, { chat_id: string; version: number; prev: number }>
type UserStamped = Extract<ServerEvent, { user_version: number; user_prev: number }>

export class ClientState {
  readonly myId: string
  readonly chats = new Map<string, ChatState>()
  userVersion = 0
  me: Me | undefined
  #stash: ServerEvent[] = []
  /** Set when something is missing: the owner of this state asks `sync`. */
  needsSync = false
  #asked = false

  constructor(myId: string) {
    this.myId = myId
  }

  /** What to ask `sync` with. */
  position(): { chats: Record<string, number>; user_version: number } {
    return {
      chats: Object.fromEntries(Array.from(this.chats, ([id, { version }]) => [id, version])),
      user_version: this.userVersion,
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
    if (event.prev > state.version) {
      this.#hold(event)
      return
    }
    state.version = event.version
    switch (event.type) {
      case 'new_message':
      case 'message_edited':
        this.#message(state, event.message)
        return
      case 'message_deleted': {
        const known = state.messages.get(event.seq)
        if (known)
          state.messages.set(event.seq, {
            ...known,
            version: event.version,
            content: '',
            deleted_at: known.deleted_at ?? new Date().toISOString(),
          })
        return
      }
      case 'member_joined':
        this.#member(state, event.member)
        return
      case 'member_left':
        state.members.delete(event.user_id)
        state.cursors.delete(event.user_id)
        return
      case 'chat_updated':
        state.chat = event.chat
        return
      default:
        event satisfies never
    }
  }

  #userEvent(event: UserStamped): void {
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
      case 'my_updated': {
        const state = this.chats.get(event.chat_id)
        if (state) this.#mine(state, event.my, event.unread_count)
        return
      }
      case 'chat_removed':
        this.chats.delete(event.chat_id)
        return
      case 'chat_added': {
        // What it looks like is known from here on; what was said in it comes with the next sync.
        const { chat } = event
        const known = this.chats.get(chat.id)
        if (known) this.#mine(known, chat.my, chat.unread_count)
        this.needsSync = true
        return
      }
      default:
        event satisfies never
    }
  }

  #passing(event: ServerEvent): void {
    if (event.type !== 'read' && event.type !== 'delivered') return
    const cursor = this.chats.get(event.chat_id)?.cursors.get(event.user_id)
    if (!cursor) return
    // Cursors only grow, so that the order in which they are heard does not matter.
    if (event.type === 'read') cursor.read_seq = Math.max(cursor.read_seq, event.read_seq)
    const delivered = event.type === 'read' ? event.read_seq : event.delivered_seq
    cursor.delivered_seq = Math.max(cursor.delivered_seq, delivered)
  }

  // --- catching up -----------------------------------------------------------------------------------------------

  /** A sync is about to be asked with the position as it is now. */
  asked(): void {
    this.#asked = true
    this.needsSync = false
  }

  /** Applying the same answer twice changes nothing. */
  synced(answer: SyncAnswer): void {
    for (const id of answer.removed) this.chats.delete(id)
    for (const entry of answer.chats) this.#entry(entry)
    this.userVersion = Math.max(this.userVersion, answer.user_version)
    this.me = answer.me
    this.#asked = false
    this.needsSync ||= answer.has_more
    const stash = this.#stash
    this.#stash = []
    for (const event of stash) this.event(event)
  }

  #entry(entry: SyncChat): void {
    const { chat, version, reset } = entry
    let state = this.chats.get(chat.id)
    if (!state || reset) {
      const { id, type, name, description, avatar_url, slug, owner_id, member_count, created_at } = chat
      state = {
        version: 0,
        chat: { id, type, name, description, avatar_url, slug, owner_id, member_count, created_at },
        my: chat.my,
        toldUnread: chat.unread_count,
        lastSeq: 0,
        members: new Map(),
        cursors: new Map(),
        messages: new Map(),
      }
      this.chats.set(chat.id, state)
    }
    for (const message of entry.messages) this.#message(state, message)
    for (const member of entry.members) {
      if (member.left_at === null) this.#member(state, member)
      else if (member.version > (state.members.get(member.user_id)?.version ?? 0)) {
        state.members.delete(member.user_id)
        state.cursors.delete(member.user_id)
      }
    }
    for (const cursor of entry.cursors) {
      const known = state.cursors.get(cursor.user_id)
      if (known?.joined_seq === cursor.joined_seq) {
        known.read_seq = Math.max(known.read_seq, cursor.read_seq)
        known.delivered_seq = Math.max(known.delivered_seq, cursor.delivered_seq)
      } else state.cursors.set(cursor.user_id, { ...cursor })
    }
    if (version >= state.version) {
      const { id, type, name, description, avatar_url, slug, owner_id, member_count, created_at } = chat
      state.chat = { id, type, name, description, avatar_url, slug, owner_id, member_count, created_at }
    }
    this.#mine(state, chat.my, chat.unread_count)
    state.lastSeq = Math.max(state.lastSeq, chat.last_seq)
    state.version = Math.max(state.version, version)
  }

  #message(state: ChatState, message: MessageEvent | Message): void {
    const known = state.messages.get(message.seq)
    if (message.seq <= state.my.cleared_seq) return
    if (!known || message.version > known.version) state.messages.set(message.seq, message)
    state.lastSeq = Math.max(state.lastSeq, message.seq)
  }

  #member(state: ChatState, member: Member): void {
    const known = state.members.get(member.user_id)
    if (known && known.version >= member.version) return
    state.members.set(member.user_id, member)
    if (!state.cursors.has(member.user_id)) {
      // Whoever joins has read what was there: nothing of it counts for their ticks.
      const seq = state.lastSeq
      state.cursors.set(member.user_id, { user_id: member.user_id, joined_seq: seq, read_seq: seq, delivered_seq: seq })
    }
  }

  #mine(state: ChatState, my: My, unread: number): void {
    state.my = {
      ...my,
      read_seq: Math.max(my.read_seq, state.my.read_seq),
      delivered_seq: Math.max(my.delivered_seq, state.my.delivered_seq),
      cleared_seq: Math.max(my.cleared_seq, state.my.cleared_seq),
    }
    state.toldUnread = unread
    for (const seq of state.messages.keys()) if (seq <= my.cleared_seq) state.messages.delete(seq)
  }

  // --- what a person sees ----------------------------------------------------------------------------------------

  /** Counted where every message after the read cursor is here, else as the server counted last. */
  unread(chatId: string): number {
    const state = this.chats.get(chatId)
    if (!state) return 0
    let count = 0
    for (let seq = Math.max(state.my.read_seq, state.my.cleared_seq) + 1; seq <= state.lastSeq; seq += 1) {
      const message = state.messages.get(seq)
      if (!message) return state.toldUnread
      if (message.sender_id !== this.myId && message.message_type !== 'system' && message.deleted_at === null) count += 1
    }
    return Math.min(count, 1_000)
  }

  /** The ticks of my message: by the cursors of the others who had joined before it. */
  status(chatId: string, seq: number): 'sent' | 'delivered' | 'read' {
    const state = this.chats.get(chatId)
    const others = [...(state?.cursors.values() ?? [])].filter((c) => c.user_id !== this.myId && c.joined_seq < seq)
    if (others.length > 0 && others.every((c) => c.read_seq >= seq)) return 'read'
    return others.length > 0 && others.every((c) => c.delivered_seq >= seq) ? 'delivered' : 'sent'
  }
}
