import type { Pool } from 'pg'
import { decode, segmentSize } from '../../src/modules/search/posts.ts'
import { bySender, wordsOf } from '../../src/modules/search/text.ts'
import { type Change, deletedChats, slackMs, standing } from './checks.ts'
import type { Hearing } from './device.ts'
import { type Blocks, isBlocked, isBlockRefusal } from './relation-checks.ts'
import type { Deed, Run } from './run.ts'

/** What must hold of what became of messages. Each returns its complaints. */

/** A text that was replaced or deleted: in its chat nobody is told it from this version on. */
export type GoneTexts = ReadonlyMap<string, { chatId: string; version: number }>

interface TextChange {
  chat_id: string
  seq: number
  version: number
  was: string
  became: string
  deleted: boolean
}

async function textsOf(sql: Pool, chats: readonly string[]): Promise<TextChange[]> {
  const { rows } = await sql.query<TextChange>(
    'SELECT chat_id, seq::int, version::int, was, became, deleted FROM j_texts WHERE chat_id = ANY($1) ORDER BY version',
    [chats],
  )
  return rows
}

/** What is in the database of messages that changed: nothing of what is gone, all of what is to be kept. */
export async function checkStored(sql: Pool, chats: readonly string[]): Promise<string[]> {
  const { rows } = await sql.query<{ chat_id: string; seq: number; said: string }>(
    `WITH here AS (SELECT * FROM messages WHERE chat_id = ANY($1))
     SELECT chat_id, seq, 'is deleted and kept more than its place: ' || to_jsonb(h)::text AS said FROM here h
     WHERE deleted_at IS NOT NULL AND (content <> '' OR mentions IS NOT NULL OR forward_sender_id IS NOT NULL OR forward_chat_id IS NOT NULL
       OR reply_to_seq IS NOT NULL OR pinned_at IS NOT NULL OR edited_at IS NOT NULL)
     UNION ALL
     SELECT r.chat_id, r.seq, 'is deleted and has rows of ' || r.what FROM here h JOIN (
       SELECT chat_id, seq, 'edits' AS what FROM message_edits UNION ALL SELECT chat_id, seq, 'reactions' FROM message_reactions
       UNION ALL SELECT chat_id, seq, 'mentions' FROM message_mentions) r ON r.chat_id = h.chat_id AND r.seq = h.seq
     WHERE h.deleted_at IS NOT NULL
     UNION ALL
     SELECT coalesce(a.chat_id, b.chat_id), coalesce(a.seq, b.seq), 'mentions ' || coalesce(a.user_id::text, 'nobody') || ', but its rows '
       || coalesce(b.user_id::text, 'nobody') || ' by ' || coalesce(b.sender_id::text, 'nobody')
     FROM (SELECT chat_id, seq, unnest(mentions) AS user_id, sender_id FROM here) a
     FULL JOIN (SELECT * FROM message_mentions WHERE chat_id = ANY($1)) b
       ON b.chat_id = a.chat_id AND b.seq = a.seq AND b.user_id = a.user_id AND b.sender_id = a.sender_id
     WHERE a.user_id IS NULL OR b.user_id IS NULL
     UNION ALL
     SELECT h.chat_id, h.seq, 'has earlier texts ' || coalesce(kept.texts, 'none') || ', but had ' || coalesce(was.texts, 'none')
     FROM here h
     CROSS JOIN LATERAL (SELECT string_agg(content || ' until ' || version, ', ' ORDER BY version) AS texts FROM message_edits e WHERE e.chat_id = h.chat_id AND e.seq = h.seq) kept
     CROSS JOIN LATERAL (SELECT string_agg(was || ' until ' || version, ', ' ORDER BY version) AS texts FROM j_texts t WHERE t.chat_id = h.chat_id AND t.seq = h.seq) was
     WHERE h.deleted_at IS NULL AND kept.texts IS DISTINCT FROM was.texts
     UNION ALL
     SELECT chat_id, seq, 'was edited ' || n || ' times, and says ' || coalesce(edited_at::text, 'never') FROM (
       SELECT h.chat_id, h.seq, h.edited_at, (SELECT count(*) FROM j_texts t WHERE t.chat_id = h.chat_id AND t.seq = h.seq) AS n
       FROM here h WHERE h.deleted_at IS NULL) e WHERE (n > 0) <> (edited_at IS NOT NULL)
     UNION ALL
     SELECT chat_id, seq, 'changed after it was deleted: ' || became FROM (
       SELECT t.*, lag(deleted) OVER (PARTITION BY chat_id, seq ORDER BY version) AS before FROM j_texts t WHERE chat_id = ANY($1)) t
     WHERE before
     UNION ALL
     SELECT DISTINCT r.chat_id, r.seq, 'has a reaction that took no version' FROM j_reactions r
     JOIN chats c ON c.id = r.chat_id AND c.type <> 'channel' WHERE r.chat_id = ANY($1) AND NOT EXISTS (
       SELECT 1 FROM j_versions v WHERE v.chat_id = r.chat_id AND v.seq = r.seq AND v.xid = r.xid AND v.what = 'messages')
     UNION ALL
     SELECT v.chat_id, v.seq, 'took version ' || v.version || ' for nothing' FROM j_versions v JOIN chats c ON c.id = v.chat_id AND c.type <> 'channel'
     WHERE v.chat_id = ANY($1) AND v.bare AND NOT EXISTS (
       SELECT 1 FROM j_reactions r WHERE r.chat_id = v.chat_id AND r.seq = v.seq AND r.xid = v.xid)
     UNION ALL
     SELECT a.chat_id, a.seq, a.what || ' at version ' || a.version || ' by somebody who was no member then' FROM (
       SELECT t.chat_id, t.seq, t.version, h.sender_id AS user_id, 'edited' AS what FROM j_texts t JOIN here h ON h.chat_id = t.chat_id AND h.seq = t.seq WHERE NOT t.deleted
       UNION ALL
       SELECT r.chat_id, r.seq, v.version, r.user_id, 'reacted to' FROM j_reactions r JOIN j_versions v ON v.chat_id = r.chat_id AND v.seq = r.seq AND v.xid = r.xid
       WHERE r.chat_id = ANY($1) AND r.added) a
     JOIN chats c ON c.id = a.chat_id AND c.type <> 'channel'
     WHERE NOT (SELECT active FROM j_members j WHERE j.chat_id = a.chat_id AND j.user_id = a.user_id AND j.version <= a.version ORDER BY j.version DESC LIMIT 1)
     UNION ALL
     SELECT chat_id, seq, 'is marked as never changed' FROM here h WHERE NOT changed
       AND (SELECT count(*) FROM j_versions v WHERE v.chat_id = h.chat_id AND v.seq = h.seq AND v.what = 'messages') > 1`,
    [chats],
  )
  return rows.map((row) => `${row.chat_id} #${row.seq} ${row.said}`)
}

/** A text that was sent on stays where it was sent to, and may be told there at any time. */
export async function goneTexts(run: Run): Promise<GoneTexts> {
  const gone = new Map<string, { chatId: string; version: number }>()
  for (const { chat_id: chatId, version, was } of await textsOf(run.world.sql, run.chats))
    if (was !== '') gone.set(keyOf(was), { chatId, version })
  const { rows } = await run.world.sql.query<{ content: string }>('SELECT content FROM j_forwarded WHERE chat_id = ANY($1)', [
    run.chats,
  ])
  for (const { content } of rows) gone.delete(keyOf(content))
  return gone
}

/** The part of a text that is like no other. */
const keyOf = (text: string) => /text \d+\./.exec(text)?.[0] ?? text

export function checkGone({ device, events }: Hearing, gone: GoneTexts): string[] {
  const complaints: string[] = []
  for (const { event } of events) {
    if (!('prev' in event)) continue
    for (const [text] of JSON.stringify(event).matchAll(/text \d+\./g)) {
      const found = gone.get(text)
      if (found && (event.chat_id !== found.chatId || event.version >= found.version))
        complaints.push(`${device}: ${event.type} ${event.version} in ${event.chat_id} tells "${text}", gone at ${found.version}`)
    }
  }
  return complaints
}

/** Who is called by name in a text is meant if they were members all the while, and not if they were none. */
export async function checkMentions(run: Run, journal: ReadonlyMap<string, Change[]>): Promise<string[]> {
  const { rows } = await run.world.sql.query<{
    chat_id: string
    seq: number
    sender_id: string
    client_id: string
    content: string
    mentions: string[]
    edited: boolean
  }>(
    `SELECT chat_id, seq::int, sender_id, client_id, content, coalesce(mentions, '{}')::text[] AS mentions, edited_at IS NOT NULL AS edited
     FROM messages WHERE chat_id = ANY($1) AND message_type <> 'system' AND deleted_at IS NULL`,
    [run.chats],
  )
  const complaints: string[] = []
  for (const row of rows) {
    const name = row.content.match(/@(\w+)/)?.[1]?.toLowerCase()
    const called = run.people.find((person) => person.account.username === name)?.account.id
    const said = `${row.chat_id} #${row.seq} "${row.content}" mentions ${row.mentions.join() || 'nobody'}`
    if (row.mentions.some((id) => id !== called) || called === row.sender_id) {
      if (row.mentions.length > 0) complaints.push(said)
      continue
    }
    if (called === undefined || run.channels.includes(row.chat_id)) continue
    const tries = row.edited
      ? run.deeds.filter((deed) => deed.content === row.content)
      : run.sends.filter((s) => s.chatId === row.chat_id && s.userId === row.sender_id && s.clientId === row.client_id)
    const was = steady(journal.get(`${row.chat_id} ${called}`), tries)
    if (was !== undefined && was !== row.mentions.includes(called))
      complaints.push(`${said}, but ${called} was ${was ? 'a' : 'no'} member`)
  }
  return complaints
}

/** Whether somebody was a member all the while, or none all the while; undefined where that changed. */
function steady(changes: readonly Change[] = [], tries: readonly { from: number; until: number }[]): boolean | undefined {
  const from = Math.min(...tries.map((t) => t.from)) - slackMs
  const until = Math.max(...tries.map((t) => t.until)) + slackMs
  if (changes.some((change) => change.at >= from && change.at <= until)) return undefined
  return changes.findLast((change) => change.at < from)?.active ?? false
}

/** What was answered is what came of it; what was refused left no trace. */
export async function checkDeeds(run: Run, journal: ReadonlyMap<string, Change[]>, blocks: Blocks): Promise<string[]> {
  const { sql } = run.world
  const texts = await textsOf(sql, run.chats)
  const became = new Map(texts.map((change) => [change.became, change]))
  const deletedAt = new Map(texts.filter((t) => t.deleted).map((t) => [`${t.chat_id} ${t.seq}`, t.version]))
  const { rows: messages } = await sql.query<{ id: string; sender_id: string; client_id: string; chat_id: string }>(
    'SELECT id, sender_id, client_id, chat_id FROM messages WHERE chat_id = ANY($1)',
    [run.chats],
  )
  const senderOf = new Map(messages.map((row) => [row.id, row.sender_id]))
  const isThere = new Set(messages.map((row) => `${row.chat_id} ${row.sender_id} ${row.client_id}`))
  const { rows: reactions } = await sql.query<{ key: string; at: number }>(
    `SELECT concat_ws(' ', chat_id, seq, user_id, emoji, added) AS key, (extract(epoch FROM at) * 1000)::float AS at FROM j_reactions WHERE chat_id = ANY($1)`,
    [run.chats],
  )
  const reacted = new Map<string, number[]>()
  for (const { key, at } of reactions) reacted.set(key, [...(reacted.get(key) ?? []), at])
  const complaints: string[] = []
  for (const done of run.deeds) {
    const { what, result, chatId, userId, seq, content, messageId, to } = done
    const arrived = to?.chatIds.filter((id) => isThere.has(`${id} ${userId} ${to.clientId}`)).length ?? 0
    if (to && arrived > 0 && arrived < to.chatIds.length)
      complaints.push(`${what} of ${chatId} #${seq} by ${userId}: ${result}, is in ${arrived} of ${to.chatIds.length} chats`)
    if (result === 'lost' || result === 'unavailable') continue
    const name = `${what} of ${chatId} #${seq} by ${userId} ${content ?? done.emoji ?? ''}: ${result}`
    const isMember = steady(journal.get(`${chatId} ${userId}`), [done])
    const place = `${chatId} ${seq}`
    if (result !== 'ok') {
      if (content !== undefined && became.has(content)) complaints.push(`${name}, and yet it is there`)
      for (const id of to?.chatIds ?? [])
        if (isThere.has(`${id} ${userId} ${to!.clientId}`)) complaints.push(`${name}, and yet it is in ${id}`)
    } else {
      const changed = content === undefined ? undefined : became.get(content)
      if (content !== undefined && changed?.seq !== seq) complaints.push(`${name}, but it never was so`)
      const deleters = run.deeds.filter((d) => d.what === 'delete' && d.messageId === messageId && d.result !== 'forbidden')
      const deleted = deleters.length === 1 && what === 'delete' ? deletedAt.get(place) : undefined
      if (deleted !== undefined && !standing(journal.get(`${chatId} ${userId}`), deleted)?.active)
        complaints.push(`${name} at version ${deleted}, by somebody who was no member then`)
      if (what === 'delete' && !deletedAt.has(place)) complaints.push(`${name}, but it is there`)
      if (what === 'edit' && senderOf.get(messageId) !== userId) complaints.push(`${name}, but it is another's`)
      if (isMember === false && !run.channels.includes(chatId)) complaints.push(`${name}, though no member`)
      if (what !== 'delete' && what !== 'forward' && isBlocked(run, blocks, chatId, done))
        complaints.push(`${name}, though one of the two blocked the other`)
    }
    const reaches = to?.chatIds.every((id) => steady(journal.get(`${id} ${userId}`), [done]) && !deletedChats.has(id))
    const isExcused = [chatId, ...(to?.chatIds ?? [])].some((id) => isBlocked(run, blocks, id, done) !== false)
    const known = { isExcused, isMember, reaches, wasDeleted: deletedAt.has(place), isMine: senderOf.get(messageId) === userId }
    // In a channel it depends on the role, and on when one subscribed.
    const isPlain = [chatId, ...(to?.chatIds ?? [])].every((id) => !run.channels.includes(id))
    if (isPlain) complaints.push(...judge(run, done, known).map((why) => name + why))
    if (what === 'react' || what === 'unreact') {
      const times = reacted.get(`${place} ${userId} ${done.emoji} ${what === 'react' ? 't' : 'f'}`) ?? []
      const others = run.deeds.some((d) => d !== done && d.what === what && d.userId === userId && d.messageId === messageId)
      if (result !== 'ok' && !others && times.some((at) => at >= done.from - slackMs && at <= done.until))
        complaints.push(`${name}, and yet it is there`)
    }
  }
  return complaints
}

interface Known {
  /** Perhaps somebody blocked somebody. */
  isExcused: boolean
  /** All the while; undefined where it changed. */
  isMember: boolean | undefined
  /** Of a forward: a member of every chat it was for. */
  reaches: boolean | undefined
  wasDeleted: boolean
  isMine: boolean
}

/** Refusals need an excuse. */
function judge(run: Run, { what, result, userId, chatId }: Deed, known: Known): string[] {
  const { isExcused, isMember, reaches, wasDeleted, isMine } = known
  if (isBlockRefusal(result)) return isExcused && what !== 'delete' ? [] : [', though nobody blocked']
  switch (result) {
    case 'ok':
      return []
    case 'message_deleted':
      return wasDeleted ? [] : [', but it was not']
    case 'message_not_found':
      // A direct chat may have been cleared; a deleted group is nobody's.
      return isMember && !deletedChats.has(chatId) && !run.cleared.has(`${chatId} ${userId}`) ? [' for a member'] : []
    case 'forbidden':
      if (what === 'edit' || what === 'delete') return isMine ? [' for its sender'] : []
      return what === 'pin' || what === 'unpin' ? [] : [', though nobody needs a role for it']
    case 'chat_not_found':
      return reaches === false ? [] : [' is no answer to that']
    default:
      return [' is no answer to that']
  }
}

/** Messages are found by the words that they have now, and by no others: nothing of a text that is gone is left. */
export async function checkWords(sql: Pool, chats: readonly string[]): Promise<string[]> {
  const { rows } = await sql.query<{
    chat_id: string
    segment: number
    word: string
    messages: Buffer
    texts: Record<string, [string, string]>
  }>(
    `SELECT w.chat_id, w.segment, w.word, w.messages, t.texts FROM search_words w JOIN LATERAL (
       SELECT jsonb_object_agg(seq, jsonb_build_array(content, sender_id)) AS texts FROM messages m WHERE m.chat_id = w.chat_id) t ON true
     WHERE w.chat_id = ANY($1)`,
    [chats],
  )
  return rows.flatMap(({ chat_id, segment, word, messages, texts }) =>
    decode(messages).flatMap((offset) => {
      const [content, sender] = texts[segment * segmentSize + offset] ?? ['', '']
      const words = content === '' ? [] : [...wordsOf(content!), bySender(sender!)]
      return words.includes(word) ? [] : [`${chat_id} #${segment * segmentSize + offset} "${content}" is found by ${word}`]
    }),
  )
}
