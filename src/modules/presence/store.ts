import { type Queryable, sql } from '../../platform/db/db.ts'
import type { UserStatus } from '../../protocol/resources.ts'

/** Larger groups are not told who comes and goes. */
export const maxGroupTold = 50
/** Nobody's coming concerns more people than this, contacts and others each. */
const maxWatchers = 1_000

export interface Watcher {
  user_id: string
  /** Who is to hear of `user_id`. */
  watcher_id: string
  is_contact: boolean
  /** One of the two blocks the other: nothing is told. */
  is_blocked: boolean
}

/**
 * Who is to hear of each of these: their contacts, and the other people of their direct chats and small groups. Keys of user_chats,
 * chat_members and relations, index relations_contacts.
 */
export async function watchersOf(q: Queryable, userIds: readonly string[]): Promise<Map<string, Watcher[]>> {
  const rows = await q.query<Watcher>(sql`
    SELECT t.user_id, w.id AS watcher_id, w.is_contact, w.is_blocked FROM unnest(${userIds}::uuid[]) AS t(user_id)
    CROSS JOIN LATERAL (
      SELECT few.id, bool_or(few.is_contact) AS is_contact, EXISTS (
        SELECT 1 FROM relations b WHERE b.blocked
          AND ((b.user_id = t.user_id AND b.other_id = few.id) OR (b.user_id = few.id AND b.other_id = t.user_id))) AS is_blocked
      FROM (
        (SELECT r.other_id AS id, true AS is_contact FROM relations r WHERE r.user_id = t.user_id AND r.state = 'contact' LIMIT ${maxWatchers})
        UNION ALL
        (SELECT DISTINCT p.user_id, false FROM user_chats u
        JOIN chat_counters k ON k.chat_id = u.chat_id AND k.member_count <= ${maxGroupTold}
        JOIN chats c ON c.id = u.chat_id AND c.type <> 'channel'
        JOIN chat_members p ON p.chat_id = u.chat_id AND p.left_at IS NULL AND p.user_id <> u.user_id
        WHERE u.user_id = t.user_id AND u.is_member LIMIT ${maxWatchers})
      ) AS few GROUP BY few.id
    ) AS w`)
  return Map.groupBy(rows, (row) => row.user_id)
}

export interface Shown {
  id: string
  status: UserStatus
  last_seen: string | null
  privacy_last_seen: 'everyone' | 'contacts' | 'nobody'
}

/** How these stand, before it is decided who may know. Deleted accounts too: they go like others. */
export async function shown(q: Queryable, userIds: readonly string[]): Promise<Shown[]> {
  return q.query<Shown>(sql`
    SELECT id, status, last_seen, privacy_last_seen FROM users WHERE id = ANY(${userIds}::uuid[])`)
}

/** They were here until now. Invisible ones leave no trace. */
export async function seen(q: Queryable, userIds: readonly string[]): Promise<void> {
  await q.query(sql`
    WITH due AS (SELECT id FROM users WHERE id = ANY(${userIds}::uuid[]) AND status <> 'invisible' AND deleted_at IS NULL ORDER BY id FOR NO KEY UPDATE)
    UPDATE users SET last_seen = now() FROM due WHERE users.id = due.id`)
}

/** Keys of user_chats and chats. */
export async function isMember(q: Queryable, userId: string, chatId: string): Promise<boolean> {
  const rows = await q.query(sql`
    SELECT 1 FROM user_chats u JOIN chats c ON c.id = u.chat_id AND c.deleted_at IS NULL
    WHERE u.user_id = ${userId} AND u.chat_id = ${chatId} AND u.is_member`)
  return rows.length > 0
}
