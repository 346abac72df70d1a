import type { MessageEvent, System, UserBrief } from '../../protocol/resources.ts'

/** A message of type `system` as everyone sees it: who did what to whom, drawn by the client in its own words. */
export function systemMessage(given: {
  id: string
  chat_id: string
  seq: number
  version: number
  client_id: string
  created_at: string
  sender: UserBrief
  system: System
}): MessageEvent {
  const { sender, ...rest } = given
  return {
    ...rest,
    sender_id: sender.id,
    sender,
    message_type: 'system',
    content: '',
    reply_to: null,
    forwarded_from: null,
    media: [],
    mentions: [],
    reactions: [],
    is_edited: false,
    edited_at: null,
    deleted_at: null,
    pinned_at: null,
  }
}
