import { sql } from '../../platform/db/db.ts'
import { AppError } from '../../platform/errors.ts'
import type { UserBrief } from '../../protocol/resources.ts'
import { accessMessage } from './access.ts'
import type { MessageDeps } from './deps.ts'

export interface Receipt {
  user: UserBrief
  delivered_at: string | null
  read_at: string | null
}

interface ReceiptRow {
  user_id: string
  delivered_at: string | null
  read_at: string | null
}

/**
 * Who of those who had joined before has the message and has read it, and when: for its sender alone, by the ids of the
 * others. A time is that of the first known move of their cursor to the message or past it, so it is never too early.
 * Channels have none. Keys of chat_members and cursor_moves.
 */
export async function listReceipts(
  deps: MessageDeps,
  viewerId: string,
  messageId: string,
  options: { limit: number; cursor?: string | undefined },
): Promise<{ receipts: Receipt[]; has_more: boolean; next_cursor: string | null }> {
  const { row, chat } = await accessMessage(deps.chats, viewerId, messageId)
  if (row.sender_id !== viewerId || chat.type === 'channel') throw new AppError('forbidden')
  const rows = await deps.db.query<ReceiptRow>(sql`
    SELECT m.user_id,
      CASE WHEN m.delivered_seq >= ${row.seq} THEN least(
        (SELECT at FROM cursor_moves c WHERE c.chat_id = m.chat_id AND c.user_id = m.user_id AND NOT c.is_read AND c.seq >= ${row.seq} ORDER BY c.seq LIMIT 1),
        (SELECT at FROM cursor_moves c WHERE c.chat_id = m.chat_id AND c.user_id = m.user_id AND c.is_read AND c.seq >= ${row.seq} ORDER BY c.seq LIMIT 1)) END AS delivered_at,
      CASE WHEN m.read_seq >= ${row.seq} THEN coalesce(
        (SELECT at FROM cursor_moves c WHERE c.chat_id = m.chat_id AND c.user_id = m.user_id AND c.is_read AND c.seq >= ${row.seq} ORDER BY c.seq LIMIT 1), m.read_at) END AS read_at
    FROM chat_members m
    WHERE m.chat_id = ${row.chat_id} AND m.left_at IS NULL AND m.user_id <> ${viewerId} AND m.joined_seq < ${row.seq}
      AND m.user_id > ${options.cursor ?? '00000000-0000-0000-0000-000000000000'}
    ORDER BY m.user_id LIMIT ${options.limit + 1}`)
  const has_more = rows.length > options.limit
  const page = rows.slice(0, options.limit)
  const people = await deps.briefs(page.map(({ user_id }) => user_id))
  return {
    receipts: page.map(({ user_id, delivered_at, read_at }) => ({ user: people.get(user_id)!, delivered_at, read_at })),
    has_more,
    next_cursor: has_more ? page.at(-1)!.user_id : null,
  }
}
