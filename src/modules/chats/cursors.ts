import { type Queryable, sql } from '../../platform/db/db.ts'
import { AppError, isUnavailable } from '../../platform/errors.ts'
import { frame } from '../../protocol/events.ts'
import { recordViews } from './channel-views.ts'
import type { ChatDeps } from './deps.ts'
import { type Moved, tellMine } from './mine.ts'

/**
 * Read and delivered cursors. They only grow, whatever order they arrive in, and never pass the chat's last seq. Many
 * are written in one statement, rows in the order of their keys; peers are told once in a while, and only those who
 * wrote what was read. Of who blocks the other of a direct chat they stay as they are, and count again from there after it:
 * what the other wrote is not unread meanwhile.
 */
export interface CursorMove {
  chat_id: string
  user_id: string
  /** Up to and including. */
  read?: number | undefined
  delivered?: number | undefined
}

export interface CursorResult {
  read_seq: number
  delivered_seq: number
}

/** For so long receipts are gathered before their authors hear of them. */
const tellAfterMs = 500
const maxBatch = 500

interface Waiting extends Required<Pick<CursorMove, 'chat_id' | 'user_id'>> {
  read: number
  delivered: number
  done: { resolve: (result: CursorResult) => void; reject: (error: unknown) => void }[]
}

/** A receipt: the range of messages it newly covers. */
export interface Receipt {
  chat_id: string
  user_id: string
  read_from: number
  read_seq: number
  read_at: string | null
  delivered_from: number
  delivered_seq: number
  /** In a channel nobody is told who read what. */
  is_channel: boolean
  /** The move counts as views: a subscriber's, in a channel. */
  is_view: boolean
}

export interface Cursors {
  /** Resolves after the commit; rejects with `chat_not_found` for whoever is no member. */
  move(move: CursorMove): Promise<CursorResult>
  /** Writes and tells what waits. */
  close(): Promise<void>
}

/** "The last one": beyond any seq, cut by the statement. */
export const lastSeq = Number.MAX_SAFE_INTEGER

export function createCursors(deps: ChatDeps): Cursors {
  const waiting = new Map<string, Waiting>()
  let running: Promise<void> | undefined
  const receipts = new Map<string, Receipt>()
  let timer: NodeJS.Timeout | undefined

  async function run(): Promise<void> {
    while (waiting.size > 0) {
      const batch = [...waiting.values()].slice(0, maxBatch)
      for (const item of batch) waiting.delete(`${item.chat_id} ${item.user_id}`)
      try {
        const { rows, moved } = await deps.db.transaction((tx) => write(tx, batch))
        const found = new Map(rows.map((row) => [`${row.chat_id} ${row.user_id}`, row]))
        for (const item of batch) {
          const row = found.get(`${item.chat_id} ${item.user_id}`)
          for (const { resolve, reject } of item.done)
            row ? resolve({ read_seq: row.read_seq, delivered_seq: row.delivered_seq }) : reject(new AppError('chat_not_found'))
        }
        for (const row of rows) gather(row)
        if (moved.length > 0)
          tellReaders(rows, moved).catch((error: unknown) => deps.onError(error, 'own cursors could not be told'))
      } catch (error) {
        for (const item of batch) for (const { reject } of item.done) reject(error)
        if (!isUnavailable(error)) deps.onError(error, 'cursors could not be written')
      }
    }
    // Nothing may come between the last look and this: it would wait for a run that has ended.
    running = undefined
  }

  /** The reader's own devices: `my_updated`, and `read` for clients that only want the badge. Not of which message: they have it. */
  async function tellReaders(rows: readonly Receipt[], moved: readonly Moved[]): Promise<void> {
    const told = await tellMine(deps, moved)
    for (const { chat_id, user_id, read_from, read_seq, read_at } of rows) {
      const mine = told.get(`${user_id} ${chat_id}`)
      if (!mine || read_at === null || read_seq <= read_from) continue
      const { unread_count } = mine
      deps.news.pass(`user:${user_id}`, {
        frame: frame({ type: 'read', chat_id, user_id, read_seq, last_read_at: read_at, message_id: null, unread_count }),
      })
    }
  }

  function gather(row: Receipt): void {
    if (row.is_channel) return
    if (row.read_seq <= row.read_from && row.delivered_seq <= row.delivered_from) return
    const key = `${row.chat_id} ${row.user_id}`
    const known = receipts.get(key)
    receipts.set(
      key,
      known
        ? {
            ...row,
            read_from: Math.min(known.read_from, row.read_from),
            delivered_from: Math.min(known.delivered_from, row.delivered_from),
          }
        : row,
    )
    timer ??= setTimeout(() => void tellReceipts(), tellAfterMs)
  }

  async function tellReceipts(): Promise<void> {
    clearTimeout(timer)
    timer = undefined
    const batch = [...receipts.values()]
    receipts.clear()
    if (batch.length === 0) return
    const ranges = batch
      .flatMap((receipt) => [
        { type: 'delivered' as const, receipt, after: receipt.delivered_from, until: receipt.delivered_seq },
        { type: 'read' as const, receipt, after: receipt.read_from, until: receipt.read_seq },
      ])
      .filter(({ after, until }) => until > after)
    try {
      const authors = await deps.authorsOf(
        deps.db,
        ranges.map(({ receipt: { chat_id }, after, until }) => ({ chat_id, after, until })),
      )
      for (const [n, { type, receipt }] of ranges.entries()) tellReceipt(type, receipt, authors[n] ?? [])
    } catch (error) {
      // Cursors are told again with the next move, and by every sync.
      deps.onError(error, 'receipts could not be told')
    }
  }

  function tellReceipt(
    type: 'delivered' | 'read',
    { chat_id, user_id, read_seq, read_at, delivered_seq }: Receipt,
    authors: readonly { sender_id: string; last_id: string }[],
  ): void {
    const to = authors.map((a) => a.sender_id).filter((id) => id !== user_id)
    if (to.length === 0) return
    if (type === 'delivered') deps.news.pass(`chat:${chat_id}`, { frame: frame({ type, chat_id, user_id, delivered_seq }), to })
    else if (read_at !== null) {
      const message_id = authors[0]!.last_id
      deps.news.pass(`chat:${chat_id}`, {
        frame: frame({ type, chat_id, user_id, read_seq, last_read_at: read_at, message_id }),
        to,
      })
    }
  }

  return {
    move({ chat_id, user_id, read = 0, delivered = 0 }) {
      const key = `${chat_id} ${user_id}`
      let item = waiting.get(key)
      if (!item) {
        item = { chat_id, user_id, read: 0, delivered: 0, done: [] }
        waiting.set(key, item)
      }
      item.read = Math.max(item.read, read)
      item.delivered = Math.max(item.delivered, delivered)
      const done = new Promise<CursorResult>((resolve, reject) => item.done.push({ resolve, reject }))
      // Starts at once when idle; while a batch is on its way the next one gathers.
      running ??= Promise.resolve().then(run)
      return done
    },
    async close() {
      await running
      await tellReceipts()
    },
  }
}

/** Places for each member and kind of cursor: the newest moves stay. */
const moveSlots = 64

/** When cursors came where they are: what tells who read a message when. A read move is one of delivery too. */
async function recordMoves(tx: Queryable, rows: readonly Receipt[]): Promise<void> {
  const told = rows.filter((row) => !row.is_channel)
  const moves = told.flatMap((row) => [
    ...(row.read_seq > row.read_from ? [{ ...row, is_read: true, seq: row.read_seq }] : []),
    ...(row.delivered_seq > Math.max(row.delivered_from, row.read_seq > row.read_from ? row.read_seq : 0)
      ? [{ ...row, is_read: false, seq: row.delivered_seq }]
      : []),
  ])
  if (moves.length === 0) return
  await tx.query(sql`
    INSERT INTO cursor_moves (chat_id, user_id, is_read, slot, seq, at)
    SELECT t.chat_id, t.user_id, t.is_read, t.seq % ${moveSlots}, t.seq, now()
    FROM unnest(${moves.map((m) => m.chat_id)}::uuid[], ${moves.map((m) => m.user_id)}::uuid[], ${moves.map((m) => m.is_read)}::boolean[],
      ${moves.map((m) => m.seq)}::bigint[]) AS t(chat_id, user_id, is_read, seq)
    ORDER BY t.chat_id, t.user_id, t.is_read
    ON CONFLICT (chat_id, user_id, is_read, slot) DO UPDATE SET seq = excluded.seq, at = excluded.at WHERE cursor_moves.seq < excluded.seq`)
}

/** Members first, then views, then the clocks of those whose own read cursor moved, each in the order of their keys. */
async function write(tx: Queryable, batch: readonly Waiting[]): Promise<{ rows: Receipt[]; moved: Moved[] }> {
  const rows = await tx.query<Receipt>(sql`
    WITH wanted AS (
      SELECT t.chat_id, t.user_id, c.type = 'channel' AS is_channel, least(t.read, n.last_seq) AS read,
        -- What reached ten thousand subscribers is of no use to anybody: in channels it moves with reading alone.
        least(CASE WHEN c.type = 'channel' THEN t.read ELSE greatest(t.read, t.delivered) END, n.last_seq) AS delivered
      FROM unnest(${batch.map((b) => b.chat_id)}::uuid[], ${batch.map((b) => b.user_id)}::uuid[],
        ${batch.map((b) => b.read)}::bigint[], ${batch.map((b) => b.delivered)}::bigint[]) AS t(chat_id, user_id, read, delivered)
      JOIN chat_counters k ON k.chat_id = t.chat_id
      JOIN chats c ON c.id = t.chat_id AND c.deleted_at IS NULL
      -- Who blocks the other of a direct chat stays where they were: their ticks would say that they are there.
      CROSS JOIN LATERAL (SELECT CASE WHEN c.type = 'dm' AND EXISTS (
        SELECT 1 FROM chat_members p JOIN relations r ON r.user_id = t.user_id AND r.other_id = p.user_id AND r.blocked
        WHERE p.chat_id = t.chat_id) THEN 0 ELSE k.last_seq END AS last_seq) AS n
    ), locked AS (
      SELECT m.chat_id, m.user_id, m.read_seq, m.delivered_seq, m.read_at, w.read, w.delivered, w.is_channel, w.is_channel AND m.role = 'subscriber' AS is_view
      FROM chat_members m JOIN wanted w ON w.chat_id = m.chat_id AND w.user_id = m.user_id
      WHERE m.left_at IS NULL ORDER BY m.chat_id, m.user_id FOR NO KEY UPDATE OF m
    ), moved AS (
      UPDATE chat_members m SET read_seq = greatest(l.read_seq, l.read), delivered_seq = greatest(l.delivered_seq, l.delivered),
        read_at = CASE WHEN l.read > l.read_seq THEN now() ELSE m.read_at END
      FROM locked l
      WHERE m.chat_id = l.chat_id AND m.user_id = l.user_id AND (l.read > l.read_seq OR l.delivered > l.delivered_seq)
      RETURNING m.chat_id, m.user_id, m.read_at
    )
    SELECT l.chat_id, l.user_id, l.read_seq AS read_from, greatest(l.read_seq, l.read) AS read_seq, coalesce(moved.read_at, l.read_at) AS read_at,
      l.delivered_seq AS delivered_from, greatest(l.delivered_seq, l.delivered) AS delivered_seq, l.is_channel, l.is_view
    FROM locked l LEFT JOIN moved ON moved.chat_id = l.chat_id AND moved.user_id = l.user_id`)
  await recordMoves(tx, rows)
  const read = rows.filter((row) => row.read_seq > row.read_from)
  await recordViews(
    tx,
    read.filter((row) => row.is_view),
  )
  if (read.length === 0) return { rows, moved: [] }
  // Several chats of one user take consecutive versions of their clock.
  const moved = await tx.query<Moved>(sql`
    WITH given AS (
      SELECT user_id, chat_id, row_number() OVER (PARTITION BY user_id ORDER BY chat_id) AS n
      FROM unnest(${read.map((r) => r.user_id)}::uuid[], ${read.map((r) => r.chat_id)}::uuid[]) AS t(user_id, chat_id)
    ), locked AS (
      SELECT user_id, version FROM user_clock WHERE user_id IN (SELECT user_id FROM given) ORDER BY user_id FOR NO KEY UPDATE
    ), ticked AS (
      UPDATE user_clock u SET version = l.version + g.n FROM locked l, (SELECT user_id, max(n) AS n FROM given GROUP BY user_id) g
      WHERE u.user_id = l.user_id AND g.user_id = l.user_id
    )
    UPDATE user_chats c SET version = l.version + g.n FROM given g JOIN locked l ON l.user_id = g.user_id
    WHERE c.user_id = g.user_id AND c.chat_id = g.chat_id
    RETURNING c.user_id, c.chat_id, c.version`)
  return { rows, moved }
}
