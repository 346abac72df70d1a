import { type Queryable, sql } from '../../platform/db/db.ts'
import type { MessageType, System } from '../../protocol/resources.ts'

/** A message as stored. */
export interface MessageRow {
  chat_id: string
  seq: number
  version: number
  id: string
  sender_id: string
  client_id: string
  created_at: string
  edited_at: string | null
  deleted_at: string | null
  pinned_at: string | null
  reply_to_seq: number | null
  forward_sender_id: string | null
  forward_chat_id: string | null
  mentions: string[] | null
  changed: boolean
  message_type: MessageType
  content: string
  system: System | null
}

export const columns = sql`m.chat_id, m.seq, m.version, m.id, m.sender_id, m.client_id, m.created_at, m.edited_at, m.deleted_at, m.pinned_at,
  m.reply_to_seq, m.forward_sender_id, m.forward_chat_id, m.mentions, m.changed, m.message_type, m.content, m.system`

/** Messages `lo` to `hi`, both inclusive, oldest first. Key of messages. */
export async function messagesBetween(q: Queryable, chatId: string, lo: number, hi: number): Promise<MessageRow[]> {
  return q.query<MessageRow>(
    sql`SELECT ${columns} FROM messages m WHERE m.chat_id = ${chatId} AND m.seq BETWEEN ${lo} AND ${hi} ORDER BY m.seq`,
  )
}

/** By chat and seq. Key of messages. */
export async function messagesAt(q: Queryable, places: readonly { chat_id: string; seq: number }[]): Promise<MessageRow[]> {
  if (places.length === 0) return []
  return q.query<MessageRow>(sql`
    SELECT ${columns} FROM unnest(${places.map((p) => p.chat_id)}::uuid[], ${places.map((p) => p.seq)}::bigint[]) AS t(chat_id, seq)
    JOIN messages m ON m.chat_id = t.chat_id AND m.seq = t.seq`)
}

/** By its id alone. Index messages_id. */
export async function messageById(q: Queryable, id: string): Promise<MessageRow | undefined> {
  const [row] = await q.query<MessageRow>(sql`SELECT ${columns} FROM messages m WHERE m.id = ${id}`)
  return row
}

/** What of these sends is there already. Index messages_client_id. */
export async function messagesByClientId(
  q: Queryable,
  sends: readonly { chat_id: string; sender_id: string; client_id: string }[],
): Promise<MessageRow[]> {
  return q.query<MessageRow>(sql`
    SELECT ${columns}
    FROM unnest(${sends.map((s) => s.chat_id)}::uuid[], ${sends.map((s) => s.sender_id)}::uuid[], ${sends.map((s) => s.client_id)}::uuid[])
      AS t(chat_id, sender_id, client_id)
    JOIN messages m ON m.chat_id = t.chat_id AND m.sender_id = t.sender_id AND m.client_id = t.client_id`)
}
