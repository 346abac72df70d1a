import { type Queryable, type Sql, sql } from '../../platform/db/db.ts'

/**
 * How often a channel's messages were seen: a histogram of read cursors (see channel_views). A subscriber's cursor that moves
 * from a to b has passed the messages after a up to b: 1 more at b, and 1 less at a. What was there before somebody
 * subscribed does not count, and what they had read before they left stays counted, so that no message's sum ever falls.
 */

/** Seqs, and blocks of them: 1, 64, 4,096. */
const shifts = [0, 6, 12]

export interface View {
  chat_id: string
  read_from: number
  read_seq: number
}

/** Adds these moves, rows in the order of their keys. Many who read to the same place share their rows. */
export async function recordViews(tx: Queryable, moves: readonly View[]): Promise<void> {
  if (moves.length === 0) return
  await tx.query(sql`
    INSERT INTO channel_views (chat_id, level, pos, delta)
    SELECT m.chat_id, l.level, m.seq >> l.shift, sum(m.delta)
    FROM unnest(${moves.flatMap((m) => [m.chat_id, m.chat_id])}::uuid[], ${moves.flatMap((m) => [m.read_from, m.read_seq])}::bigint[],
      ${moves.flatMap(() => [-1, 1])}::bigint[]) AS m(chat_id, seq, delta)
    CROSS JOIN unnest(${shifts}::integer[]) WITH ORDINALITY AS l(shift, level)
    WHERE m.seq > 0
    GROUP BY m.chat_id, l.level, m.seq >> l.shift HAVING sum(m.delta) <> 0
    ORDER BY 1, 2, 3
    ON CONFLICT (chat_id, level, pos) DO UPDATE SET delta = channel_views.delta + excluded.delta`)
}

/** How many passed the message (`chat_id`, `seq`): the rest of its small block, of its large block, and all later ones. Key of channel_views. */
export const viewsAt = (chatId: Sql, seq: Sql): Sql => sql`(
  SELECT coalesce(sum(v.delta), 0)::int FROM (
    SELECT delta FROM channel_views WHERE chat_id = ${chatId} AND level = 1 AND pos BETWEEN ${seq} AND ${seq} | 63
    UNION ALL
    SELECT delta FROM channel_views WHERE chat_id = ${chatId} AND level = 2 AND pos BETWEEN (${seq} >> 6) + 1 AND (${seq} >> 6) | 63
    UNION ALL
    SELECT delta FROM channel_views WHERE chat_id = ${chatId} AND level = 3 AND pos > ${seq} >> 12
  ) AS v)`
