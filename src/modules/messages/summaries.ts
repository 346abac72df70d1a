import { type Queryable, sql } from '../../platform/db/db.ts'
import type { UserBrief } from '../../protocol/resources.ts'
import type { Known, Standing, Summary, Unread } from '../chats/index.ts'
import { messagesAt } from './rows.ts'
import { messageViews } from './views.ts'

/** Unread counts stop here: "999+". */
export const maxUnread = 1_000
/** And look at so many messages at most, were the rest one's own. */
const maxLookedAt = 5_000

/**
 * Others' messages after the read cursor, up to the `last_seq` that is told beside the count, that are neither system nor deleted, nor from somebody whom the viewer blocks. Bounded by the key of messages: a chat
 * that is read to its end costs nothing, one never opened a thousand rows. Mentions of the viewer beside it, by the key of message_mentions. Who is blocked is
 * looked up once, by the index relations_blocked.
 */
export async function unreadCounts(q: Queryable, viewerId: string, standings: readonly Standing[]): Promise<Map<string, Unread>> {
  const blocked = sql`ARRAY(SELECT other_id FROM relations WHERE user_id = ${viewerId} AND blocked)`
  const behind = standings.filter((s) => s.last_seq > Math.max(s.read_seq, s.cleared_seq))
  const rows =
    behind.length === 0
      ? []
      : await q.query<{ chat_id: string } & Unread>(sql`
    SELECT t.chat_id, n.unread_count, c.mention_count, k.version
    FROM unnest(${behind.map((s) => s.chat_id)}::uuid[],
      ${behind.map((s) => Math.max(s.read_seq, s.cleared_seq, s.last_seq - maxLookedAt))}::bigint[], ${behind.map((s) => s.last_seq)}::bigint[])
      AS t(chat_id, after, last_seq)
    JOIN chat_counters k ON k.chat_id = t.chat_id
    CROSS JOIN LATERAL (
      SELECT count(*)::int AS unread_count FROM (
        SELECT 1 FROM messages m
        WHERE m.chat_id = t.chat_id AND m.seq > t.after AND m.seq <= t.last_seq AND m.sender_id <> ${viewerId} AND m.message_type <> 'system' AND m.deleted_at IS NULL
          AND m.sender_id <> ALL (${blocked})
        LIMIT ${maxUnread}
      ) AS few
    ) AS n
    CROSS JOIN LATERAL (
      SELECT count(*)::int AS mention_count FROM (
        SELECT 1 FROM message_mentions m
        WHERE m.chat_id = t.chat_id AND m.user_id = ${viewerId} AND m.seq > t.after AND m.seq <= t.last_seq AND m.sender_id <> ALL (${blocked})
        LIMIT ${maxUnread}
      ) AS few
    ) AS c`)
  const counts = new Map(rows.map(({ chat_id, ...unread }) => [chat_id, unread]))
  return new Map(standings.map(({ chat_id }) => [chat_id, counts.get(chat_id) ?? { unread_count: 0, mention_count: 0 }]))
}

/**
 * Chats of this user with unread messages from that one: whose counts change when the one blocks the other. Both have been
 * members of them. Keys of user_chats, chat_members and messages.
 */
export async function chatsUnreadFrom(q: Queryable, userId: string, senderId: string): Promise<string[]> {
  const rows = await q.query<{ chat_id: string }>(sql`
    SELECT u.chat_id FROM user_chats u
    JOIN chat_members p ON p.chat_id = u.chat_id AND p.user_id = ${senderId}
    JOIN chat_members m ON m.chat_id = u.chat_id AND m.user_id = u.user_id AND m.left_at IS NULL
    JOIN chat_counters k ON k.chat_id = u.chat_id
    CROSS JOIN LATERAL (
      SELECT 1 FROM messages x WHERE x.chat_id = u.chat_id AND x.seq > greatest(m.read_seq, u.cleared_seq, k.last_seq - ${maxLookedAt})
        AND x.sender_id = ${senderId} AND x.message_type <> 'system' AND x.deleted_at IS NULL
      LIMIT 1
    ) AS one
    WHERE u.user_id = ${userId} AND u.is_member`)
  return rows.map((row) => row.chat_id)
}

export async function summaries(
  q: Queryable,
  briefs: (ids: readonly string[]) => Promise<Map<string, UserBrief>>,
  viewerId: string,
  standings: readonly Standing[],
  known?: Known,
): Promise<Map<string, Summary>> {
  const unread = await unreadCounts(q, viewerId, standings)
  const asked = standings.filter((s) => s.last_seq > s.cleared_seq && !known?.last.has(s.chat_id))
  const rows = await messagesAt(
    q,
    asked.map(({ chat_id, last_seq }) => ({ chat_id, seq: last_seq })),
  )
  const views = await messageViews(q, briefs, viewerId, rows, known?.cursors)
  const messages = new Map(known?.last)
  for (const message of views) messages.set(message.chat_id, message)
  return new Map(
    standings.map(({ chat_id }) => [chat_id, { last_message: messages.get(chat_id) ?? null, ...unread.get(chat_id)! }]),
  )
}

/** A receipt that covers more than this tells the authors of the newest ones. */
const maxReceiptSpan = 1_000

/** Who wrote the messages in each range, and the id of its last message; by position. Key of messages. */
export async function authorsOf(
  q: Queryable,
  ranges: readonly { chat_id: string; after: number; until: number }[],
): Promise<{ sender_id: string; last_id: string }[][]> {
  const rows = await q.query<{ n: number; sender_id: string; last_id: string }>(sql`
    SELECT t.n::int AS n, a.sender_id, (SELECT id FROM messages WHERE chat_id = t.chat_id AND seq = t.until) AS last_id
    FROM unnest(${ranges.map((r) => r.chat_id)}::uuid[], ${ranges.map((r) => Math.max(r.after, r.until - maxReceiptSpan))}::bigint[],
      ${ranges.map((r) => r.until)}::bigint[]) WITH ORDINALITY AS t(chat_id, after, until, n)
    CROSS JOIN LATERAL (
      SELECT DISTINCT sender_id FROM messages m
      WHERE m.chat_id = t.chat_id AND m.seq > t.after AND m.seq <= t.until AND m.message_type <> 'system'
    ) AS a`)
  const found: { sender_id: string; last_id: string }[][] = ranges.map(() => [])
  for (const { n, ...author } of rows) found[n - 1]!.push(author)
  return found
}
