import type { ServerEvent } from '../../src/protocol/events.ts'
import type {
  Chat,
  ChatEvent,
  Cursor,
  Member,
  Message,
  MessageEvent,
  My,
  Reaction,
  SyncChat,
} from '../../src/protocol/resources.ts'

/** One chat as a client holds it. Invariant: at version v it holds every change up to v of what it holds at all. */

export type ChatStamped = Extract<ServerEvent, { chat_id: string; version: number; prev: number }>

/** What `GET /chats/:id/messages` answers, so far as it matters here. */
export interface HistoryPage {
  messages: Message[]
  version: number
}

const neutral = ({
  id,
  type,
  name,
  description,
  avatar_url,
  slug,
  owner_id,
  is_public,
  member_count,
  created_at,
}: Chat): ChatEvent => ({
  id,
  type,
  name,
  description,
  avatar_url,
  slug,
  owner_id,
  is_public,
  member_count,
  created_at,
})

export class ChatState {
  version = 0
  #chat: ChatEvent
  /** Nobody is missing from `members`: a very large chat tells only some, a channel its owner and admins alone. */
  readonly #knowsAll: boolean
  /** The last page of an answer that came in parts is still to come: until then no event follows on from here. */
  partial = false
  /** As told last, when the chat's last message was `toldSeq`; counted here where every message is held. */
  toldUnread = 0
  toldMentions = 0
  toldSeq = 0
  /** The chat's version when that was counted: what was deleted up to it is not in the count. */
  #toldVersion = 0
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
  /** What I gave to messages that are not here yet. */
  readonly #early = new Map<number, Reaction[]>()
  readonly #myId: string
  /** Messages of people whom I block are not counted. */
  readonly #isBlocked: (userId: string) => boolean
  #my: My

  constructor(myId: string, { chat, members, messages }: SyncChat, isBlocked: (userId: string) => boolean) {
    this.#myId = myId
    this.#isBlocked = isBlocked
    this.#chat = neutral(chat)
    this.#knowsAll = chat.type !== 'channel' && members.length >= chat.member_count
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
        this.#message(event.message)
        return
      case 'message_edited':
        this.#changed(event.message)
        return
      case 'message_deleted': {
        const { message, seq, version } = event
        // It is in the count that was told, unless that was taken later.
        const counts = message.sender_id !== this.#myId && !this.#isBlocked(message.sender_id) && version > this.#toldVersion
        if (counts && seq > this.#after && seq <= this.toldSeq) this.toldUnread = Math.max(0, this.toldUnread - 1)
        this.#changed(message)
        return
      }
      case 'reaction':
        this.#reaction(event)
        return
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

  /** What is mine alone; the counts as they were when the chat stood at `last_seq` and `version`. Cursors only grow. */
  mine(my: My, counts: Pick<Chat, 'unread_count' | 'mention_count' | 'last_seq' | 'version'>): void {
    const { read_seq, delivered_seq, cleared_seq } = this.#my
    this.#my = {
      ...my,
      read_seq: Math.max(my.read_seq, read_seq),
      delivered_seq: Math.max(my.delivered_seq, delivered_seq),
      cleared_seq: Math.max(my.cleared_seq, cleared_seq),
    }
    this.toldUnread = counts.unread_count
    this.toldMentions = counts.mention_count
    this.toldSeq = counts.last_seq
    this.#toldVersion = counts.version
    for (const seq of this.messages.keys()) if (seq <= this.#my.cleared_seq) this.messages.delete(seq)
  }

  /** Somebody's cursors, as heard, in whatever order. */
  moved(userId: string, read: number, delivered: number): void {
    const known = this.cursors.get(userId) ?? { read_seq: 0, delivered_seq: 0 }
    const read_seq = Math.max(known.read_seq, read)
    this.cursors.set(userId, { read_seq, delivered_seq: Math.max(known.delivered_seq, delivered, read_seq) })
  }

  #message(message: MessageEvent | Message): void {
    const { seq, version, edited_at, deleted_at } = message
    this.lastSeq = Math.max(this.lastSeq, seq)
    const known = this.messages.get(seq)
    if (seq > this.#my.cleared_seq && (!known || version > known.version)) {
      const mine = known?.reactions ?? this.#early.get(seq) ?? []
      this.#early.delete(seq)
      this.messages.set(seq, { ...message, reactions: withMine(message.reactions, mine) })
    }
    // Known or not: a reply may have come later, from an older page.
    if (edited_at !== null || deleted_at !== null) this.#quotes(this.messages.get(seq) ?? message)
  }

  /** Of a message older than what is held nothing is kept but what others quote of it: it comes with its page of history. */
  #changed(message: MessageEvent): void {
    if (this.messages.has(message.seq) || message.seq > this.heldFrom) this.#message(message)
    else this.#quotes(message)
  }

  /** Replies show what they reply to as it is now. */
  #quotes({ seq, content, deleted_at, sender, message_type, id }: MessageEvent): void {
    for (const [at, message] of this.messages) {
      if (message.reply_to?.seq !== seq) continue
      const reply_to = {
        id,
        seq,
        sender,
        content: Array.from(content).slice(0, 200).join(''),
        message_type,
        deleted: deleted_at !== null,
      }
      this.messages.set(at, { ...message, reply_to })
    }
  }

  #reaction({ seq, version, emoji, user_id, removed, count }: Extract<ChatStamped, { type: 'reaction' }>): void {
    const known = this.messages.get(seq)
    if (!known || known.version >= version) return
    const before = known.reactions.find((reaction) => reaction.emoji === emoji)
    const now: Reaction = { emoji, count, me: user_id === this.#myId ? !removed : (before?.me ?? false) }
    const reactions = before
      ? known.reactions.map((reaction) => (reaction === before ? now : reaction))
      : [...known.reactions, now]
    this.messages.set(seq, { ...known, version, reactions: reactions.filter((reaction) => reaction.count > 0) })
  }

  /** I reacted to this message, on this device or another. How many did is told by itself, before or after. */
  reacted(seq: number, emoji: string, removed: boolean): void {
    const known = this.messages.get(seq)
    if (!known) {
      const early = (this.#early.get(seq) ?? []).filter((reaction) => reaction.emoji !== emoji)
      this.#early.set(seq, removed ? early : [...early, { emoji, count: 1, me: true }])
      return
    }
    // It may have been deleted at the same moment: then nothing of it is left.
    if (known.deleted_at !== null) return
    const isThere = known.reactions.some((reaction) => reaction.emoji === emoji)
    const reactions = known.reactions.map((reaction) => (reaction.emoji === emoji ? { ...reaction, me: !removed } : reaction))
    this.messages.set(seq, {
      ...known,
      reactions: isThere || removed ? reactions : [...reactions, { emoji, count: 1, me: true }],
    })
  }

  /** The version of what is known of this person's membership. */
  #memberVersion(userId: string): number {
    return Math.max(this.members.get(userId)?.version ?? 0, this.#left.get(userId) ?? 0)
  }

  #member(member: Member): void {
    if (member.version <= this.#memberVersion(member.user_id)) return
    // Of a channel its owner and admins are told: who is one no more goes.
    if (member.role === 'subscriber') this.#leave(member.user_id, member.version)
    else this.members.set(member.user_id, member)
  }

  #leave(userId: string, version: number): void {
    if (version <= this.#memberVersion(userId)) return
    this.members.delete(userId)
    this.#left.set(userId, version)
  }

  /** Counted where every message after the read cursor is here, else from the server's last count on. */
  unread(): number {
    return this.#count(this.toldUnread, () => true)
  }

  /** Those of them that call me by name. */
  mentions(): number {
    return this.#count(this.toldMentions, ({ mentions }) => mentions.includes(this.#myId))
  }

  /** What is not newer I have seen, or deleted for myself. */
  get #after(): number {
    return Math.max(this.#my.read_seq, this.#my.cleared_seq)
  }

  #count(told: number, counts: (message: MessageEvent) => boolean): number {
    const isHeld = this.#after >= this.heldFrom
    const from = isHeld ? this.#after : Math.max(this.#after, this.toldSeq)
    let count = isHeld ? 0 : told
    for (const [seq, message] of this.messages) {
      const { sender_id, message_type, deleted_at } = message
      if (sender_id === this.#myId || this.#isBlocked(sender_id)) continue
      if (seq > from && message_type !== 'system' && deleted_at === null && counts(message)) count += 1
    }
    return Math.min(count, 1_000)
  }

  /** Who is to receive this message: the others who had joined before it. */
  receivers(seq: number): Member[] {
    return [...this.members.values()].filter((member) => member.user_id !== this.#myId && member.joined_seq < seq)
  }

  status(seq: number): 'sent' | 'delivered' | 'read' {
    if (this.#chat.type === 'channel') return 'sent'
    const others = this.receivers(seq).map(({ user_id }) => this.cursors.get(user_id))
    if (others.length === 0) return 'sent'
    if (others.every((cursor) => cursor && cursor.read_seq >= seq)) return 'read'
    return others.every((cursor) => cursor && cursor.delivered_seq >= seq) ? 'delivered' : 'sent'
  }

  /** A message of mine has not been read by all: where the others stand is worth asking for. */
  get waitsForTicks(): boolean {
    if (this.#chat.type === 'channel') return false
    for (const [seq, { sender_id, message_type }] of this.messages)
      if (sender_id === this.#myId && message_type !== 'system' && this.status(seq) !== 'read') return true
    return false
  }
}

/** Events do not say which reactions are mine: what is known of that stays. */
const withMine = (reactions: readonly Reaction[], known: readonly Reaction[]): Reaction[] =>
  reactions.map((reaction) => ({
    ...reaction,
    me: reaction.me ?? known.find(({ emoji }) => emoji === reaction.emoji)?.me ?? false,
  }))
