import { type Queryable, sql } from '../../platform/db/db.ts'
import type { UserStatus } from '../../protocol/resources.ts'

/** Larger groups are not told who comes and goes. */
export const maxGroupTold = 50
/** Nobody's coming concerns more people than this. */
const maxWatchers = 1_000

/** Who is to hear of each of these: the other people of their direct chats and small groups. Keys of user_chats and chat_members. */
export async function watchersOf(q: Queryable, userIds: readonly string[]): Promise<Map<string, string[]>> {
  const rows = await q.query<{ user_id: string; watchers: string[] }>(sql`
    SELECT t.user_id, w.watchers FROM unnest(${userIds}::uuid[]) AS t(user_id)
    CROSS JOIN LATERAL (
      SELECT array_agg(user_id) AS watchers FROM (
        SELECT DISTINCT p.user_id FROM user_chats u
        JOIN chat_counters k ON k.chat_id = u.chat_id AND k.member_count <= ${maxGroupTold}
        JOIN chat_members p ON p.chat_id = u.chat_id AND p.left_at IS NULL AND p.user_id <> u.user_id
        WHERE u.user_id = t.user_id AND u.is_member LIMIT ${maxWatchers}
      ) AS few
    ) AS w WHERE w.watchers IS NOT NULL`)
  return new Map(rows.map((row) => [row.user_id, row.watchers]))
}

export interface Shown {
  id: string
  status: UserStatus
  /** Null where only some may know. */
  last_seen: string | null
}

/** How these are shown to just anybody. */
export async function shown(q: Queryable, userIds: readonly string[]): Promise<Shown[]> {
  return q.query<Shown>(sql`
    SELECT id, status, CASE WHEN privacy_last_seen = 'everyone' THEN last_seen END AS last_seen
    FROM users WHERE id = ANY(${userIds}::uuid[]) AND deleted_at IS NULL`)
}

/** They were here until now. Invisible ones leave no trace. */
export async function seen(q: Queryable, userIds: readonly string[]): Promise<void> {
  await q.query(sql`
    WITH due AS (SELECT id FROM users WHERE id = ANY(${userIds}::uuid[]) AND status <> 'invisible' ORDER BY id FOR NO KEY UPDATE)
    UPDATE users SET last_seen = now() FROM due WHERE users.id = due.id`)
}

/** Keys of user_chats and chats. */
export async function isMember(q: Queryable, userId: string, chatId: string): Promise<boolean> {
  const rows = await q.query(sql`
    SELECT 1 FROM user_chats u JOIN chats c ON c.id = u.chat_id AND c.deleted_at IS NULL
    WHERE u.user_id = ${userId} AND u.chat_id = ${chatId} AND u.is_member`)
  return rows.length > 0
}
