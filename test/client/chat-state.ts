import type { ServerEvent } from '../../src/protocol/events.ts'
import type { Chat, ChatEvent, Cursor, Member, Message, MessageEvent, My, SyncChat } from '../../src/protocol/resources.ts'

/** One chat as a client holds it. Invariant: at version v it holds every change up to v of what it holds at all. */

export type ChatStamped = Extract<ServerEvent, { chat_id: string; version: number; prev: number }>

/** What `GET /chats/:id/messages` answers, so far as it matters here. */
export interface HistoryPage {
  messages: Message[]
  version: number
}

const neutral = ({ id, type, name, description, avatar_url, slug, owner_id, member_count, created_at }: Chat): ChatEvent => ({
  id,
  type,
  name,
  description,
  avatar_url,
  slug,
  owner_id,
  member_count,
  created_at,
})

export class ChatState {
  version = 0
  #chat: ChatEvent
  /** Nobody is missing from `members`: a very large chat tells only some. */
  readonly #knowsAll: boolean
  /** The last page of an answer that came in parts is still to come: until then no event follows on from here. */
  partial = false
  /** As told last, when the chat's last message was `toldSeq`; counted here where every message is held. */
  toldUnread = 0
  toldSeq = 0
  lastSeq = 0
  /** Every message after this one is held; what is older comes in pages of history. */
  readonly heldFrom: number
  readonly members = new Map<string, Member>()
  /** Who left, and in which version: an answer that is older must not bring them back. */
  readonly #left = new Map<string, number>()
  /** Also of those who left: cursors only grow, so what was once heard stays true. */
  readonly cursors = new Map<string, Pick<Cursor, 'read_seq' | 'delivered_seq'>>()
  /** By seq; holes are legal before `heldFrom`. */
  readonly messages = new Map<number, MessageEvent | Message>()
  readonly #myId: string
  #my: My

  constructor(myId: string, { chat, members, messages }: SyncChat) {
    this.#myId = myId
    this.#chat = neutral(chat)
    this.#knowsAll = members.length >= chat.member_count
    this.#my = chat.my
    this.heldFrom = (messages[0]?.seq ?? chat.last_seq + 1) - 1
  }

  /** Comings and goings are told by themselves, and need not repeat how many there are. */
  get chat(): ChatEvent {
    return this.#knowsAll ? { ...this.#chat, member_count: this.members.size } : this.#chat
  }

  /** A new message takes a chat out of the archive, unless it is muted: nobody is told, everybody can tell. */
  get my(): My {
    const my = this.#my
    const isMuted = my.muted_until !== null && Date.parse(my.muted_until) > Date.now()
    return { ...my, archived: my.archived_seq !== null && (isMuted || this.lastSeq <= my.archived_seq) }
  }

  /** An event that follows on from this version. */
  apply(event: ChatStamped): void {
    this.version = event.version
    switch (event.type) {
      case 'new_message':
      case 'message_edited':
        this.#message(event.message)
        return
      case 'message_deleted': {
        const known = this.messages.get(event.seq)
        const deleted_at = known?.deleted_at ?? new Date().toISOString()
        if (known) this.messages.set(event.seq, { ...known, version: event.version, content: '', deleted_at })
        return
      }
      case 'member_joined':
        this.#member(event.member)
        return
      case 'member_left':
        this.#leave(event.user_id, event.version)
        return
      case 'chat_updated':
        this.#chat = event.chat
        return
      default:
        event satisfies never
    }
  }

  /** An entry of `sync`'s answer, which was asked for from `since`. Says whether it has to be asked again. */
  entry(entry: SyncChat, since: number): boolean {
    const { chat, version, has_more } = entry
    for (const message of entry.messages) this.#message(message)
    for (const member of entry.members) {
      if (member.left_at === null) this.#member(member)
      else this.#leave(member.user_id, member.version)
    }
    for (const { user_id, read_seq, delivered_seq } of entry.cursors) this.moved(user_id, read_seq, delivered_seq)
    this.lastSeq = Math.max(this.lastSeq, chat.last_seq)
    // A page of history took this chat back further than the answer was asked from.
    if (since > this.version) return true
    if (version >= this.version) {
      this.partial = has_more
      if (!has_more) this.#chat = neutral(chat)
    }
    this.version = Math.max(this.version, version)
    return false
  }

  /**
   * A page of history. Where it was read before what is held here, it may show what has changed since, of messages whose
   * changes were dropped because they were not held: those changes are asked for again, from where the page stands.
   * Says whether they are to be.
   */
  page({ messages, version }: HistoryPage): boolean {
    for (const message of messages) this.#message(message)
    if (version >= this.version) return false
    this.version = version
    return true
  }

  /** What is mine alone; `unread` as it was when the last message was `lastSeq`. Cursors only grow. */
  mine(my: My, unread: number, lastSeq: number): void {
    const { read_seq, delivered_seq, cleared_seq } = this.#my
    this.#my = {
      ...my,
      read_seq: Math.max(my.read_seq, read_seq),
      delivered_seq: Math.max(my.delivered_seq, delivered_seq),
      cleared_seq: Math.max(my.cleared_seq, cleared_seq),
    }
    this.toldUnread = unread
    this.toldSeq = lastSeq
    for (const seq of this.messages.keys()) if (seq <= this.#my.cleared_seq) this.messages.delete(seq)
  }

  /** Somebody's cursors, as heard, in whatever order. */
  moved(userId: string, read: number, delivered: number): void {
    const known = this.cursors.get(userId) ?? { read_seq: 0, delivered_seq: 0 }
    const read_seq = Math.max(known.read_seq, read)
    this.cursors.set(userId, { read_seq, delivered_seq: Math.max(known.delivered_seq, delivered, read_seq) })
  }

  #message(message: MessageEvent | Message): void {
    this.lastSeq = Math.max(this.lastSeq, message.seq)
    if (message.seq <= this.#my.cleared_seq) return
    const known = this.messages.get(message.seq)
    if (!known || message.version > known.version) this.messages.set(message.seq, message)
  }

  /** The version of what is known of this person's membership. */
  #memberVersion(userId: string): number {
    return Math.max(this.members.get(userId)?.version ?? 0, this.#left.get(userId) ?? 0)
  }

  #member(member: Member): void {
    if (member.version > this.#memberVersion(member.user_id)) this.members.set(member.user_id, member)
  }

  #leave(userId: string, version: number): void {
    if (version <= this.#memberVersion(userId)) return
    this.members.delete(userId)
    this.#left.set(userId, version)
  }

  /** Counted where every message after the read cursor is here, else from the server's last count on. */
  unread(): number {
    const after = Math.max(this.#my.read_seq, this.#my.cleared_seq)
    if (after >= this.heldFrom) return Math.min(this.#unreadAfter(after), 1_000)
    return Math.min(this.toldUnread + this.#unreadAfter(Math.max(after, this.toldSeq)), 1_000)
  }

  #unreadAfter(after: number): number {
    let count = 0
    for (const [seq, { sender_id, message_type, deleted_at }] of this.messages)
      if (seq > after && sender_id !== this.#myId && message_type !== 'system' && deleted_at === null) count += 1
    return count
  }

  /** Who is to receive this message: the others who had joined before it. */
  receivers(seq: number): Member[] {
    return [...this.members.values()].filter((member) => member.user_id !== this.#myId && member.joined_seq < seq)
  }

  status(seq: number): 'sent' | 'delivered' | 'read' {
    const others = this.receivers(seq).map(({ user_id }) => this.cursors.get(user_id))
    if (others.length === 0) return 'sent'
    if (others.every((cursor) => cursor && cursor.read_seq >= seq)) return 'read'
    return others.every((cursor) => cursor && cursor.delivered_seq >= seq) ? 'delivered' : 'sent'
  }

  /** A message of mine has not been read by all: where the others stand is worth asking for. */
  get waitsForTicks(): boolean {
    for (const [seq, { sender_id, message_type }] of this.messages)
      if (sender_id === this.#myId && message_type !== 'system' && this.status(seq) !== 'read') return true
    return false
  }
}
