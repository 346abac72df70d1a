import { type Queryable, sql } from '../../platform/db/db.ts'
import type { Message, MessageEvent, ReplyTo, UserBrief } from '../../protocol/resources.ts'
import { systemMessage } from '../chats/index.ts'
import { type MessageRow, messagesAt } from './rows.ts'

/** Messages as they are shown: neutral for events, with ticks for a reader. However many, the number of queries is the same. */

type Briefs = (ids: readonly string[]) => Promise<Map<string, UserBrief>>

/** Code points of a quoted message that are shown. */
const quoteLength = 200

const place = (chatId: string, seq: number) => `${chatId} ${seq}`

function firstCodePoints(text: string, count: number): string {
  if (text.length <= count) return text
  return Array.from(text.slice(0, count * 2))
    .slice(0, count)
    .join('')
}

/** The same for everyone. Quotes are read now, so that a reply never shows what was deleted before it. */
export async function messageEvents(q: Queryable, briefs: Briefs, rows: readonly MessageRow[]): Promise<MessageEvent[]> {
  const quotedAt = rows
    .filter((row) => row.reply_to_seq !== null)
    .map((row) => ({ chat_id: row.chat_id, seq: row.reply_to_seq! }))
  const quoted = await messagesAt(q, quotedAt)
  const people = await briefs([...new Set([...rows, ...quoted].map((row) => row.sender_id))])
  const quotes = new Map(quoted.map((row) => [place(row.chat_id, row.seq), quote(row, people.get(row.sender_id)!)]))
  return rows.map((row) => {
    const sender = people.get(row.sender_id)!
    return neutral(row, sender, row.reply_to_seq === null ? null : (quotes.get(place(row.chat_id, row.reply_to_seq)) ?? null))
  })
}

function quote(row: MessageRow, sender: UserBrief): ReplyTo {
  return {
    id: row.id,
    seq: row.seq,
    sender,
    content: firstCodePoints(row.content, quoteLength),
    message_type: row.message_type,
    deleted: row.deleted_at !== null,
  }
}

function neutral(row: MessageRow, sender: UserBrief, reply_to: ReplyTo | null): MessageEvent {
  const { id, chat_id, seq, version, client_id, created_at, message_type, content, edited_at, deleted_at, pinned_at, system } =
    row
  if (system)
    return { ...systemMessage({ id, chat_id, seq, version, client_id, created_at, sender, system }), deleted_at, pinned_at }
  return {
    id,
    chat_id,
    seq,
    version,
    sender_id: sender.id,
    sender,
    client_id,
    message_type,
    content,
    reply_to,
    forwarded_from: null,
    media: [],
    mentions: [],
    reactions: [],
    system: null,
    is_edited: edited_at !== null,
    edited_at,
    deleted_at,
    pinned_at,
    created_at,
  }
}

interface Ticks {
  chat_id: string
  seq: number
  others: number
  delivered: number
  read: number
}

/** How many of the other members who had joined before have it, and have read it. Key of chat_members. */
async function ticksOf(q: Queryable, rows: readonly MessageRow[]): Promise<Map<string, Ticks>> {
  const found = await q.query<Ticks>(sql`
    SELECT t.chat_id, t.seq, count(*)::int AS others, (count(*) FILTER (WHERE m.delivered_seq >= t.seq))::int AS delivered,
      (count(*) FILTER (WHERE m.read_seq >= t.seq))::int AS read
    FROM unnest(${rows.map((r) => r.chat_id)}::uuid[], ${rows.map((r) => r.seq)}::bigint[], ${rows.map((r) => r.sender_id)}::uuid[]) AS t(chat_id, seq, sender_id)
    JOIN chat_members m ON m.chat_id = t.chat_id AND m.user_id <> t.sender_id AND m.left_at IS NULL AND m.joined_seq < t.seq
    GROUP BY t.chat_id, t.seq`)
  return new Map(found.map((ticks) => [place(ticks.chat_id, ticks.seq), ticks]))
}

/** With delivered and read counts, in the order of `rows`. */
export async function messageViews(q: Queryable, briefs: Briefs, rows: readonly MessageRow[]): Promise<Message[]> {
  if (rows.length === 0) return []
  const events = await messageEvents(q, briefs, rows)
  const ticks = await ticksOf(q, rows)
  return events.map((event) => withTicks(event, ticks.get(place(event.chat_id, event.seq))))
}

/** Without anybody else to receive it, a message (in one's saved messages, say) counts as sent. */
export function withTicks(
  event: MessageEvent,
  ticks: Pick<Ticks, 'others' | 'delivered' | 'read'> = { others: 0, delivered: 0, read: 0 },
): Message {
  const { others, delivered, read } = ticks
  const status = others > 0 && read >= others ? 'read' : others > 0 && delivered >= others ? 'delivered' : 'sent'
  return { ...event, status, delivered_count: delivered, read_count: read, view_count: null }
}
