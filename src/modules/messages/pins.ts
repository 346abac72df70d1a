import { type Queryable, sql } from '../../platform/db/db.ts'
import { AppError } from '../../platform/errors.ts'
import type { Message } from '../../protocol/resources.ts'
import { accessChat } from '../chats/index.ts'
import { accessMessage, changeMessage, checkMayReact } from './access.ts'
import type { MessageDeps } from './deps.ts'
import { tellEdited, viewOf } from './life.ts'
import { columns, type MessageRow } from './rows.ts'
import { messageViews } from './views.ts'

/** Pinned messages of one chat. */
const maxPins = 100

/** Both people of a direct chat, else owner and admins. Pinning what is pinned changes nothing. */
export async function pinMessage(
  deps: MessageDeps,
  actorId: string,
  chatId: string,
  messageId: string,
  pinned: boolean,
): Promise<Message> {
  const { row: known } = await accessMessage(deps.chats, actorId, messageId)
  const now = await changeMessage(deps.chats, actorId, known, async (change, row, acl) => {
    if (row.chat_id !== chatId) throw new AppError('message_not_found')
    const role = await change.roleOf(actorId)
    if (change.chat.type !== 'dm' && role !== 'owner' && role !== 'admin') throw new AppError('forbidden')
    checkMayReact(acl, actorId)
    if (row.deleted_at !== null) throw new AppError('message_deleted')
    if ((row.pinned_at !== null) === pinned) return row
    if (pinned && (await countPins(change.tx, chatId)) >= maxPins) throw new AppError('too_many_pins')
    const version = change.nextVersion()
    const [now] = await change.tx.query<MessageRow>(sql`
      UPDATE messages m SET pinned_at = CASE WHEN ${pinned}::boolean THEN date_trunc('milliseconds', clock_timestamp()) END, version = ${version}, changed = true
      WHERE chat_id = ${chatId} AND seq = ${row.seq} RETURNING ${columns}`)
    await tellEdited(change, now!)
    return now!
  })
  return viewOf(deps, actorId, now)
}

async function countPins(q: Queryable, chatId: string): Promise<number> {
  const [row] = await q.query<{ count: number }>(
    sql`SELECT count(*)::int AS count FROM messages WHERE chat_id = ${chatId} AND pinned_at IS NOT NULL`,
  )
  return row!.count
}

/** The one pinned last comes first; all of them, since they are few. Index messages_pinned. */
export async function listPins(deps: MessageDeps, viewerId: string, chatId: string): Promise<Message[]> {
  const chat = await accessChat(deps.chats, viewerId, chatId)
  const rows = await deps.db.query<MessageRow>(sql`
    SELECT ${columns} FROM messages m WHERE m.chat_id = ${chatId} AND m.pinned_at IS NOT NULL AND m.seq > ${chat.cleared_seq}
    ORDER BY m.pinned_at DESC LIMIT ${maxPins}`)
  return messageViews(deps.db, deps.briefs, viewerId, rows)
}
