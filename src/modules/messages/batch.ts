import { type Db, type Queryable, sql } from '../../platform/db/db.ts'
import type { MessageEvent, MessageType } from '../../protocol/resources.ts'
import type { Acl, AclCache } from '../chats/index.ts'
import type { MessageRow } from './rows.ts'

/** One message to be written. `id` and `client_id` are made before, so that a second try is the same send. */
export interface Send {
  id: string
  chat_id: string
  sender_id: string
  client_id: string
  message_type: MessageType
  content: string
  reply_to_seq: number | null
  forward_sender_id: string | null
  forward_chat_id: string | null
  mentions: readonly string[] | null
}

/** A chat whose counters row was locked, as it stood before the batch. */
export interface LockedCounters {
  chat_id: string
  last_seq: number
  version: number
  acl_version: number
  at: string
}

export interface Written {
  row: MessageRow
  /** As it was told, if it was told now. */
  event: MessageEvent | undefined
  /** The same send had been written before; this is the first one's message. */
  duplicate: boolean
}

export interface WriterDeps {
  db: Db
  acl: AclCache
  /** Refuses (throws) who may not write by this list. */
  check: (acl: Acl | undefined, senderId: string) => void
  /** Tells what was committed, before it is acknowledged, and answers what it told by id; never throws. Rows of one chat in the order of seq. */
  told: (rows: readonly MessageRow[]) => Promise<Map<string, MessageEvent>>
  onError: (error: unknown, what: string) => void
}

/**
 * Writes a batch in one statement and one commit, so that no turn of the event loop falls inside a lock. Counters are
 * locked in the order of their keys; seq and version follow on from them without a gap. Of a chat whose `acl_version`
 * is not the expected one nothing is written; of one that was busy (`patient` false) neither, and it is not answered. With
 * `together` one such chat keeps all others from being written to. Fails as a whole: on a unique violation (messages_client_id) nothing is written and no number is lost.
 */
export async function writeBatch(
  db: Queryable,
  chats: ReadonlyMap<string, number>,
  sends: readonly Send[],
  { patient, together = false }: { patient: boolean; together?: boolean },
): Promise<LockedCounters[]> {
  const ids = [...chats.keys()]
  const wait = patient ? sql`` : sql`SKIP LOCKED`
  const all = together ? sql`WHERE (SELECT count(*) FROM unchanged) = cardinality(${ids}::uuid[])` : sql``
  // Most batches mention nobody: their statement does not touch the table.
  const mentioned = sends.some((s) => s.mentions)
    ? sql`, mentioned AS (
      INSERT INTO message_mentions (chat_id, user_id, seq, sender_id)
      SELECT n.chat_id, u.user_id, n.seq, n.sender_id FROM numbered n CROSS JOIN LATERAL unnest(n.mentions) AS u(user_id)
    )`
    : sql``
  return db.query<LockedCounters>(sql`
    WITH expected AS (
      SELECT chat_id, acl_version FROM unnest(${ids}::uuid[], ${[...chats.values()]}::bigint[]) AS t(chat_id, acl_version)
    ), locked AS MATERIALIZED (
      SELECT k.chat_id, k.last_seq, k.version, k.acl_version FROM chat_counters k
      WHERE k.chat_id = ANY(${ids}::uuid[]) ORDER BY k.chat_id FOR NO KEY UPDATE ${wait}
    ), clock AS MATERIALIZED (
      -- After the locks, so that times follow the order of seq.
      SELECT date_trunc('milliseconds', clock_timestamp()) AS at, count(*) FROM locked
    ), unchanged AS (
      SELECT l.chat_id, l.last_seq, l.version FROM locked l JOIN expected e ON e.chat_id = l.chat_id AND e.acl_version = l.acl_version
    ), admitted AS (
      SELECT * FROM unchanged ${all}
    ), numbered AS (
      SELECT i.chat_id, i.id, i.sender_id, i.client_id, i.reply_to_seq, i.forward_sender_id, i.forward_chat_id, i.mentions::uuid[] AS mentions,
        i.message_type, i.content,
        a.last_seq + row_number() OVER w AS seq, a.version + row_number() OVER w AS version
      FROM unnest(${sends.map((s) => s.chat_id)}::uuid[], ${sends.map((s) => s.id)}::uuid[], ${sends.map((s) => s.sender_id)}::uuid[],
        ${sends.map((s) => s.client_id)}::uuid[], ${sends.map((s) => s.reply_to_seq)}::bigint[],
        ${sends.map((s) => s.forward_sender_id)}::uuid[], ${sends.map((s) => s.forward_chat_id)}::uuid[],
        ${sends.map((s) => (s.mentions ? `{${s.mentions.join(',')}}` : null))}::text[], ${sends.map((s) => s.message_type)}::text[],
        ${sends.map((s) => s.content)}::text[]) WITH ORDINALITY
        AS i(chat_id, id, sender_id, client_id, reply_to_seq, forward_sender_id, forward_chat_id, mentions, message_type, content, n)
      JOIN admitted a ON a.chat_id = i.chat_id
      WINDOW w AS (PARTITION BY i.chat_id ORDER BY i.n)
    ), moved AS (
      UPDATE chat_counters k SET last_seq = c.last_seq, version = c.version
      FROM (SELECT chat_id, max(seq) AS last_seq, max(version) AS version FROM numbered GROUP BY chat_id) c
      WHERE k.chat_id = c.chat_id
    ), written AS (
      INSERT INTO messages (chat_id, seq, version, id, sender_id, client_id, created_at, reply_to_seq, forward_sender_id, forward_chat_id, mentions, message_type, content)
      SELECT n.chat_id, n.seq, n.version, n.id, n.sender_id, n.client_id, clock.at, n.reply_to_seq, n.forward_sender_id, n.forward_chat_id, n.mentions,
        n.message_type, n.content
      FROM numbered n, clock
    )${mentioned}
    SELECT l.chat_id, l.last_seq, l.version, l.acl_version, clock.at FROM locked l, clock`)
}

export function messageRow(send: Send, counters: LockedCounters): MessageRow {
  const { mentions, ...sent } = send
  return {
    ...sent,
    mentions: mentions && [...mentions],
    seq: counters.last_seq,
    version: counters.version,
    created_at: counters.at,
    edited_at: null,
    deleted_at: null,
    pinned_at: null,
    changed: false,
    system: null,
  }
}
