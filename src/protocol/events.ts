import { z } from 'zod'
import { counter, time, uuid } from './primitives.ts'
import { Chat, ChatEvent, ContactRequest, Me, Member, MessageEvent, My, Relation, UserPublic, userStatus } from './resources.ts'

/** Frames from the server. Those with `version` and `prev` changed the shared state of the chat; see the page on sync. */

const unixSeconds = z.number().int().describe('Unix seconds')
const stamp = { chat_id: uuid, version: counter, prev: counter.describe('The version that a client must have to apply this') }
const own = { user_version: counter, user_prev: counter.describe('The user version that a client must have to apply this') }

const event = <T extends string, S extends z.ZodRawShape>(type: T, description: string, shape: S) =>
  z.object({ type: z.literal(type), ...shape }).meta({ description })

export const serverEvents = {
  ready: event('ready', 'The connection is open and hears everything from now on. Ask `sync` after it.', {
    session_id: uuid,
    user_id: uuid,
    server_time: time,
    heartbeat: z.number().int().describe('Seconds between pings'),
  }),
  user_chats: event('user_chats', 'The chats that this connection hears of.', { chat_ids: z.array(uuid) }),
  new_message: event('new_message', 'A message; within a chat in the order of `seq`.', { ...stamp, message: MessageEvent }),
  message_edited: event(
    'message_edited',
    'A message changed: text, pin, in channels its reactions, or more at once. Where it is not known yet, it is new. Quotes of it change with it.',
    { ...stamp, message: MessageEvent },
  ),
  message_deleted: event('message_deleted', 'A message was deleted; it keeps its place.', {
    ...stamp,
    message_id: uuid,
    seq: counter,
    message: MessageEvent.describe('What stands in its place: without text, mentions, reactions, quote and attribution'),
  }),
  reaction: event('reaction', 'Somebody reacted to a message, or took it back; `count` is of this emoji now. Not in channels.', {
    ...stamp,
    message_id: uuid,
    seq: counter,
    emoji: z.string(),
    user_id: uuid,
    removed: z.boolean(),
    count: counter,
  }),
  my_reaction: event(
    'my_reaction',
    'I reacted to a message of a channel, or took it back: told to my own devices alone. How many did comes as `message_edited`, for all reactions of about a second at once.',
    { chat_id: uuid, message_id: uuid, seq: counter, emoji: z.string(), removed: z.boolean() },
  ),
  member_joined: event('member_joined', 'Somebody joined, or their role changed. In channels of owner and admins alone.', {
    ...stamp,
    user_id: uuid,
    member: Member,
  }),
  member_left: event('member_left', 'Somebody left or was removed.', { ...stamp, user_id: uuid }),
  chat_updated: event('chat_updated', 'Name, description, picture, slug or owner changed; `deleted` when the chat is gone.', {
    ...stamp,
    chat: ChatEvent,
    deleted: z.boolean().optional(),
  }),
  chat_added: event(
    'chat_added',
    'A chat is mine now (or changed for me in a way that is told whole). This connection hears of it from its `version` on: where that is above yours, ask `sync`, even if the `user_version` is known.',
    { ...own, chat: Chat },
  ),
  chat_removed: event('chat_removed', 'A chat is not mine any more.', { ...own, chat_id: uuid }),
  my_updated: event('my_updated', 'My own cursor or settings in a chat changed, on another device perhaps.', {
    ...own,
    chat_id: uuid,
    my: My,
    unread_count: counter,
    mention_count: counter,
    last_seq: counter.describe('The last message when this was counted'),
    chat_version: counter.describe('The version of the chat when this was counted: what was deleted up to it is not in it'),
  }),
  me_updated: event('me_updated', 'My profile or settings changed.', { ...own, me: Me }),
  contact_request: event('contact_request', 'Somebody asks to be a contact of mine.', {
    ...own,
    request: ContactRequest,
    relation: Relation,
  }),
  contact_accepted: event('contact_accepted', 'Somebody is a contact of mine now, whoever asked.', {
    ...own,
    user: UserPublic,
    relation: Relation,
  }),
  relation_updated: event(
    'relation_updated',
    'Any other change of what I hold of somebody: a request made, rejected or taken back, a contact removed, a block. Told in place of the two before, too, where those were lost.',
    { ...own, relation: Relation },
  ),
  read: event(
    'read',
    'Somebody read up to here: told to the authors of what they read, and with `unread_count` and no `message_id` to the reader’s own devices, beside `my_updated`.',
    {
      chat_id: uuid,
      user_id: uuid,
      read_seq: counter,
      last_read_at: time,
      message_id: uuid.nullable(),
      unread_count: counter.optional(),
    },
  ),
  delivered: event('delivered', 'Messages up to here reached somebody: told to their authors.', {
    chat_id: uuid,
    user_id: uuid,
    delivered_seq: counter,
  }),
  typing: event('typing', 'Somebody types, or stopped.', {
    chat_id: uuid,
    user_id: uuid,
    is_typing: z.boolean(),
    timestamp: unixSeconds,
  }),
  chat_presence: event('chat_presence', 'Somebody has this chat on their screen, or no longer.', {
    chat_id: uuid,
    user_id: uuid,
    is_joined: z.boolean(),
  }),
  online_status: event('online_status', 'Somebody came or went, or may be seen (or no longer) by me.', {
    user_id: uuid,
    is_online: z.boolean(),
    status: z.enum(userStatus),
    last_seen: time.nullable(),
    timestamp: unixSeconds,
  }),
  session_ended: event('session_ended', 'This session was ended; the connection closes with 4001.', { session_id: uuid }),
  pong: event('pong', 'The answer to `ping`.', { timestamp: unixSeconds, id: z.string().optional() }),
  ack: z
    .looseObject({ type: z.literal('ack'), id: z.string() })
    .meta({ description: 'The command with this `id` was carried out.' }),
  error: z
    .object({
      type: z.literal('error'),
      id: z.string().optional(),
      code: z.string(),
      error: z.string(),
      details: z.record(z.string(), z.string()).optional(),
      retry_after: z.number().optional(),
    })
    .meta({ description: 'A command was refused; nothing was changed.' }),
} as const

export type ServerEvents = { [K in keyof typeof serverEvents]: z.infer<(typeof serverEvents)[K]> }
/** What is told unasked; `ack` and `error` answer a command. */
export type ServerEvent = ServerEvents[Exclude<keyof ServerEvents, 'ack' | 'error'>]
export type ServerFrame = ServerEvents[keyof ServerEvents]

/** One event as JSON text, typed. */
export const frame = (event: ServerEvent): string => JSON.stringify(event)
