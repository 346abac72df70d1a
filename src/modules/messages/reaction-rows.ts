import { type Queryable, sql } from '../../platform/db/db.ts'
import type { Reaction } from '../../protocol/resources.ts'

/** Who reacted how, as stored. */

type Place = { chat_id: string; seq: number }

/**
 * How often each emoji was given to each of these messages, the first one used first; `me` where `viewerId` is one of
 * them, and left out without a viewer. By "chat seq". Key of message_reactions.
 */
export async function reactionsOf(q: Queryable, places: readonly Place[], viewerId?: string): Promise<Map<string, Reaction[]>> {
  if (places.length === 0) return new Map()
  const rows = await q.query<Place & { emoji: string; count: number; me: boolean | null }>(sql`
    SELECT r.chat_id, r.seq, r.emoji, count(*)::int AS count, bool_or(r.user_id = ${viewerId ?? null}::uuid) AS me
    FROM unnest(${places.map((p) => p.chat_id)}::uuid[], ${places.map((p) => p.seq)}::bigint[]) AS t(chat_id, seq)
    JOIN message_reactions r ON r.chat_id = t.chat_id AND r.seq = t.seq
    GROUP BY r.chat_id, r.seq, r.emoji ORDER BY min(r.created_at), r.emoji`)
  const found = new Map<string, Reaction[]>()
  for (const { chat_id, seq, emoji, count, me } of rows) {
    const key = `${chat_id} ${seq}`
    const reaction: Reaction = me === null ? { emoji, count } : { emoji, count, me }
    const known = found.get(key)
    if (known) known.push(reaction)
    else found.set(key, [reaction])
  }
  return found
}

/** False when it was there already. */
export async function insertReaction(tx: Queryable, { chat_id, seq }: Place, userId: string, emoji: string): Promise<boolean> {
  const rows = await tx.query(sql`
    INSERT INTO message_reactions (chat_id, seq, emoji, user_id, created_at)
    VALUES (${chat_id}, ${seq}, ${emoji}, ${userId}, clock_timestamp()) ON CONFLICT DO NOTHING RETURNING seq`)
  return rows.length > 0
}

/**
 * The same under the chat's lock, where each reaction is told by itself: `created_at` is that of the emoji's first use, and
 * no two emojis of a message share it, so that their order is that of the events, whoever takes theirs back.
 */
export async function insertReactionInTurn(
  tx: Queryable,
  { chat_id, seq }: Place,
  userId: string,
  emoji: string,
): Promise<boolean> {
  const rows = await tx.query(sql`
    INSERT INTO message_reactions (chat_id, seq, emoji, user_id, created_at)
    SELECT ${chat_id}::uuid, ${seq}::bigint, ${emoji}, ${userId}::uuid, coalesce(
      min(created_at) FILTER (WHERE emoji = ${emoji}), greatest(clock_timestamp(), max(created_at) + interval '1 ms'))
    FROM message_reactions WHERE chat_id = ${chat_id} AND seq = ${seq} ON CONFLICT DO NOTHING RETURNING seq`)
  return rows.length > 0
}

/** False when there was none. */
export async function removeReaction(tx: Queryable, { chat_id, seq }: Place, userId: string, emoji: string): Promise<boolean> {
  const rows = await tx.query(sql`
    DELETE FROM message_reactions WHERE chat_id = ${chat_id} AND seq = ${seq} AND emoji = ${emoji} AND user_id = ${userId} RETURNING seq`)
  return rows.length > 0
}
