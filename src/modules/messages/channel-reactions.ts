import { type Queryable, sql } from '../../platform/db/db.ts'
import { AppError, isUnavailable } from '../../platform/errors.ts'
import { frame } from '../../protocol/events.ts'
import type { MessageEvent, UserBrief } from '../../protocol/resources.ts'
import { type Change, type ChatDeps, type ChatRow, changeChat, strangerTo } from '../chats/index.ts'
import { insertReaction, reactionsOf, removeReaction } from './reaction-rows.ts'
import { type MessageRow, messagesAt } from './rows.ts'
import { compose, type Parts, partsOf, place } from './views.ts'

/**
 * Reactions in channels. Each is committed at once and counts in whatever is read from then on, but takes neither the chat's
 * lock nor a version: a thousand in a second must not be a thousand events for ten thousand people. What was reacted to is
 * noted beside the reaction, and about once a second told: one version and one `message_edited` for each message.
 */

/** Told no more often than this, by however many instances. */
const tellEveryMs = 1_000
/** Messages of one chat, and chats, that are told in one go. */
const maxMessages = 100
const maxChats = 50

/** Says whether it made a difference. Rejects with `message_not_found`, `forbidden`, `message_deleted`, `too_many_reactions`. */
export async function reactInChannel(
  chats: ChatDeps,
  actorId: string,
  { row, chat }: { row: MessageRow; chat: ChatRow },
  { emoji, removed, maxEmojis }: { emoji: string; removed: boolean; maxEmojis: number },
): Promise<void> {
  const { chat_id, seq, id: message_id } = row
  const isNew = await chats.db.transaction(async (tx) => {
    // Whoever is being removed either is not any more or waits for this.
    const [mine] = await tx.query(sql`
      SELECT role FROM chat_members WHERE chat_id = ${chat_id} AND user_id = ${actorId} AND left_at IS NULL FOR SHARE`)
    if (!mine) throw chat.is_public ? strangerTo(chat) : new AppError('message_not_found')
    if (row.deleted_at !== null) throw new AppError('message_deleted')
    // What never changed is read without a look at reactions. Its version stays until it is told.
    if (!row.changed)
      await tx.query(sql`UPDATE messages SET changed = true WHERE chat_id = ${chat_id} AND seq = ${seq} AND NOT changed`)
    const changed = removed ? await removeReaction(tx, row, actorId, emoji) : await insertReaction(tx, row, actorId, emoji)
    if (!changed) return false
    if (!removed && !(await isUsed(tx, row, actorId, emoji))) {
      const reactions = (await reactionsOf(tx, [row])).get(place(chat_id, seq)) ?? []
      if (reactions.length > maxEmojis) throw new AppError('too_many_reactions')
    }
    await tx.query(sql`INSERT INTO channel_reactions_due (chat_id, seq) VALUES (${chat_id}, ${seq})`)
    return true
  })
  if (isNew) chats.news.passTo([actorId], frame({ type: 'my_reaction', chat_id, message_id, seq, emoji, removed }))
}

/** Somebody else gave this emoji, so that it is no new one. Key of message_reactions. */
async function isUsed(q: Queryable, { chat_id, seq }: MessageRow, actorId: string, emoji: string): Promise<boolean> {
  const rows = await q.query(sql`
    SELECT 1 AS used FROM message_reactions
    WHERE chat_id = ${chat_id} AND seq = ${seq} AND emoji = ${emoji} AND user_id <> ${actorId} LIMIT 1`)
  return rows.length > 0
}

export interface ReactionTeller {
  /** Resolves when what was begun is told. */
  close(): Promise<void>
}

/** Every instance looks; whoever comes first tells. */
export function createReactionTeller(chats: ChatDeps): ReactionTeller {
  let running: Promise<void> | undefined
  const timer = setInterval(() => {
    running ??= tellDue(chats)
      .catch((error: unknown) => complain(chats, error))
      .finally(() => {
        running = undefined
      })
  }, tellEveryMs / 2)
  timer.unref()
  return {
    async close() {
      clearInterval(timer)
      await running
    },
  }
}

/** A database that is away is asked again, and others have said so. */
function complain(chats: ChatDeps, error: unknown): void {
  if (!isUnavailable(error)) chats.onError(error, 'reactions in channels could not be told')
}

/** Channels whose oldest untold reaction has waited long enough. Index channel_reactions_due_at. */
async function tellDue(chats: ChatDeps): Promise<void> {
  const due = await chats.db.query<{ chat_id: string }>(sql`
    SELECT DISTINCT chat_id FROM channel_reactions_due WHERE at <= now() - ${tellEveryMs}::integer * interval '1 millisecond' LIMIT ${maxChats}`)
  for (const { chat_id } of due) {
    try {
      await changeChat(chats, chat_id, tellReactions)
    } catch (error) {
      // One that cannot be told does not keep the others from it.
      if (!(error instanceof AppError && error.code === 'chat_not_found')) complain(chats, error)
      else await chats.db.query(sql`DELETE FROM channel_reactions_due WHERE chat_id = ${chat_id}`)
    }
  }
}

/**
 * Rows that were not committed when these were taken stay for the next time, and the reactions are read after it: none is
 * left untold. Of a message that was deleted just then, what came too late is deleted with it. Key of channel_reactions_due.
 */
async function tellReactions(change: Change): Promise<void> {
  const { tx, chat } = change
  const taken = await tx.query<{ seq: number }>(sql`
    DELETE FROM channel_reactions_due d USING (SELECT DISTINCT seq FROM channel_reactions_due WHERE chat_id = ${chat.id} ORDER BY seq LIMIT ${maxMessages}) AS few
    WHERE d.chat_id = ${chat.id} AND d.seq = few.seq RETURNING d.seq`)
  const seqs = [...new Set(taken.map(({ seq }) => seq))].sort((a, b) => a - b)
  const found = await messagesAt(
    tx,
    seqs.map((seq) => ({ chat_id: chat.id, seq })),
  )
  const gone = found.filter((row) => row.deleted_at !== null).map(({ seq }) => seq)
  if (gone.length > 0)
    await tx.query(sql`DELETE FROM message_reactions WHERE chat_id = ${chat.id} AND seq = ANY(${gone}::bigint[])`)
  const rows = found
    .filter((row) => row.deleted_at === null)
    .sort((a, b) => a.seq - b.seq)
    .map((row): MessageRow => ({ ...row, version: change.nextVersion(), changed: true }))
  if (rows.length === 0) return
  await tx.query(sql`
    UPDATE messages m SET version = t.version, changed = true
    FROM unnest(${rows.map((r) => r.seq)}::bigint[], ${rows.map((r) => r.version)}::bigint[]) AS t(seq, version)
    WHERE m.chat_id = ${chat.id} AND m.seq = t.seq`)
  const parts = await partsOf(tx, rows)
  const messages = composeOnce(parts)
  for (const [n, { chat_id, version }] of rows.entries()) {
    change.emitAt(version, parts.people, (people) => ({
      type: 'message_edited',
      chat_id,
      version,
      prev: version - 1,
      message: messages(people)[n]!,
    }))
  }
}

function composeOnce(parts: Parts): (people: ReadonlyMap<string, UserBrief>) => MessageEvent[] {
  let messages: MessageEvent[] | undefined
  return (people) => (messages ??= compose(parts, people))
}
