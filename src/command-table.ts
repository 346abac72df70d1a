import { type Cursors, lastSeq } from './modules/chats/index.ts'
import { deleteMessage, editMessage, type MessageDeps, react, send } from './modules/messages/index.ts'
import type { Signals } from './modules/presence/index.ts'
import { type SyncDeps, sync } from './modules/sync/index.ts'
import type { CommandTable } from './platform/command.ts'

/** What each WebSocket command does; REST has the same services behind it. */
export function commandTable({
  messages,
  signals,
  cursors,
  streams,
}: {
  messages: MessageDeps
  signals: Signals
  cursors: Cursors
  streams: SyncDeps
}): CommandTable {
  return {
    message: async ({ identity }, command) => {
      const { committed } = await send(messages, identity, command)
      return { later: committed.then(({ message, duplicate }) => ({ message, ...(duplicate && { duplicate }) })) }
    },
    edit: async ({ identity }, { message_id, content }) => ({
      message: await editMessage(messages, identity.user_id, message_id, content),
    }),
    delete: async ({ identity }, { message_id }) => {
      await deleteMessage(messages, identity.user_id, message_id)
      return {}
    },
    react: async ({ identity }, { message_id, emoji, remove }) => ({
      reactions: await react(messages, identity.user_id, message_id, emoji, remove),
    }),
    typing: async (caller, { chat_id, is_typing }) => {
      await signals.typing(caller, chat_id, is_typing)
      return {}
    },
    read: ({ identity }, { chat_id, seq }) => ({
      later: cursors.move({ chat_id, user_id: identity.user_id, read: seq ?? lastSeq }),
    }),
    delivered: ({ identity }, { chat_id, seq }) => ({
      later: cursors.move({ chat_id, user_id: identity.user_id, delivered: seq ?? lastSeq }),
    }),
    join_chat: async (caller, { chat_id }) => ({ user_ids: await signals.join(caller, chat_id) }),
    leave_chat: async (caller, { chat_id }) => {
      await signals.leave(caller, chat_id)
      return {}
    },
    sync: ({ identity }, { type: _type, id: _id, ...input }) => sync(streams, identity.user_id, input),
  }
}
