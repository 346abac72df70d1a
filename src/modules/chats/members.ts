import { type Queryable, sql } from '../../platform/db/db.ts'
import type { Member, Role, UserBrief } from '../../protocol/resources.ts'

/** A member as stored, without the person. */
export interface MemberRow {
  chat_id: string
  user_id: string
  role: Role
  joined_at: string
  joined_seq: number
  version: number
  left_at: string | null
}

export interface CursorRow {
  chat_id: string
  user_id: string
  read_seq: number
  delivered_seq: number
  joined_seq: number
}

export const memberResource = (row: MemberRow, user: UserBrief): Member => ({
  user_id: row.user_id,
  user,
  role: row.role,
  joined_at: row.joined_at,
  joined_seq: row.joined_seq,
  version: row.version,
  left_at: row.left_at,
})

/**
 * Active members of these chats, longest-standing first, at most `perChat` of each; of a channel the owner and admins alone.
 * Key of chat_members; index chat_members_staff.
 */
export async function activeMembers(q: Queryable, chatIds: readonly string[], perChat: number): Promise<MemberRow[]> {
  return q.query<MemberRow>(sql`
    SELECT m.* FROM unnest(${chatIds}::uuid[]) AS t(chat_id) JOIN chats c ON c.id = t.chat_id CROSS JOIN LATERAL (
      (SELECT chat_id, user_id, role, joined_at, joined_seq, version, left_at FROM chat_members
      WHERE c.type <> 'channel' AND chat_id = t.chat_id AND left_at IS NULL ORDER BY joined_at, user_id LIMIT ${perChat})
      UNION ALL
      (SELECT chat_id, user_id, role, joined_at, joined_seq, version, left_at FROM chat_members
      WHERE c.type = 'channel' AND chat_id = t.chat_id AND role IN ('owner', 'admin') ORDER BY joined_at, user_id LIMIT ${perChat})
    ) m`)
}

/** One page of a chat's active members in the order of their ids. Key of chat_members. */
export async function membersPage(q: Queryable, chatId: string, after: string, limit: number): Promise<MemberRow[]> {
  return q.query<MemberRow>(sql`
    SELECT chat_id, user_id, role, joined_at, joined_seq, version, left_at FROM chat_members
    WHERE chat_id = ${chatId} AND left_at IS NULL AND user_id > ${after} ORDER BY user_id LIMIT ${limit}`)
}

/**
 * Members changed in `(since, until]` of each chat, those who left too. Subscribers have version 0: of them, only those are
 * here who were removed, and those who had been admins. Index chat_members_version.
 */
export async function changedMembers(
  q: Queryable,
  ranges: readonly { chat_id: string; since: number; until: number }[],
): Promise<MemberRow[]> {
  if (ranges.length === 0) return []
  return q.query<MemberRow>(sql`
    SELECT m.chat_id, m.user_id, m.role, m.joined_at, m.joined_seq, m.version, m.left_at
    FROM unnest(${ranges.map((r) => r.chat_id)}::uuid[], ${ranges.map((r) => r.since)}::bigint[], ${ranges.map((r) => r.until)}::bigint[])
      AS t(chat_id, since, until)
    JOIN chat_members m ON m.chat_id = t.chat_id AND m.version > t.since AND m.version <= t.until
    ORDER BY m.chat_id, m.version`)
}

/** Where everybody stands. Cursors only grow, so the last one heard is right. Key of chat_members. */
export async function cursorsOf(q: Queryable, chatIds: readonly string[]): Promise<CursorRow[]> {
  return q.query<CursorRow>(sql`
    SELECT chat_id, user_id, read_seq, delivered_seq, joined_seq FROM chat_members
    WHERE chat_id = ANY(${chatIds}::uuid[]) AND left_at IS NULL`)
}

/** Adds or brings back members under the chat's lock; each takes the version beside their name. */
export async function insertMembers(
  q: Queryable,
  chatId: string,
  joinedSeq: number,
  members: readonly { user_id: string; role: Role; version: number }[],
): Promise<Map<string, MemberRow>> {
  const rows = await q.query<MemberRow>(sql`
    INSERT INTO chat_members (chat_id, user_id, role, version, joined_seq, read_seq, delivered_seq)
    SELECT ${chatId}::uuid, user_id, role, version, ${joinedSeq}::bigint, ${joinedSeq}::bigint, ${joinedSeq}::bigint
    FROM unnest(${members.map((m) => m.user_id)}::uuid[], ${members.map((m) => m.role)}::text[], ${members.map((m) => m.version)}::bigint[])
      AS t(user_id, role, version) ORDER BY user_id
    ON CONFLICT (chat_id, user_id) DO UPDATE SET role = excluded.role, version = excluded.version, left_at = NULL, joined_at = now(),
      joined_seq = excluded.joined_seq,
      read_seq = greatest(chat_members.read_seq, excluded.read_seq), delivered_seq = greatest(chat_members.delivered_seq, excluded.delivered_seq)
    RETURNING chat_id, user_id, role, joined_at, joined_seq, version, left_at`)
  return new Map(rows.map((row) => [row.user_id, row]))
}

/** Before several rows of members change one by one: cursors, too, are written in the order of the keys. */
export async function lockMembers(q: Queryable, chatId: string, userIds: readonly string[]): Promise<void> {
  await q.query(sql`
    SELECT 1 AS locked FROM chat_members WHERE chat_id = ${chatId} AND user_id = ANY(${userIds}::uuid[]) ORDER BY user_id FOR NO KEY UPDATE`)
}

export async function setRole(q: Queryable, chatId: string, userId: string, role: Role, version: number): Promise<MemberRow> {
  const [row] = await q.query<MemberRow>(sql`
    UPDATE chat_members SET role = ${role}, version = ${version} WHERE chat_id = ${chatId} AND user_id = ${userId}
    RETURNING chat_id, user_id, role, joined_at, joined_seq, version, left_at`)
  return row!
}

export async function setLeft(q: Queryable, chatId: string, userId: string, version: number): Promise<void> {
  await q.query(sql`
    UPDATE chat_members SET left_at = now(), role = 'member', version = ${version} WHERE chat_id = ${chatId} AND user_id = ${userId}`)
}

/** A subscriber who was removed, and never an admin: nobody was told of them, and nobody is. */
export const isUntold = ({ role, left_at }: Pick<MemberRow, 'role' | 'left_at'>): boolean =>
  role === 'subscriber' && left_at !== null

/** Who a group goes to when its owner leaves: the longest-standing admin, else member. */
export async function successor(q: Queryable, chatId: string, leaving: string): Promise<string | undefined> {
  const [row] = await q.query<{ user_id: string }>(sql`
    SELECT user_id FROM chat_members WHERE chat_id = ${chatId} AND left_at IS NULL AND user_id <> ${leaving}
    ORDER BY role = 'admin' DESC, joined_at, user_id LIMIT 1`)
  return row?.user_id
}

/** Who a channel goes to: the longest-standing admin, or nobody. Index chat_members_staff. */
export async function longestAdmin(q: Queryable, chatId: string): Promise<string | undefined> {
  const [row] = await q.query<{ user_id: string }>(sql`
    SELECT user_id FROM chat_members WHERE chat_id = ${chatId} AND role IN ('owner', 'admin') AND role = 'admin'
    ORDER BY joined_at, user_id LIMIT 1`)
  return row?.user_id
}
