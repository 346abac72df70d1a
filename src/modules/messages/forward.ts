import { AppError } from '../../platform/errors.ts'
import type { Identity } from '../../platform/identity.ts'
import type { LimitState } from '../../platform/limits/limits.ts'
import type { Message } from '../../protocol/resources.ts'
import { accessMessage } from './access.ts'
import type { Send } from './batch.ts'
import type { MessageDeps } from './deps.ts'
import { answer, prepareSend, takeMessageLimit } from './service.ts'

/**
 * Sends a message on to several chats, each as a message of its own that names who wrote it first. To all of
 * them or to none, so that a refusal leaves no trace. Rejects with `message_not_found`, `message_deleted`, `not_editable`,
 * and with what a send to any of the chats would be refused with. Resolves in the order of `chatIds`.
 */
export async function forward(
  deps: MessageDeps,
  identity: Identity,
  messageId: string,
  { chat_ids, client_id }: { chat_ids: readonly string[]; client_id?: string | undefined },
): Promise<{ messages: Message[]; limit: LimitState }> {
  const { row, chat } = await accessMessage(deps.chats, identity.user_id, messageId)
  if (row.deleted_at !== null) throw new AppError('message_deleted')
  if (row.message_type === 'system' || row.message_type === 'call') throw new AppError('not_editable')
  // What was forwarded before keeps its first author.
  const source = {
    forward_sender_id: row.forward_sender_id ?? row.sender_id,
    forward_chat_id: row.forward_sender_id !== null ? row.forward_chat_id : chat.is_public ? chat.chat_id : null,
  }
  const sends: Send[] = []
  const chats = new Set(chat_ids)
  const limit = await takeMessageLimit(deps, identity.user_id, chats.size)
  for (const chat_id of chats) {
    // The same client_id serves every chat: it is unique within one.
    sends.push(await prepareSend(deps, identity, { chat_id, content: row.content, client_id, ...source }))
  }
  const written = await deps.writer.sendTogether(sends)
  const messages = await Promise.all(written.map(async (one) => (await answer(deps, identity.user_id, one)).message))
  return { messages, limit }
}
