import { type Queryable, sql } from '../../platform/db/db.ts'

/**
 * Rows of those who only read a channel. They come and go without a version: the row has version 0, and is deleted when
 * they leave. Of somebody whom staff removed, or who had been an admin, the row stays as a tombstone, because that took a
 * version: whoever catches up must learn of it.
 */

/** Adds a subscriber under the chat's lock, who has read what was there before. False for whoever is in already. */
export async function insertSubscriber(tx: Queryable, chatId: string, userId: string, lastSeq: number): Promise<boolean> {
  const rows = await tx.query(sql`
    INSERT INTO chat_members (chat_id, user_id, role, version, joined_seq, read_seq, delivered_seq)
    VALUES (${chatId}, ${userId}, 'subscriber', 0, ${lastSeq}, ${lastSeq}, ${lastSeq})
    ON CONFLICT (chat_id, user_id) DO UPDATE SET role = 'subscriber', left_at = NULL, joined_at = now(), joined_seq = excluded.joined_seq,
      version = CASE WHEN chat_members.role = 'subscriber' THEN 0 ELSE chat_members.version END,
      read_seq = greatest(chat_members.read_seq, excluded.read_seq), delivered_seq = greatest(chat_members.delivered_seq, excluded.delivered_seq)
    WHERE chat_members.left_at IS NOT NULL
    RETURNING user_id`)
  return rows.length > 0
}

/** They leave by themselves. Had they been an admin, they are kept as one who left. */
export async function deleteSubscriber(tx: Queryable, chatId: string, userId: string): Promise<void> {
  const rows = await tx.query(
    sql`DELETE FROM chat_members WHERE chat_id = ${chatId} AND user_id = ${userId} AND version = 0 RETURNING user_id`,
  )
  if (rows.length > 0) return
  await tx.query(sql`UPDATE chat_members SET left_at = now(), role = 'member' WHERE chat_id = ${chatId} AND user_id = ${userId}`)
}

/** They are removed at this version. Says whether others were ever told of them, as an admin. */
export async function expelSubscriber(tx: Queryable, chatId: string, userId: string, version: number): Promise<boolean> {
  const [row] = await tx.query<{ role: string }>(sql`
    UPDATE chat_members SET left_at = now(), version = ${version}, role = CASE WHEN version = 0 THEN 'subscriber' ELSE 'member' END
    WHERE chat_id = ${chatId} AND user_id = ${userId} RETURNING role`)
  return row?.role === 'member'
}

/** Takes some of the members out of a channel that is deleted. Key of chat_members. */
export async function deleteSome(tx: Queryable, chatId: string, most: number): Promise<string[]> {
  const rows = await tx.query<{ user_id: string }>(sql`
    WITH few AS (
      SELECT user_id FROM chat_members WHERE chat_id = ${chatId} AND left_at IS NULL ORDER BY user_id LIMIT ${most} FOR UPDATE
    )
    DELETE FROM chat_members m USING few f WHERE m.chat_id = ${chatId} AND m.user_id = f.user_id RETURNING m.user_id`)
  return rows.map((row) => row.user_id)
}

/** Deleted channels in which somebody still is. Index chats_deleted_channels, key of chat_members. */
export async function deletedWithMembers(q: Queryable, most: number): Promise<string[]> {
  const rows = await q.query<{ id: string }>(sql`
    SELECT c.id FROM chats c WHERE c.type = 'channel' AND c.deleted_at IS NOT NULL
      AND EXISTS (SELECT FROM chat_members m WHERE m.chat_id = c.id AND m.left_at IS NULL) LIMIT ${most}`)
  return rows.map((row) => row.id)
}
