import { sql } from '../../platform/db/db.ts'
import { AppError } from '../../platform/errors.ts'
import type { ServerEvent } from '../../protocol/events.ts'
import type { Message, MessageEvent } from '../../protocol/resources.ts'
import { type Change, type Moved, tellMine, tickMine } from '../chats/index.ts'
import { accessMessage, changeMessage, checkMayWrite } from './access.ts'
import type { MessageDeps } from './deps.ts'
import { mentionsIn, replaceMentions } from './mentions.ts'
import { columns, type MessageRow } from './rows.ts'
import { compose, messageViews, partsOf } from './views.ts'

/** What becomes of a message after it was sent. Every rule is decided under the chat's lock, by the message as it stands there. */

/** Earlier texts that are kept of one message. */
const maxEdits = 100

const isWritten = (row: MessageRow) => row.message_type !== 'system' && row.message_type !== 'call'

interface Stamp {
  chat_id: string
  version: number
  prev: number
}

/** Tells of a message as it stands now in the transaction, under the version that it has there. */
async function tellChanged(
  change: Change,
  row: MessageRow,
  build: (message: MessageEvent, stamp: Stamp) => ServerEvent,
): Promise<void> {
  const parts = await partsOf(change.tx, [row])
  const { chat_id, version } = row
  change.emitAt(version, parts.people, (people) => build(compose(parts, people)[0]!, { chat_id, version, prev: version - 1 }))
}

export const tellEdited = (change: Change, row: MessageRow): Promise<void> =>
  tellChanged(change, row, (message, stamp) => ({ type: 'message_edited', ...stamp, message }))

interface Changed {
  /** The message as it stands after the change. */
  now: MessageRow
  /** Whose mentions changed. */
  moved: Moved[]
}

/** The sender alone. Rejects with `message_not_found`, `message_deleted`, `forbidden`, `not_editable`; the same text again changes nothing. */
export async function editMessage(deps: MessageDeps, actorId: string, messageId: string, content: string): Promise<Message> {
  const { row: known } = await accessMessage(deps.chats, actorId, messageId)
  const mentions = await mentionsIn(deps, known.chat_id, actorId, content)
  const { now, moved } = await changeMessage(deps.chats, actorId, known, async (change, row, acl): Promise<Changed> => {
    if (row.sender_id !== actorId) throw new AppError('forbidden')
    if (!isWritten(row)) throw new AppError('not_editable')
    if (row.deleted_at !== null) throw new AppError('message_deleted')
    checkMayWrite(acl, actorId)
    if (row.content === content) return { now: row, moved: [] }
    const version = change.nextVersion()
    await change.tx.query(sql`
      INSERT INTO message_edits (chat_id, seq, version, content, edited_at)
      VALUES (${row.chat_id}, ${row.seq}, ${version}, ${row.content}, ${row.edited_at ?? row.created_at})`)
    await change.tx.query(sql`
      DELETE FROM message_edits WHERE chat_id = ${row.chat_id} AND seq = ${row.seq} AND version < (
        SELECT version FROM message_edits WHERE chat_id = ${row.chat_id} AND seq = ${row.seq} ORDER BY version DESC OFFSET ${maxEdits - 1} LIMIT 1)`)
    const touched = await replaceMentions(change.tx, row, mentions)
    const [now] = await change.tx.query<MessageRow>(sql`
      UPDATE messages m SET content = ${content}, mentions = ${mentions.length > 0 ? mentions : null}::uuid[], version = ${version}, changed = true,
        edited_at = date_trunc('milliseconds', clock_timestamp())
      WHERE chat_id = ${row.chat_id} AND seq = ${row.seq} RETURNING ${columns}`)
    await deps.onTextChanged(change.tx, now!)
    await tellEdited(change, now!)
    return { now: now!, moved: await tickMine(change.tx, row.chat_id, touched) }
  })
  tellMoved(deps, moved)
  return viewOf(deps, actorId, now)
}

/**
 * The sender, or an owner or admin of the group or channel. Text, earlier texts, reactions and mentions are gone for good;
 * the message keeps its place. Deleting it again changes nothing.
 */
export async function deleteMessage(deps: MessageDeps, actorId: string, messageId: string): Promise<void> {
  const { row: known } = await accessMessage(deps.chats, actorId, messageId)
  const moved = await changeMessage(deps.chats, actorId, known, async (change, row): Promise<Moved[]> => {
    const role = await change.roleOf(actorId)
    if (row.sender_id !== actorId && role !== 'owner' && role !== 'admin') throw new AppError('forbidden')
    if (!isWritten(row)) throw new AppError('not_editable')
    if (row.deleted_at !== null) return []
    const { chat_id, seq } = row
    const version = change.nextVersion()
    const touched = await replaceMentions(change.tx, row, [])
    await change.tx.query(sql`DELETE FROM message_edits WHERE chat_id = ${chat_id} AND seq = ${seq}`)
    await change.tx.query(sql`DELETE FROM message_reactions WHERE chat_id = ${chat_id} AND seq = ${seq}`)
    const [now] = await change.tx.query<MessageRow>(sql`
      UPDATE messages m SET content = '', deleted_at = date_trunc('milliseconds', clock_timestamp()), version = ${version}, changed = true,
        mentions = NULL, forward_sender_id = NULL, forward_chat_id = NULL, reply_to_seq = NULL, edited_at = NULL, pinned_at = NULL
      WHERE chat_id = ${chat_id} AND seq = ${seq} RETURNING ${columns}`)
    await deps.onTextChanged(change.tx, now!)
    await tellChanged(change, now!, (message, stamp) => ({
      type: 'message_deleted',
      ...stamp,
      message_id: row.id,
      seq,
      message,
    }))
    return tickMine(change.tx, chat_id, touched)
  })
  tellMoved(deps, moved)
}

/** Whose mentions changed hears their count; best effort, since `sync` has it too. */
function tellMoved(deps: MessageDeps, moved: readonly Moved[]): void {
  if (moved.length > 0)
    tellMine(deps.chats, moved).catch((error: unknown) => deps.chats.onError(error, 'mentions could not be told'))
}

/** As it stood when it was read or changed; shown even to who was removed since: a refusal would say that nothing was done. */
export async function viewOf(deps: MessageDeps, viewerId: string, row: MessageRow): Promise<Message> {
  return (await messageViews(deps.db, deps.briefs, viewerId, [row]))[0]!
}

export async function viewMessage(deps: MessageDeps, viewerId: string, messageId: string): Promise<Message> {
  const { row } = await accessMessage(deps.chats, viewerId, messageId)
  return viewOf(deps, viewerId, row)
}

/** Earlier texts, oldest first, each with the time it was written at; at most 100. Empty where the message was deleted. Key of message_edits. */
export async function listEdits(deps: MessageDeps, viewerId: string, messageId: string) {
  const { row } = await accessMessage(deps.chats, viewerId, messageId)
  return deps.db.query<{ content: string; edited_at: string }>(sql`
    SELECT content, edited_at FROM message_edits WHERE chat_id = ${row.chat_id} AND seq = ${row.seq} ORDER BY version`)
}
