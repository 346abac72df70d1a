import { type Queryable, type Sql, sql } from '../../platform/db/db.ts'
import type { ChatType } from '../../protocol/resources.ts'
import { pieces, type Range } from './text.ts'

/** What a search reads. Every statement is bounded, by the asker's own chats or by a number. */

/** A chat of the asker's, as far as it may be searched: messages after `after_seq` up to `until_seq`. */
export interface Searched {
  chat_id: string
  after_seq: number
  until_seq: number
  indexed_seq: number
}

/** Of more chats than this, those with the newest messages are searched. */
const maxChats = 2_000

/**
 * The chats of this user; `chatId`: that one alone. Whoever left or was removed is no member here, and what was cleared is
 * left out. Key of user_chats, then of the others.
 */
export async function searchedChats(q: Queryable, userId: string, chatId: string | undefined): Promise<Searched[]> {
  const one = chatId === undefined ? sql`` : sql`AND u.chat_id = ${chatId}`
  const chats = (order: Sql) =>
    q.query<Searched>(sql`
      SELECT u.chat_id, u.cleared_seq AS after_seq, k.last_seq AS until_seq, coalesce(p.indexed_seq, 0) AS indexed_seq
      FROM user_chats u
      JOIN chats c ON c.id = u.chat_id AND c.deleted_at IS NULL
      JOIN chat_members m ON m.chat_id = u.chat_id AND m.user_id = u.user_id AND m.left_at IS NULL
      JOIN chat_counters k ON k.chat_id = u.chat_id
      LEFT JOIN search_positions p ON p.chat_id = u.chat_id
      WHERE u.user_id = ${userId} AND u.is_member ${one} ${order}`)
  const some = await chats(sql`LIMIT ${maxChats + 1}`)
  if (some.length <= maxChats) return some
  return chats(
    sql`ORDER BY (SELECT created_at FROM messages WHERE chat_id = u.chat_id AND seq = k.last_seq) DESC NULLS LAST LIMIT ${maxChats}`,
  )
}

/** The last message of each chat that was sent before this time: times follow the order of `seq`, so that it is halved to. Key of messages. */
export async function untilTime(q: Queryable, chats: readonly Searched[], before: string): Promise<Searched[]> {
  const rows = await q.query<{ n: number; seq: number }>(sql`
    WITH RECURSIVE halves AS (
      SELECT t.n, t.chat_id, 0::bigint AS lo, t.hi
      FROM unnest(${chats.map((c) => c.chat_id)}::uuid[], ${chats.map((c) => c.until_seq)}::bigint[]) WITH ORDINALITY AS t(chat_id, hi, n)
      UNION ALL
      SELECT h.n, h.chat_id, CASE WHEN m.created_at < ${before} THEN middle.seq ELSE h.lo END, CASE WHEN m.created_at < ${before} THEN h.hi ELSE middle.seq - 1 END
      FROM halves h
      CROSS JOIN LATERAL (SELECT (h.lo + h.hi + 1) / 2 AS seq) AS middle
      JOIN messages m ON m.chat_id = h.chat_id AND m.seq = middle.seq
      WHERE h.lo < h.hi
    )
    SELECT n::int, lo AS seq FROM halves WHERE lo = hi`)
  const until = new Map(rows.map(({ n, seq }) => [n - 1, seq]))
  return chats.map((chat, n) => ({ ...chat, until_seq: until.get(n) ?? 0 }))
}

/** 1,024 messages of one chat. */
export interface Segment {
  chat_id: string
  segment: number
}

/** Rows with `k` and `n` (places of the segment and of what was asked, from 1 and from 0) and `messages` as `packedSets` reads them. */
const packed = sql`coalesce(string_agg(int4send((k::int << 16) | (n::int << 8) | octet_length(messages)) || messages, ''::bytea ORDER BY k), ''::bytea)`

/** Of one segment, so many words with the same beginning are looked at; fewer, where many segments are. */
const maxWordsOfRange = 64
const minWordsOfRange = 8
const maxWordRows = 40_000

/** What one of these ranges begins in each segment, packed. Key of search_words. */
export async function wordsInRanges(q: Queryable, segments: readonly Segment[], ranges: readonly Range[]): Promise<Buffer> {
  const room = Math.floor(maxWordRows / (segments.length * ranges.length))
  const ofEach = Math.min(maxWordsOfRange, Math.max(minWordsOfRange, room))
  const [row] = await q.query<{ sets: Buffer }>(sql`
    SELECT ${packed} AS sets FROM (
      SELECT s.k, r.n - 1 AS n, w.messages
      FROM unnest(${segments.map((s) => s.chat_id)}::uuid[], ${segments.map((s) => s.segment)}::int[]) WITH ORDINALITY AS s(chat_id, segment, k)
      CROSS JOIN unnest(${ranges.map((r) => r.lo)}::text[], ${ranges.map((r) => r.hi)}::text[]) WITH ORDINALITY AS r(lo, hi, n)
      CROSS JOIN LATERAL (
        SELECT word, messages FROM search_words
        WHERE chat_id = s.chat_id AND segment = s.segment AND word >= r.lo AND word < r.hi ORDER BY word LIMIT ${ofEach}
      ) AS w
    ) AS found`)
  return row!.sets
}

/** Words of all chats in which a part is looked for; if there are more, it is looked for in the newest segments alone. */
const maxWordsWithPart = 5_000

/** Words with `part` in them, in these segments, packed as the `n`th of what was asked; undefined where it is part of too many. Index search_words_pieces. */
export async function wordsWithPart(
  q: Queryable,
  segments: readonly Segment[],
  part: string,
  n: number,
): Promise<Buffer | undefined> {
  const [row] = await q.query<{ found: number; sets: Buffer }>(sql`
    WITH alike AS MATERIALIZED (
      SELECT chat_id, segment, word, messages FROM search_words
      WHERE search_pieces(word) @> ${pieces(part)}::text[] AND word >= '!' AND char_length(word) > 3 LIMIT ${maxWordsWithPart}
    ), mine AS (
      SELECT s.k, ${n}::int AS n, a.messages
      FROM unnest(${segments.map((s) => s.chat_id)}::uuid[], ${segments.map((s) => s.segment)}::int[]) WITH ORDINALITY AS s(chat_id, segment, k)
      JOIN alike a ON a.chat_id = s.chat_id AND a.segment = s.segment
      WHERE strpos(a.word, ${part}) > 0
    )
    SELECT (SELECT count(*)::int FROM alike) AS found, ${packed} AS sets FROM mine`)
  return row!.found >= maxWordsWithPart ? undefined : row!.sets
}

/** The same by looking at every word of these segments: few, please. Key of search_words. */
export async function wordsWithPartIn(q: Queryable, segments: readonly Segment[], part: string, n: number): Promise<Buffer> {
  const [row] = await q.query<{ sets: Buffer }>(sql`
    SELECT ${packed} AS sets FROM (
      SELECT s.k, ${n}::int AS n, w.messages
      FROM unnest(${segments.map((s) => s.chat_id)}::uuid[], ${segments.map((s) => s.segment)}::int[]) WITH ORDINALITY AS s(chat_id, segment, k)
      JOIN search_words w ON w.chat_id = s.chat_id AND w.segment = s.segment AND w.word >= '!' AND strpos(w.word, ${part}) > 0
    ) AS found`)
  return row!.sets
}

export interface TextRow {
  chat_id: string
  seq: number
  sender_id: string
  content: string
}

const maxTailRows = 2_000
/** Where many chats are behind, so many of each are looked at. */
const minTailRowsOfChat = 20
const maxTextBytes = 1_000_000

/** Messages that are not indexed yet, the newest first; bounded in number and bytes. Key of messages. */
export async function unindexed(q: Queryable, chats: readonly Searched[]): Promise<TextRow[]> {
  const behind = chats
    .map(({ chat_id, after_seq, until_seq, indexed_seq }) => ({
      chat_id,
      after: Math.max(after_seq, indexed_seq),
      until: until_seq,
    }))
    .filter(({ after, until }) => until > after)
  if (behind.length === 0) return []
  const ofEach = Math.max(minTailRowsOfChat, Math.ceil(maxTailRows / behind.length))
  return q.query<TextRow>(sql`
    SELECT chat_id, seq, sender_id, content FROM (
      SELECT newest.*, sum(octet_length(content)) OVER (ORDER BY created_at DESC, chat_id, seq DESC ROWS UNBOUNDED PRECEDING) AS bytes
      FROM (
        SELECT m.chat_id, m.seq, m.sender_id, m.created_at, m.content
        FROM unnest(${behind.map((c) => c.chat_id)}::uuid[], ${behind.map((c) => c.after)}::bigint[], ${behind.map((c) => c.until)}::bigint[]) AS t(chat_id, after, until)
        CROSS JOIN LATERAL (
          SELECT chat_id, seq, sender_id, created_at, content FROM messages
          WHERE chat_id = t.chat_id AND seq > t.after AND seq <= t.until AND content <> '' ORDER BY seq DESC LIMIT ${ofEach}
        ) AS m
        ORDER BY m.created_at DESC LIMIT ${maxTailRows}
      ) AS newest
    ) AS sized WHERE bytes <= ${maxTextBytes}`)
}

export interface Place {
  chat_id: string
  seq: number
}

/** When these were sent, in microseconds since 1970, chat by chat in the order asked for; NaN where there is none. Key of messages. */
export async function timesOf(q: Queryable, places: readonly { chat_id: string; seqs: readonly number[] }[]): Promise<number[]> {
  // As one value: it is read in a fraction of the time that as many rows take. A double holds microseconds until the year 2255.
  const [row] = await q.query<{ times: string }>(sql`
    SELECT string_agg(coalesce(round(date_part('epoch', m.created_at) * 1e6)::bigint::text, 'NaN'), ',' ORDER BY t.n, s.n) AS times
    FROM unnest(${places.map((p) => p.chat_id)}::uuid[], ${places.map((p) => p.seqs.join(','))}::text[]) WITH ORDINALITY AS t(chat_id, seqs, n)
    CROSS JOIN LATERAL unnest(string_to_array(t.seqs, ',')::bigint[]) WITH ORDINALITY AS s(seq, n)
    LEFT JOIN messages m ON m.chat_id = t.chat_id AND m.seq = s.seq`)
  return row!.times.split(',').map(Number)
}

export interface NamedChat {
  chat_id: string
  type: ChatType
  name: string | null
  peer_id: string | null
}

const maxNamedChats = 5_000

/** My chats with what they are called, the newest first; a direct chat by the other's id. Keys of the tables. */
export async function namedChats(q: Queryable, userId: string): Promise<NamedChat[]> {
  return q.query<NamedChat>(sql`
    SELECT c.id AS chat_id, c.type, c.name,
      CASE WHEN c.type = 'dm' THEN coalesce(
        (SELECT p.user_id FROM chat_members p WHERE p.chat_id = c.id AND p.user_id <> u.user_id LIMIT 1), u.user_id) END AS peer_id
    FROM user_chats u
    JOIN chats c ON c.id = u.chat_id AND c.deleted_at IS NULL
    JOIN chat_counters k ON k.chat_id = u.chat_id
    JOIN chat_members m ON m.chat_id = u.chat_id AND m.user_id = u.user_id AND m.left_at IS NULL
    WHERE u.user_id = ${userId} AND u.is_member AND (u.cleared_seq = 0 OR k.last_seq > u.cleared_seq)
    ORDER BY (SELECT created_at FROM messages WHERE chat_id = u.chat_id AND seq = k.last_seq) DESC NULLS LAST LIMIT ${maxNamedChats}`)
}
