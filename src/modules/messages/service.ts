import type { Queryable } from '../../platform/db/db.ts'
import { AppError } from '../../platform/errors.ts'
import type { Identity } from '../../platform/identity.ts'
import { newId } from '../../platform/ids.ts'
import type { LimitState } from '../../platform/limits/limits.ts'
import { takeLimit } from '../../platform/limits/take.ts'
import type { Stamped } from '../../platform/news.ts'
import { frame } from '../../protocol/events.ts'
import type { Message, MessageEvent } from '../../protocol/resources.ts'
import type { ChatRow } from '../chats/index.ts'
import { accessToWrite } from './access.ts'
import type { Send, Written } from './batch.ts'
import type { MessageDeps } from './deps.ts'
import { mentionsIn } from './mentions.ts'
import { type MessageRow, messageById, messagesAt, messagesBetween } from './rows.ts'
import { messageEvents, messageViews, withTicks } from './views.ts'

export interface SendInput {
  chat_id: string
  content: string
  reply_to_id?: string | undefined
  client_id?: string | undefined
  /** Of a forwarded message: who wrote it first, and the public channel it was posted in. */
  forward_sender_id?: string | undefined
  forward_chat_id?: string | null | undefined
}

export interface Sent {
  message: Message
  duplicate: boolean
}

/** Counts a send, or several, over REST and WebSocket together. Rejects with `rate_limited`. */
export const takeMessageLimit = (deps: MessageDeps, userId: string, sends = 1): Promise<LimitState> =>
  takeLimit(deps.limits, 'message', userId, deps.messageRule, sends)

/** What is to be written. Rejects where this person may not send this here. */
export async function prepareSend(deps: MessageDeps, { user_id }: Identity, input: SendInput): Promise<Send> {
  await accessToWrite(deps, input.chat_id, user_id)
  const { chat_id, content } = input
  const reply_to_seq = input.reply_to_id === undefined ? null : await checkReply(deps.db, chat_id, input.reply_to_id)
  const mentions = await mentionsIn(deps, chat_id, user_id, content)
  return {
    id: newId(),
    chat_id,
    sender_id: user_id,
    client_id: input.client_id ?? newId(),
    message_type: 'text',
    content,
    reply_to_seq,
    forward_sender_id: input.forward_sender_id ?? null,
    forward_chat_id: input.forward_chat_id ?? null,
    mentions: mentions.length > 0 ? mentions : null,
  }
}

/**
 * Resolves once the message has its place in the queue; `committed` resolves after its commit. Two steps, so that a
 * connection's next send need not wait for this one's commit and still comes after it.
 */
export async function send(
  deps: MessageDeps,
  identity: Identity,
  input: SendInput,
): Promise<{ committed: Promise<Sent>; limit: LimitState }> {
  const limit = await takeMessageLimit(deps, identity.user_id)
  const written = deps.writer.send(await prepareSend(deps, identity, input))
  const committed = written.then((one) => answer(deps, identity.user_id, one))
  // Whoever awaits it sees the refusal.
  committed.catch(() => {})
  return { committed, limit }
}

/** A new message has no ticks yet; an earlier one is shown as it stands. */
export async function answer(deps: MessageDeps, viewerId: string, { row, event, duplicate }: Written): Promise<Sent> {
  if (event && !duplicate) {
    const views = (await deps.acl.get(deps.db, row.chat_id))?.type === 'channel' ? 0 : null
    return { message: withTicks(event, { others: 0, delivered: 0, read: 0, views }), duplicate }
  }
  const rows = duplicate ? await messagesAt(deps.db, [row]) : [row]
  return { message: (await messageViews(deps.db, deps.briefs, viewerId, rows))[0]!, duplicate }
}

/** The seq of the message replied to; it must be in the same chat. What a message's chat is never changes, so no lock is needed. */
async function checkReply(q: Queryable, chatId: string, messageId: string): Promise<number> {
  const row = await messageById(q, messageId)
  if (row?.chat_id !== chatId) throw new AppError('invalid_reply')
  return row.seq
}

/** `prev` is the version before, unless what took that one is not told any more. */
export function newMessage(message: MessageEvent, prev = message.version - 1): Stamped {
  const { chat_id, version } = message
  return { version, prev, frame: frame({ type: 'new_message', chat_id, version, prev, message }) }
}

/** Tells what was committed; resolves with what was told, by id. Never rejects: whoever listens finds a hole by itself. */
export async function tellWritten(
  deps: Pick<MessageDeps, 'db' | 'news' | 'briefs'> & { onError: (error: unknown, what: string) => void },
  rows: readonly MessageRow[],
): Promise<Map<string, MessageEvent>> {
  try {
    const fresh = rows.filter((row) => !row.changed)
    const messages = await messageEvents(deps.db, deps.briefs, fresh)
    const at = Date.now()
    for (const [chatId, mine] of Map.groupBy(messages, (message) => message.chat_id)) {
      deps.news.tell(
        `chat:${chatId}`,
        mine.map((message) => ({ ...newMessage(message), at })),
      )
    }
    return new Map(messages.map((message) => [message.id, message]))
  } catch (error) {
    deps.onError(error, 'a message could not be told')
    return new Map()
  }
}

export interface PageQuery {
  limit: number
  before?: number | undefined
  after?: number | undefined
  around?: number | undefined
  offset: number
}

/** `seq` has no holes, so that a page is a range of it. The chat's row gives the snapshot's version. */
export async function listMessages(
  deps: MessageDeps,
  viewerId: string,
  chat: Pick<ChatRow, 'chat_id' | 'last_seq' | 'cleared_seq' | 'version'>,
  query: PageQuery,
) {
  const { limit, offset } = query
  const first = chat.cleared_seq + 1
  const last = chat.last_seq
  let lo: number
  let hi: number
  if (query.after !== undefined) {
    lo = Math.max(first, query.after + 1)
    hi = Math.min(last, lo + limit - 1)
  } else if (query.around !== undefined) {
    lo = Math.max(first, Math.min(query.around, last) - Math.floor(limit / 2))
    hi = Math.min(last, lo + limit - 1)
  } else {
    hi = Math.min(last - offset, (query.before ?? Number.MAX_SAFE_INTEGER) - 1)
    lo = Math.max(first, hi - limit + 1)
  }
  const rows = hi < lo ? [] : await messagesBetween(deps.db, chat.chat_id, lo, hi)
  const messages = await messageViews(deps.db, deps.briefs, viewerId, rows)
  const has_more =
    query.after !== undefined ? hi < last : query.around !== undefined ? lo > first || hi < last : lo > first && hi >= lo
  return { messages, total: Math.max(0, last - chat.cleared_seq), limit, offset, has_more, version: chat.version }
}
