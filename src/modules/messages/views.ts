import { type Queryable, sql } from '../../platform/db/db.ts'
import type { Message, MessageEvent, Reaction, ReplyTo, UserBrief } from '../../protocol/resources.ts'
import { type CursorRow, systemMessage, viewsAt } from '../chats/index.ts'
import { reactionsOf } from './reaction-rows.ts'
import { type MessageRow, messagesAt } from './rows.ts'

/** Messages as they are shown: neutral for events, with ticks for a reader. However many, the number of queries is the same. */

type Briefs = (ids: readonly string[]) => Promise<Map<string, UserBrief>>

/** Code points of a quoted message that are shown. */
const quoteLength = 200

export const place = (chatId: string, seq: number) => `${chatId} ${seq}`

function firstCodePoints(text: string, count: number): string {
  if (text.length <= count) return text
  return Array.from(text.slice(0, count * 2))
    .slice(0, count)
    .join('')
}

/** Messages with what is shown beside them, but for the people: those are asked for when no transaction is under way. */
export interface Parts {
  rows: readonly MessageRow[]
  quoted: ReadonlyMap<string, MessageRow>
  reactions: ReadonlyMap<string, readonly Reaction[]>
  /** Everybody whose name is shown. */
  people: string[]
}

/** Quotes are read now, so that a reply never shows what was deleted before it. `viewerId`: whose own reactions are marked. */
export async function partsOf(q: Queryable, rows: readonly MessageRow[], viewerId?: string): Promise<Parts> {
  const quotedAt = rows
    .filter((row) => row.reply_to_seq !== null)
    .map((row) => ({ chat_id: row.chat_id, seq: row.reply_to_seq! }))
  const quoted = await messagesAt(q, quotedAt)
  // What never changed has no reactions.
  const reactions = await reactionsOf(
    q,
    rows.filter((row) => row.changed && row.deleted_at === null),
    viewerId,
  )
  const people = new Set([...rows, ...quoted].map((row) => row.sender_id))
  for (const { forward_sender_id } of rows) if (forward_sender_id !== null) people.add(forward_sender_id)
  return {
    rows,
    quoted: new Map(quoted.map((row) => [place(row.chat_id, row.seq), row])),
    reactions,
    people: [...people],
  }
}

/** In the order of `rows`. */
export function compose({ rows, quoted, reactions }: Parts, people: ReadonlyMap<string, UserBrief>): MessageEvent[] {
  return rows.map((row) => {
    const original = row.reply_to_seq === null ? undefined : quoted.get(place(row.chat_id, row.reply_to_seq))
    return neutral(
      row,
      people,
      original ? quote(original, people.get(original.sender_id)!) : null,
      reactions.get(place(row.chat_id, row.seq)) ?? [],
    )
  })
}

/** The same for everyone. */
export async function messageEvents(q: Queryable, briefs: Briefs, rows: readonly MessageRow[]): Promise<MessageEvent[]> {
  const parts = await partsOf(q, rows)
  return compose(parts, await briefs(parts.people))
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

function neutral(
  row: MessageRow,
  people: ReadonlyMap<string, UserBrief>,
  reply_to: ReplyTo | null,
  reactions: readonly Reaction[],
): MessageEvent {
  const { id, chat_id, seq, version, client_id, created_at, message_type, content, edited_at, deleted_at, pinned_at, system } =
    row
  const sender = people.get(row.sender_id)!
  if (system)
    return {
      ...systemMessage({ id, chat_id, seq, version, client_id, created_at, sender, system }),
      reactions: [...reactions],
      deleted_at,
      pinned_at,
    }
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
    forwarded_from: attribution(row, people),
    media: [],
    mentions: row.mentions ?? [],
    reactions: [...reactions],
    system: null,
    is_edited: edited_at !== null,
    edited_at,
    deleted_at,
    pinned_at,
    created_at,
  }
}

function attribution(row: MessageRow, people: ReadonlyMap<string, UserBrief>): MessageEvent['forwarded_from'] {
  if (row.forward_sender_id === null) return null
  return {
    ...(row.forward_chat_id !== null && { chat_id: row.forward_chat_id }),
    sender: people.get(row.forward_sender_id)!,
  }
}

interface Ticks {
  others: number
  delivered: number
  read: number
  views: number | null
}

/** Where the members of a chat stand, for those chats of which it is known already. */
export type KnownCursors = ReadonlyMap<string, readonly CursorRow[]>

/**
 * How many of the other members who had joined before have it, and have read it; of a message in a channel, how many saw it,
 * without a look at its subscribers. Keys of chats, chat_members and channel_views.
 */
async function ticksOf(q: Queryable, rows: readonly MessageRow[], known: KnownCursors): Promise<Map<string, Ticks>> {
  const ticks = new Map<string, Ticks>()
  for (const row of rows) {
    const cursors = known.get(row.chat_id)
    if (cursors) ticks.set(place(row.chat_id, row.seq), countTicks(row, cursors))
  }
  const unknown = rows.filter((row) => !known.has(row.chat_id))
  if (unknown.length === 0) return ticks
  const found = await q.query<Ticks & Pick<MessageRow, 'chat_id' | 'seq'>>(sql`
    SELECT t.chat_id, t.seq, n.others, n.delivered, n.read, CASE WHEN c.type = 'channel' THEN ${viewsAt(sql`t.chat_id`, sql`t.seq`)} END AS views
    FROM unnest(${unknown.map((r) => r.chat_id)}::uuid[], ${unknown.map((r) => r.seq)}::bigint[], ${unknown.map((r) => r.sender_id)}::uuid[]) AS t(chat_id, seq, sender_id)
    JOIN chats c ON c.id = t.chat_id
    CROSS JOIN LATERAL (
      SELECT count(*)::int AS others, (count(*) FILTER (WHERE m.delivered_seq >= t.seq))::int AS delivered,
        (count(*) FILTER (WHERE m.read_seq >= t.seq))::int AS read
      FROM chat_members m
      WHERE c.type <> 'channel' AND m.chat_id = t.chat_id AND m.user_id <> t.sender_id AND m.left_at IS NULL AND m.joined_seq < t.seq
    ) AS n`)
  for (const { chat_id, seq, ...counts } of found) ticks.set(place(chat_id, seq), counts)
  return ticks
}

function countTicks({ seq, sender_id }: MessageRow, cursors: readonly CursorRow[]): Ticks {
  const ticks: Ticks = { others: 0, delivered: 0, read: 0, views: null }
  for (const { user_id, joined_seq, delivered_seq, read_seq } of cursors) {
    if (user_id === sender_id || joined_seq >= seq) continue
    ticks.others += 1
    if (delivered_seq >= seq) ticks.delivered += 1
    if (read_seq >= seq) ticks.read += 1
  }
  return ticks
}

/** With the viewer's own reactions marked and delivered and read counts, in the order of `rows`. `known`: cursors of active members that were read already. */
export async function messageViews(
  q: Queryable,
  briefs: Briefs,
  viewerId: string,
  rows: readonly MessageRow[],
  known: KnownCursors = new Map(),
): Promise<Message[]> {
  if (rows.length === 0) return []
  const parts = await partsOf(q, rows, viewerId)
  const ticks = await ticksOf(q, rows, known)
  return compose(parts, await briefs(parts.people)).map((event) => withTicks(event, ticks.get(place(event.chat_id, event.seq))))
}

/** Without anybody else to receive it, a message (in one's saved messages, say) counts as sent. */
export function withTicks(event: MessageEvent, ticks: Ticks = { others: 0, delivered: 0, read: 0, views: null }): Message {
  const { others, delivered, read, views } = ticks
  const status = others > 0 && read >= others ? 'read' : others > 0 && delivered >= others ? 'delivered' : 'sent'
  return { ...event, status, delivered_count: delivered, read_count: read, view_count: views }
}
