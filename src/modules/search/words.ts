import { type Db, type Queryable, sql } from '../../platform/db/db.ts'
import { decode, encode, offsetOf, segmentOf, segmentSize } from './posts.ts'
import { bySender, wordsOf } from './text.ts'

/** The words of messages as they are stored. Whoever writes those of a chat has locked its row in search_positions. */

/** A batch holds the rows of its chats, for which an edit waits: it is over in some tens of milliseconds. */
const messagesOfBatch = 400
const bytesOfBatch = 100_000

interface Found {
  chat_id: string
  seq: number
  sender_id: string
  content: string
}

/** Offsets by word; of one segment. */
type Words = Map<string, Set<number>>

interface Segment {
  chat_id: string
  segment: number
  words: Words
}

export interface Indexed {
  messages: number
  /** Chats of which all is indexed that was there. */
  complete: Set<string>
}

/** Indexes the next messages of these chats, a batch of them; chats that somebody else holds are left out. */
export async function indexSome(db: Db, chatIds: readonly string[]): Promise<Indexed> {
  const ids = [...chatIds].sort()
  await db.query(sql`INSERT INTO search_positions (chat_id) SELECT unnest(${ids}::uuid[]) ON CONFLICT DO NOTHING`)
  return db.transaction(async (tx) => {
    // After a crash a batch that was lost is made again: nobody has to wait for the disk.
    await tx.query(sql`SET LOCAL synchronous_commit = off`)
    const held = await tx.query<{ chat_id: string; indexed_seq: number; last_seq: number }>(sql`
      SELECT p.chat_id, p.indexed_seq, k.last_seq FROM search_positions p JOIN chat_counters k ON k.chat_id = p.chat_id
      WHERE p.chat_id = ANY(${ids}::uuid[]) ORDER BY p.chat_id FOR UPDATE OF p SKIP LOCKED`)
    // A statement of its own: an edit that committed before the lock was taken must be seen.
    const rows = await nextMessages(tx, held)
    const last = new Map(held.map((chat) => [chat.chat_id, chat.indexed_seq]))
    const begun = new Map(held.map((chat) => [chat.chat_id, segmentOf(chat.indexed_seq)]))
    const segments = new Map<string, Segment>()
    for (const row of rows) {
      last.set(row.chat_id, row.seq)
      if (row.content !== '') collect(segments, row)
    }
    await add(tx, [...segments.values()], ({ chat_id, segment }) => segment === begun.get(chat_id))
    await tx.query(sql`
      UPDATE search_positions p SET indexed_seq = t.seq
      FROM unnest(${[...last.keys()]}::uuid[], ${[...last.values()]}::bigint[]) AS t(chat_id, seq) WHERE p.chat_id = t.chat_id AND p.indexed_seq < t.seq`)
    const complete = held.filter((chat) => last.get(chat.chat_id)! >= chat.last_seq)
    return { messages: rows.length, complete: new Set(complete.map((chat) => chat.chat_id)) }
  })
}

/** In the order of chats and `seq`, without a gap; bounded in number and in bytes, but one at least. Key of messages. */
function nextMessages(
  tx: Queryable,
  chats: readonly { chat_id: string; indexed_seq: number; last_seq: number }[],
): Promise<Found[]> {
  let room = messagesOfBatch
  const ranges = chats.map(({ chat_id, indexed_seq, last_seq }) => {
    const count = Math.min(room, Math.max(0, last_seq - indexed_seq))
    room -= count
    return { chat_id, after: indexed_seq, until: indexed_seq + count }
  })
  const wanted = ranges.filter(({ after, until }) => until > after)
  if (wanted.length === 0) return Promise.resolve([])
  return tx.query<Found>(sql`
    SELECT chat_id, seq, sender_id, content FROM (
      SELECT t.n, m.chat_id, m.seq, m.sender_id, m.content,
        sum(octet_length(m.content)) OVER (ORDER BY t.n, m.seq ROWS UNBOUNDED PRECEDING) - octet_length(m.content) AS bytes_before
      FROM unnest(${wanted.map((r) => r.chat_id)}::uuid[], ${wanted.map((r) => r.after)}::bigint[], ${wanted.map((r) => r.until)}::bigint[])
        WITH ORDINALITY AS t(chat_id, after, until, n)
      JOIN messages m ON m.chat_id = t.chat_id AND m.seq > t.after AND m.seq <= t.until
    ) AS sized WHERE bytes_before < ${bytesOfBatch} ORDER BY n, seq`)
}

function collect(segments: Map<string, Segment>, { chat_id, seq, sender_id, content }: Found): void {
  const segment = segmentOf(seq)
  const key = `${chat_id} ${segment}`
  let found = segments.get(key)
  if (!found) {
    found = { chat_id, segment, words: new Map() }
    segments.set(key, found)
  }
  const { words } = found
  const offset = offsetOf(seq)
  const put = (word: string) => {
    const offsets = words.get(word)
    if (offsets) offsets.add(offset)
    else words.set(word, new Set([offset]))
  }
  put(bySender(sender_id))
  for (const word of wordsOf(content)) put(word)
}

/** Adds to what is there. `mayExist`: whether there may be something of this segment. */
async function add(tx: Queryable, segments: readonly Segment[], mayExist: (segment: Segment) => boolean): Promise<void> {
  if (segments.length === 0) return
  const rows = segments.flatMap(({ words }, n) => Array.from(words, ([word, offsets]) => ({ n, word, offsets })))
  const asked = rows.filter(({ n }) => mayExist(segments[n]!))
  if (asked.length > 0) {
    const known = await tx.query<{ n: number; messages: Buffer }>(sql`
      SELECT t.n::int, w.messages FROM unnest(${asked.map(({ n }) => segments[n]!.chat_id)}::uuid[], ${asked.map(({ n }) => segments[n]!.segment)}::int[],
        ${asked.map(({ word }) => word)}::text[]) WITH ORDINALITY AS t(chat_id, segment, word, n)
      JOIN search_words w ON w.chat_id = t.chat_id AND w.segment = t.segment AND w.word = t.word`)
    for (const { n, messages } of known) for (const offset of decode(messages)) asked[n - 1]!.offsets.add(offset)
  }
  await tx.query(sql`
    INSERT INTO search_words (chat_id, segment, word, messages)
    SELECT t.chat_id, t.segment, t.word, decode(t.messages, 'hex')
    FROM unnest(${rows.map(({ n }) => segments[n]!.chat_id)}::uuid[], ${rows.map(({ n }) => segments[n]!.segment)}::int[],
      ${rows.map(({ word }) => word)}::text[], ${rows.map(({ offsets }) => encode(offsets))}::text[]) AS t(chat_id, segment, word, messages)
    ON CONFLICT (chat_id, segment, word) DO UPDATE SET messages = excluded.messages`)
}

/**
 * A message has another text now, or none: in the transaction that changes it, after the row of the message. Its old words
 * are looked for in all rows of its segment and not by the old text: nothing may be left of it, by whatever rules it was
 * taken apart.
 */
export async function changeWords(
  tx: Queryable,
  message: { chat_id: string; seq: number; sender_id: string; content: string },
): Promise<void> {
  const { chat_id, seq, content } = message
  const [position] = await tx.query<{ indexed_seq: number }>(sql`
    INSERT INTO search_positions AS p (chat_id) VALUES (${chat_id})
    ON CONFLICT (chat_id) DO UPDATE SET indexed_seq = p.indexed_seq RETURNING p.indexed_seq`)
  // Not indexed yet: it will be, as it stands when this has committed.
  if (position!.indexed_seq < seq) return
  const segment = segmentOf(seq)
  const offset = offsetOf(seq)
  const bytes = encode([offset])
  const rows = await tx.query<{ word: string; messages: Buffer }>(sql`
    SELECT word, messages FROM search_words
    WHERE chat_id = ${chat_id} AND segment = ${segment} AND CASE WHEN octet_length(messages) = ${segmentSize / 8}
      THEN get_bit(messages, ${offset}::bigint) = 1 ELSE position(decode(${bytes}, 'hex') IN messages) > 0 END`)
  const left = rows.map(({ word, messages }) => ({ word, messages: encode(decode(messages).filter((n) => n !== offset)) }))
  const gone = left.filter(({ messages }) => messages === '').map(({ word }) => word)
  const kept = left.filter(({ messages }) => messages !== '')
  await tx.query(
    sql`DELETE FROM search_words WHERE chat_id = ${chat_id} AND segment = ${segment} AND word = ANY(${gone}::text[])`,
  )
  await tx.query(sql`
    UPDATE search_words w SET messages = decode(t.messages, 'hex')
    FROM unnest(${kept.map(({ word }) => word)}::text[], ${kept.map(({ messages }) => messages)}::text[]) AS t(word, messages)
    WHERE w.chat_id = ${chat_id} AND w.segment = ${segment} AND w.word = t.word`)
  if (content === '') return
  const segments = new Map<string, Segment>()
  collect(segments, message)
  await add(tx, [...segments.values()], () => true)
}
