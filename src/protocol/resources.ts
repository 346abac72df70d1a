import { z } from 'zod'
import { counter, time, uuid } from './primitives.ts'

/** What the server tells: users, chats, messages. Answers are checked against these in tests; the documents are made from them. */

const named = <T extends z.ZodType>(id: string, schema: T) => schema.meta({ id })

export const UserBrief = named(
  'UserBrief',
  z.object({
    id: uuid,
    username: z.string().nullable(),
    display_name: z.string(),
    avatar_url: z.string().nullable(),
  }),
)

export const UserPublic = named(
  'User',
  UserBrief.extend({
    bio: z.string(),
    is_premium: z.boolean(),
    is_online: z.boolean(),
    last_seen: time.nullable(),
  }),
)

export const relations = ['none', 'requested', 'incoming', 'contact', 'blocked'] as const

export const UserFound = named('UserFound', UserPublic.extend({ relation: z.enum(relations) }))

export const Relation = named(
  'Relation',
  z.object({
    user_id: uuid,
    user: UserPublic,
    relation: z
      .enum(relations)
      .describe('What I hold of them; `none` when something has ended. `blocked` covers whatever else there is'),
    request_id: uuid.nullable().describe('Of a request that waits: `requested` by me, or `incoming`'),
    since: time.describe('When this state began; a block hides the state, and does not change it'),
    version: counter.describe('My `user_version` at the last change of this'),
  }),
)

export const ContactRequest = named(
  'ContactRequest',
  z.object({
    id: uuid,
    user: UserPublic.describe('The other one'),
    direction: z.enum(['incoming', 'outgoing']),
    created_at: time,
  }),
)

export const privacyLastSeen = ['everyone', 'contacts', 'nobody'] as const
export const privacyDm = ['everyone', 'contacts'] as const
export const userStatus = ['online', 'away', 'invisible'] as const

export const Me = named(
  'Me',
  UserBrief.extend({
    phone: z.string().nullable(),
    email: z.string().nullable(),
    bio: z.string(),
    status: z.enum(userStatus),
    privacy: z.object({ last_seen: z.enum(privacyLastSeen), dm: z.enum(privacyDm) }),
    is_premium: z.boolean(),
    is_admin: z.boolean().describe('May use `/admin/…`'),
    phone_verified: z.boolean().describe('The phone was shown to be mine by a code, and signs me in by one'),
    has_password: z.boolean().describe('Where there is none, a code sent to the phone stands for it'),
    created_at: time,
    last_seen: time.nullable(),
  }),
)

export const Session = named(
  'Session',
  z.object({
    id: uuid,
    device: z.string(),
    ip: z.string(),
    created_at: time,
    last_used_at: time,
    current: z.boolean(),
  }),
)

export const roles = ['owner', 'admin', 'member', 'subscriber'] as const

export const Member = named(
  'Member',
  z.object({
    user_id: uuid,
    user: UserBrief,
    role: z
      .enum(roles)
      .describe('A channel tells its owner and admins alone: one who is told as `subscriber` is no admin any more'),
    joined_at: time,
    joined_seq: counter.describe("The chat's last `seq` when they joined: older messages do not count for their ticks"),
    version: counter.describe("The chat's version of the last change of membership or role"),
    left_at: time.nullable().describe('Only in `sync`: this member is gone'),
  }),
)

export const Cursor = named('Cursor', z.object({ user_id: uuid, read_seq: counter, delivered_seq: counter, joined_seq: counter }))

export const My = named(
  'My',
  z.object({
    read_seq: counter,
    delivered_seq: counter,
    archived: z.boolean(),
    archived_seq: z
      .int()
      .nullable()
      .describe('Archived when the last message was this one: a newer one takes the chat out again, unless it is muted'),
    pinned: z.boolean(),
    muted_until: time.nullable(),
    cleared_seq: counter.describe('Messages up to this `seq` are gone for me: I deleted the chat for myself'),
  }),
)

export const System = named(
  'System',
  z.object({
    action: z.enum([
      'group_created',
      'member_added',
      'member_removed',
      'member_left',
      'role_changed',
      'owner_changed',
      'renamed',
      'described',
      'avatar_changed',
      'slug_changed',
      'made_public',
      'made_private',
      'channel_created',
      'joined_by_invite',
    ]),
    actor_id: uuid,
    target_id: uuid.optional().describe('Whom it was done to; of `joined_by_invite`, who made the link'),
    name: z.string().optional().describe('The name, or the slug, as it is now'),
    role: z.enum(roles).optional(),
  }),
)

export const messageTypes = ['text', 'image', 'video', 'audio', 'file', 'system', 'call'] as const

export const Reaction = named(
  'Reaction',
  z.object({
    emoji: z.string(),
    count: counter,
    me: z.boolean().optional().describe('Whether I am one of them; not in events, which are the same for everyone'),
  }),
)

export const ReplyTo = named(
  'ReplyTo',
  z.object({
    id: uuid,
    seq: counter,
    sender: UserBrief,
    content: z.string().describe('The first 200 code points'),
    message_type: z.enum(messageTypes),
    deleted: z.boolean(),
  }),
)

/** What is the same for everyone who may see the message: the shape in events. */
export const MessageEvent = named(
  'MessageNeutral',
  z.object({
    id: uuid,
    chat_id: uuid,
    seq: counter,
    version: counter,
    sender_id: uuid,
    sender: UserBrief,
    client_id: uuid,
    message_type: z.enum(messageTypes),
    content: z.string(),
    reply_to: ReplyTo.nullable(),
    forwarded_from: z
      .object({
        chat_id: uuid.optional().describe('The public channel it was posted in'),
        sender: UserBrief.describe('Who wrote it first'),
      })
      .nullable(),
    media: z.array(z.never()),
    mentions: z.array(uuid),
    reactions: z.array(Reaction).describe('In the order of their first use'),
    system: System.nullable(),
    is_edited: z.boolean(),
    edited_at: time.nullable(),
    deleted_at: time.nullable(),
    pinned_at: time.nullable(),
    created_at: time,
  }),
)

export const Message = named(
  'Message',
  MessageEvent.extend({
    status: z
      .enum(['sent', 'delivered', 'read'])
      .describe("The sender's view: delivered or read by every other member who had joined before"),
    delivered_count: counter,
    read_count: counter,
    view_count: counter
      .nullable()
      .describe('In channels, how many subscribers have read past it; never goes back. Null elsewhere'),
  }),
)

export const chatTypes = ['dm', 'group', 'channel'] as const

/** Neutral: the same bytes for every member. */
export const ChatEvent = named(
  'ChatNeutral',
  z.object({
    id: uuid,
    type: z.enum(chatTypes),
    name: z.string().nullable(),
    description: z.string(),
    avatar_url: z.string().nullable(),
    slug: z.string().nullable(),
    owner_id: uuid.nullable(),
    is_public: z.boolean().describe('A public channel is in the directory and may be read before subscribing'),
    member_count: counter.describe(
      'In channels with the subscribers; they come and go untold, so that it is as of the last answer',
    ),
    created_at: time,
  }),
)

export const Chat = named(
  'Chat',
  ChatEvent.extend({
    peer: UserPublic.nullable().describe('The other person of a direct chat; yourself in your saved messages'),
    my_role: z.enum(roles).nullable().describe('Null where I read a public channel that I have not subscribed to'),
    last_seq: counter,
    version: counter,
    last_message: Message.nullable(),
    last_message_at: time.nullable(),
    unread_count: counter.describe('Stops at 1000'),
    mention_count: counter,
    my: My,
  }),
)

export const ChatWithMembers = named(
  'ChatWithMembers',
  Chat.extend({ members: z.array(Member).describe('The first 50; of a channel the owner and admins') }),
)

export const SyncChat = named(
  'SyncChat',
  z.object({
    chat: Chat,
    messages: z.array(Message).describe('Changed messages in the order of their `version`; after `reset` the newest page'),
    members: z.array(Member).describe('Changed members, those who left too; of a channel the owner and admins alone'),
    cursors: z.array(Cursor).describe('None in channels'),
    version: counter.describe('Where this chat stands after applying the entry'),
    has_more: z.boolean(),
    reset: z.boolean().describe('Forget what you have of this chat first; the entry starts anew with the newest page'),
  }),
)

export const SyncAnswer = named(
  'SyncAnswer',
  z.object({
    chats: z.array(SyncChat),
    removed: z.array(uuid),
    relations: z.array(Relation).describe('What changed of contacts, requests and blocks, in the order of `version`'),
    relations_reset: z.boolean().describe('Forget what you have of relations first: they are told anew'),
    me: Me,
    user_version: counter,
    has_more: z.boolean(),
    server_time: time,
  }),
)

export type UserBrief = z.infer<typeof UserBrief>
export type UserPublic = z.infer<typeof UserPublic>
export type Me = z.infer<typeof Me>
export type Member = z.infer<typeof Member>
export type Cursor = z.infer<typeof Cursor>
export type Reaction = z.infer<typeof Reaction>
export type My = z.infer<typeof My>
export type System = z.infer<typeof System>
export type ReplyTo = z.infer<typeof ReplyTo>
export type MessageEvent = z.infer<typeof MessageEvent>
export type Message = z.infer<typeof Message>
export type MessageType = (typeof messageTypes)[number]
export type ChatEvent = z.infer<typeof ChatEvent>
export type Chat = z.infer<typeof Chat>
export type ChatType = (typeof chatTypes)[number]
export type Role = (typeof roles)[number]
export type SyncAnswer = z.infer<typeof SyncAnswer>
export type SyncChat = z.infer<typeof SyncChat>
export type RelationKind = (typeof relations)[number]
export type Relation = z.infer<typeof Relation>
export type ContactRequest = z.infer<typeof ContactRequest>
export type UserStatus = (typeof userStatus)[number]
