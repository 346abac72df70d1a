import { type Queryable, sql } from '../../platform/db/db.ts'
import { columns, type MessageRow } from './rows.ts'

export interface ChangeRange {
  chat_id: string
  /** The version up to which everything is known. */
  since: number
  /** The chat's version and last seq in this snapshot. */
  version: number
  last_seq: number
  cleared_seq: number
}

export interface Found {
  rows: MessageRow[]
  /** There are more than these: too many, or too long. */
  cut: boolean
}

type FoundRow = MessageRow & { n: number; found: number }

/**
 * Messages changed after `since`, in the order of their versions; at most `limit` of each chat, and about `maxBytes` of
 * text in all (but one message at least). Chats that come after that is used up are not in the answer: nothing is known of them.
 *
 * What the viewer cleared is told where its text changed: newer messages may quote it.
 *
 * What never changed has the version of its sending. Sends take a seq and a version each, other changes a version alone,
 * so of `version - since` changes as many can be new messages: those are the last ones by seq, and the key of messages
 * serves. What did change is served by messages_changed, which plain sends do not touch.
 */
export async function changedMessages(
  q: Queryable,
  ranges: readonly ChangeRange[],
  limit: number,
  maxBytes: number,
): Promise<Map<string, Found>> {
  if (ranges.length === 0) return new Map()
  const rows = await q.query<FoundRow>(sql`
    SELECT * FROM (
      SELECT t.n::int, ${columns}, (count(*) OVER (PARTITION BY t.n))::int AS found,
        sum(octet_length(m.content)) OVER (ORDER BY t.n, m.version ROWS UNBOUNDED PRECEDING) - octet_length(m.content) AS bytes_before
      FROM unnest(${ranges.map((r) => r.chat_id)}::uuid[], ${ranges.map((r) => r.since)}::bigint[],
        ${ranges.map((r) => Math.max(r.cleared_seq, r.last_seq - (r.version - r.since)))}::bigint[], ${ranges.map((r) => r.cleared_seq)}::bigint[])
        WITH ORDINALITY AS t(chat_id, since, after_seq, cleared_seq, n)
      CROSS JOIN LATERAL (
        SELECT * FROM (
          (SELECT * FROM messages WHERE chat_id = t.chat_id AND seq > t.after_seq AND version > t.since AND NOT changed ORDER BY seq LIMIT ${limit + 1})
          UNION ALL
          (SELECT * FROM messages WHERE chat_id = t.chat_id AND changed AND version > t.since
            AND (seq > t.cleared_seq OR edited_at IS NOT NULL OR deleted_at IS NOT NULL) ORDER BY version LIMIT ${limit + 1})
        ) AS either ORDER BY version LIMIT ${limit + 1}
      ) AS m
    ) AS sized WHERE bytes_before < ${maxBytes} ORDER BY n, version`)
  return collect(ranges, rows, limit, maxBytes)
}

/** The newest page of each chat, oldest first; bounded as above, the newest kept. Key of messages. */
export async function newestMessages(
  q: Queryable,
  chats: readonly { chat_id: string; last_seq: number; cleared_seq: number }[],
  limit: number,
  maxBytes: number,
): Promise<Map<string, Found>> {
  if (chats.length === 0) return new Map()
  const rows = await q.query<FoundRow>(sql`
    SELECT * FROM (
      SELECT t.n::int, ${columns}, 0 AS found,
        sum(octet_length(m.content)) OVER (ORDER BY t.n, m.seq DESC ROWS UNBOUNDED PRECEDING) - octet_length(m.content) AS bytes_before
      FROM unnest(${chats.map((c) => c.chat_id)}::uuid[], ${chats.map((c) => Math.max(c.cleared_seq, c.last_seq - limit))}::bigint[])
        WITH ORDINALITY AS t(chat_id, after_seq, n)
      JOIN messages m ON m.chat_id = t.chat_id AND m.seq > t.after_seq
    ) AS sized WHERE bytes_before < ${maxBytes} ORDER BY n, seq`)
  return collect(chats, rows, limit, maxBytes)
}

function collect(
  ranges: readonly { chat_id: string }[],
  rows: readonly FoundRow[],
  limit: number,
  maxBytes: number,
): Map<string, Found> {
  const byRange = Map.groupBy(rows, (row) => row.n)
  const bytes = rows.reduce((sum, row) => sum + Buffer.byteLength(row.content), 0)
  // Rows come range by range, and the first one beyond the bytes ends them all.
  const seen = bytes < maxBytes ? ranges.length : (rows.at(-1)?.n ?? 0)
  return new Map(
    ranges.slice(0, seen).map(({ chat_id }, n) => {
      const mine = byRange.get(n + 1) ?? []
      const cut = mine.length > limit || mine.length < (mine[0]?.found ?? 0)
      return [chat_id, { rows: mine.slice(0, limit), cut }]
    }),
  )
}
