import type { Pool } from 'pg'
import type { Hearing } from './device.ts'
import { type Blocks, isBlocked, isBlockRefusal } from './relation-checks.ts'
import type { Run, SendOutcome } from './run.ts'

/** What must hold of the database and of everything that was ever told, whatever happened. Each returns its complaints. */

export interface Change {
  chat_id: string
  user_id: string
  version: number
  active: boolean
  role: string
  /** Unix ms; the commit came a little later. */
  at: number
}

/** Every change of membership (and role) of these chats, by chat and user, in the order of versions; of channels that of their staff. */
export async function journalOf(sql: Pool, chats: readonly string[]): Promise<Map<string, Change[]>> {
  const { rows } = await sql.query<Change>(
    `SELECT chat_id, user_id, version::int, active, role, (extract(epoch FROM at) * 1000)::float AS at
     FROM j_members WHERE chat_id = ANY($1) AND version > 0 ORDER BY version`,
    [chats],
  )
  return Map.groupBy(rows, (row) => `${row.chat_id} ${row.user_id}`)
}

/** Who came to these channels and went, subscribers too, by channel and user, in the order of time. */
export async function comingsOf(sql: Pool, channels: readonly string[]): Promise<Map<string, Change[]>> {
  if (channels.length === 0) return new Map()
  const { rows } = await sql.query<Change>(
    `SELECT chat_id, user_id, version::int, active, role, (extract(epoch FROM at) * 1000)::float AS at
     FROM j_members WHERE chat_id = ANY($1) ORDER BY at`,
    [channels],
  )
  return Map.groupBy(rows, (row) => `${row.chat_id} ${row.user_id}`)
}

/** One row for each version; in channels perhaps two, of a subscriber who was removed and of the chat. */
export async function checkCounters(sql: Pool, chats: readonly string[]): Promise<string[]> {
  const { rows } = await sql.query<{ chat_id: string; said: string }>(
    `SELECT k.chat_id, 'seqs ' || s.n || ' of ' || s.first || '..' || s.last || ' at last_seq ' || k.last_seq AS said
     FROM chat_counters k CROSS JOIN LATERAL (
       SELECT count(*) AS n, coalesce(min(seq), 1) AS first, coalesce(max(seq), 0) AS last FROM messages m WHERE m.chat_id = k.chat_id) s
     WHERE k.chat_id = ANY($1) AND (s.n <> k.last_seq OR s.last <> k.last_seq OR s.first <> 1)
     UNION ALL
     SELECT k.chat_id, 'versions ' || v.n || ' (' || v.different || ' different) of 1..' || v.last || ' at version ' || k.version
     FROM chat_counters k JOIN chats c ON c.id = k.chat_id CROSS JOIN LATERAL (
       SELECT count(*) AS n, count(DISTINCT version) AS different, max(version) AS last FROM j_versions j WHERE j.chat_id = k.chat_id) v
     WHERE k.chat_id = ANY($1) AND (v.n <> k.version AND c.type <> 'channel' OR v.different <> k.version OR v.last <> k.version)
     UNION ALL
     SELECT k.chat_id, 'member_count ' || k.member_count || ' but there are ' || m.n
     FROM chat_counters k JOIN chats c ON c.id = k.chat_id AND c.deleted_at IS NULL CROSS JOIN LATERAL (
       SELECT count(*) AS n FROM chat_members m WHERE m.chat_id = k.chat_id AND m.left_at IS NULL) m
     WHERE k.chat_id = ANY($1) AND m.n <> k.member_count
     UNION ALL
     SELECT chat_id, 'cursor of ' || user_id || ' went from ' || was || ' to ' || became FROM j_backwards WHERE chat_id = ANY($1)
     UNION ALL
     SELECT m.chat_id, 'cursor of ' || m.user_id || ' is past the end' FROM chat_members m JOIN chat_counters k ON k.chat_id = m.chat_id
     WHERE m.chat_id = ANY($1) AND greatest(m.read_seq, m.delivered_seq) > k.last_seq`,
    [chats],
  )
  return rows.map((row) => `${row.chat_id}: ${row.said}`)
}

/** The last change of membership up to and including `version`. */
export const standing = (changes: readonly Change[] | undefined, version: number): Change | undefined =>
  changes?.findLast((change) => change.version <= version)

/** Acknowledged: there, once. Refused: not there. And whoever wrote was a member at that version. */
export async function checkSends(run: Run, journal: ReadonlyMap<string, Change[]>, blocks: Blocks): Promise<string[]> {
  const { rows } = await run.world.sql.query<{
    id: string
    chat_id: string
    seq: number
    /** That it was sent in. */
    version: number
    sender_id: string
    client_id: string
    content: string
  }>(
    `SELECT id, chat_id, seq::int, sender_id, client_id, content,
       (SELECT min(version)::int FROM j_versions j WHERE j.chat_id = m.chat_id AND j.seq = m.seq AND j.what = 'messages') AS version
     FROM messages m WHERE chat_id = ANY($1) AND message_type <> 'system'`,
    [run.chats],
  )
  const complaints: string[] = []
  const bySend = Map.groupBy(rows, (row) => `${row.chat_id} ${row.sender_id} ${row.client_id}`)
  for (const [key, found] of bySend) if (found.length > 1) complaints.push(`${key} is there ${found.length} times`)
  for (const row of rows) {
    const writer = standing(journal.get(`${row.chat_id} ${row.sender_id}`), row.version)
    if (!writer?.active || (run.channels.includes(row.chat_id) && writer.role !== 'owner' && writer.role !== 'admin'))
      complaints.push(`${row.content} at version ${row.version} was written by somebody who was no member then`)
  }
  const tries = Map.groupBy(run.sends, (s) => `${s.chatId} ${s.userId} ${s.clientId}`)
  for (const [key, sends] of tries) {
    const [row] = bySend.get(key) ?? []
    const name = `${sends[0]!.content} in ${sends[0]!.chatId}`
    for (const { message } of sends)
      if (message && (message.id !== row?.id || message.seq !== row.seq))
        complaints.push(`${name} was acknowledged as ${message.id} #${message.seq} but is ${JSON.stringify(row)}`)
    if (row && sends.every((s) => s.result === 'chat_not_found' || s.result === 'forbidden' || isBlockRefusal(s.result)))
      complaints.push(`${name} was refused and is there`)
    for (const sent of sends) {
      // In a channel who may write changes with the role, not with the membership.
      if (run.channels.includes(sent.chatId)) continue
      const blocked = isBlocked(run, blocks, sent.chatId, sent)
      complaints.push(...judge(sent, name, blocked, journal.get(`${sent.chatId} ${sent.userId}`)))
    }
  }
  for (const key of bySend.keys()) if (!tries.has(key)) complaints.push(`${key} was sent by nobody`)
  return complaints
}

/** Times of the journal are a little older than the commits that made them true. */
export const slackMs = 250

/** Who was a member all the while is not refused; who was none all the while is, as if there were no such chat. */
function judge(
  { from, until, result, chatId }: SendOutcome,
  name: string,
  blocked: boolean | undefined,
  changes: readonly Change[] = [],
): string[] {
  if (result === 'lost' || result === 'unavailable') return []
  if (isBlockRefusal(result)) return blocked === false ? [`${name}: refused with ${result}, though nobody blocked`] : []
  if (result === 'ok' && blocked) return [`${name}: one of the two blocked the other`]
  const before = changes.findLast((change) => change.at < from - slackMs)
  if (changes.some((change) => change.at >= from - slackMs && change.at <= until)) return []
  if (before?.active) return result === 'ok' || deletedChats.has(chatId) ? [] : [`${name}: a member was refused with ${result}`]
  return result === 'chat_not_found' ? [] : [`${name}: somebody who is no member got ${result}`]
}

/** Groups that were deleted: who was a member of them may be refused. */
export const deletedChats = new Set<string>()

/** What one connection was told, in the order in which it was. */
export function checkHearing(
  run: Run,
  hearing: Hearing,
  journal: ReadonlyMap<string, Change[]>,
  comings: ReadonlyMap<string, Change[]>,
): string[] {
  const { device, userId, events, caughtUp } = hearing
  const complaints: string[] = []
  const last = new Map<string, { version: number; seq: number }>()
  // Where this connection began to hear a chat that was added meanwhile: its client asks for what came before.
  const added = events.flatMap(({ event }) => (event.type === 'chat_added' ? [event.chat] : []))
  let userVersion = -1
  let ended = false
  for (const { event, at } of events) {
    if (ended) complaints.push(`${device}: ${event.type} came after its session had ended`)
    ended ||= event.type === 'session_ended'
    if ('user_prev' in event) {
      if (event.user_version <= userVersion) complaints.push(`${device}: user_version ${event.user_version} after ${userVersion}`)
      userVersion = event.user_version
    }
    if (!('prev' in event)) continue
    const { chat_id, version, prev, type } = event
    const name = `${device}, ${chat_id}, ${type} ${version} (after ${prev})`
    const changes = journal.get(`${chat_id} ${userId}`)
    const now = standing(changes, version)
    // The leaving itself is heard. What is newer is heard by who is a member again, when this is so.
    const isLeaving = now !== undefined && !now.active && now.version === version
    const isBack = changes?.some((c) => c.active && c.version > version && c.at <= at) ?? false
    const isChannel = run.channels.includes(chat_id)
    if (isChannel ? !run.lossy && isGone(comings.get(`${chat_id} ${userId}`), at) : !now?.active && !isLeaving && !isBack)
      complaints.push(`${name} was told to somebody who is no member`)
    const before = last.get(chat_id)
    if (before && version <= before.version) complaints.push(`${name} came after version ${before.version}`)
    // What went before was told to this connection, or to its first sync, or came before they joined (again).
    const known = before?.version ?? caughtUp?.[chat_id] ?? (caughtUp && -1)
    const joined = changes?.some((c) => c.active && c.version > (known ?? -1) && c.version <= prev) ?? false
    const covered = joined || added.some((chat) => chat.id === chat_id && chat.version >= prev)
    // A row with reactions that was read from the database follows on from nothing: it is asked for by `sync`.
    const isWhole = type === 'message_edited' && event.message.reactions.length > 0 && prev === version
    if (known !== undefined && prev > known && !covered && !isWhole) complaints.push(`${name}: only ${known} had been told`)
    const seq = type === 'new_message' ? event.message.seq : 0
    if (before && seq > 0 && seq <= before.seq) complaints.push(`${name}: #${seq} came after #${before.seq}`)
    last.set(chat_id, { version, seq: Math.max(seq, before?.seq ?? 0) })
  }
  return complaints
}

/** Subscribers leave without a version: soon after that they hear nothing more, unless the news of it was lost. */
const goneAfterMs = 1_500

function isGone(changes: readonly Change[] = [], at: number): boolean {
  if (changes.some((change) => change.at > at - goneAfterMs && change.at <= at)) return false
  return changes.findLast((change) => change.at <= at)?.active !== true
}

/** What a user has not read, counted the slow way; and those of them that call them by name. */
export async function countUnread(sql: Pool, userId: string): Promise<Map<string, { unread: number; mentions: number }>> {
  const { rows } = await sql.query<{ chat_id: string; unread: number; mentions: number }>(
    `SELECT u.chat_id, x.unread, x.mentions FROM user_chats u JOIN chat_members m ON m.chat_id = u.chat_id AND m.user_id = u.user_id
     CROSS JOIN LATERAL (
       SELECT count(*)::int AS unread, (count(*) FILTER (WHERE u.user_id = ANY(x.mentions)))::int AS mentions FROM messages x
       WHERE x.chat_id = u.chat_id AND x.seq > m.read_seq AND x.seq > u.cleared_seq
         AND x.sender_id <> u.user_id AND x.message_type <> 'system' AND x.deleted_at IS NULL
         AND NOT EXISTS (SELECT 1 FROM relations r WHERE r.user_id = u.user_id AND r.other_id = x.sender_id AND r.blocked)) x
     WHERE u.user_id = $1 AND u.is_member`,
    [userId],
  )
  return new Map(rows.map((row) => [row.chat_id, row]))
}

/** Reactions and quotes of a chat's messages as they must be shown to this user, read the slow way; by seq. */
export async function shownBeside(sql: Pool, chatId: string, userId: string) {
  const { rows } = await sql.query<{ seq: number; reactions: object[]; quote: object | null }>(
    `SELECT m.seq::int, r.reactions, CASE WHEN q.seq IS NOT NULL THEN
       json_build_object('seq', q.seq, 'content', left(q.content, 200), 'deleted', q.deleted_at IS NOT NULL) END AS quote
     FROM messages m LEFT JOIN messages q ON q.chat_id = m.chat_id AND q.seq = m.reply_to_seq
     CROSS JOIN LATERAL (
       SELECT coalesce(json_agg(json_build_object('emoji', e.emoji, 'count', e.n, 'me', e.me) ORDER BY e.emoji), '[]') AS reactions
       FROM (SELECT emoji, count(*) AS n, bool_or(user_id = $2) AS me FROM message_reactions x
             WHERE x.chat_id = m.chat_id AND x.seq = m.seq GROUP BY emoji) e) r
     WHERE m.chat_id = $1`,
    [chatId, userId],
  )
  return new Map(rows.map((row) => [row.seq, row]))
}
