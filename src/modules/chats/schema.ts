import { z } from 'zod'
import { counter, label, queryInt, text, time, uuid } from '../../protocol/primitives.ts'
import { Chat, ChatWithMembers, Member } from '../../protocol/resources.ts'

export const ChatParams = z.strictObject({ id: uuid })
export const MemberParams = z.strictObject({ id: uuid, user_id: uuid })

export const ListQuery = z.strictObject({
  archived: z
    .enum(['true', 'false'])
    .default('false')
    .transform((value) => value === 'true'),
  limit: queryInt(1, 500).default(500),
  cursor: uuid.optional(),
})

export const MembersQuery = z.strictObject({ limit: queryInt(1, 100).default(50), cursor: uuid.optional() })

const name = label(100)
const description = text(0, 1_000)

export const CreateChat = z.discriminatedUnion('type', [
  z.strictObject({
    type: z.literal('group'),
    name,
    description: description.default(''),
    member_ids: z.array(uuid).max(10_000).default([]),
  }),
  z.strictObject({ type: z.literal('dm'), member_ids: z.array(uuid).length(1, 'must name one person') }),
])

/** In any case: it is kept in lower case. */
export const slug = z
  .string()
  .regex(/^[A-Za-z0-9_-]{3,50}$/, 'must be 3 to 50 letters, digits, _ or -')
  .toLowerCase()
  .refine((value) => !uuid.safeParse(value).success, 'must not look like an id')
  .meta({ minLength: 3, maxLength: 50, examples: ['city-news'] })

export const EditChat = z.strictObject({
  name: name.optional(),
  description: description.optional(),
  slug: slug.nullable().optional().describe('For links; null removes it'),
  is_public: z.boolean().optional().describe('Of a channel (owner)'),
})

export const CreateChannel = z.strictObject({
  name,
  description: description.default(''),
  slug: slug.nullable().optional(),
  is_public: z.boolean().default(true),
})
export const SlugParams = z.strictObject({ slug })
export const DirectoryQuery = z.strictObject({
  q: text(0, 100).default('').describe('A part of name, slug or description, in any case'),
  limit: queryInt(1, 100).default(50),
  cursor: z
    .string()
    .regex(/^\d{1,9}\.[0-9a-f-]{36}$/, 'must be a `next_cursor` from before')
    .refine((value) => uuid.safeParse(value.split('.')[1]).success, 'must be a `next_cursor` from before')
    .transform((value) => ({ member_count: Number(value.split('.')[0]), id: value.split('.')[1]! }))
    .optional(),
})
export const ChannelList = z.object({
  channels: z.array(Chat).describe('The biggest first'),
  has_more: z.boolean(),
  next_cursor: z.string().nullable(),
})

export const CreateInvite = z.strictObject({
  max_uses: z.number().int('must be a whole number').min(1).max(1_000_000).optional().describe('Without it, any number'),
  expires_in: z
    .number()
    .int('must be a whole number')
    .min(1)
    .max(31_536_000)
    .optional()
    .describe('Seconds, a year at most; without it, until it is revoked'),
})
const code = z.string().regex(/^[A-Za-z0-9_-]{22}$/, 'must be the code of a link')
export const InviteParams = z.strictObject({ code })
export const ChatInviteParams = z.strictObject({ id: uuid, code })
export const InvitesQuery = z.strictObject({ limit: queryInt(1, 100).default(50), cursor: code.optional() })
export const Invite = z
  .object({
    code: z.string(),
    url: z.string(),
    created_by: uuid,
    created_at: time,
    expires_at: time.nullable(),
    max_uses: counter.nullable(),
    uses: counter,
  })
  .meta({ id: 'Invite' })
export const InviteList = z.object({
  invites: z.array(Invite).describe('Those that still work, the newest first'),
  has_more: z.boolean(),
  next_cursor: z.string().nullable(),
})
export const InvitePreview = z
  .object({
    code: z.string(),
    type: z.enum(['group', 'channel']),
    name: z.string().nullable(),
    description: z.string(),
    avatar_url: z.string().nullable().describe('Of a public channel, and where I am in already; others may not see it'),
    member_count: counter,
    chat_id: uuid.nullable().describe('Where I am in already'),
  })
  .meta({ id: 'InvitePreview' })
export const AddMembers = z.strictObject({
  user_ids: z.array(uuid).min(1, 'must name somebody').max(1_000, 'must name at most 1000 people'),
})
export const ChangeRole = z.strictObject({
  role: z
    .enum(['admin', 'member', 'subscriber'], 'must be admin or member')
    .describe('Of a channel, `member` and `subscriber` are the same'),
})
export const Transfer = z.strictObject({ user_id: uuid })
export const Settings = z.strictObject({
  archived: z.boolean().optional(),
  pinned: z.boolean().optional(),
  muted_until: z.iso
    .datetime({ offset: true, error: 'must be a time such as 2026-01-15T10:05:00.000Z, or null' })
    .refine(
      (value) => Number.isFinite(Date.parse(value)) && Date.parse(value) < 253_402_300_800_000,
      'must be a time before the year 10000',
    )
    // As UTC: PostgreSQL takes no offset beyond 16 hours and no year 0. What is over is over, however long.
    .transform((value) => new Date(Math.max(0, Date.parse(value))).toISOString())
    .nullable()
    .optional(),
})
export const Read = z.strictObject({ seq: counter.optional() })

export const ChatList = z.object({ chats: z.array(Chat), count: counter, has_more: z.boolean(), next_cursor: uuid.nullable() })
export const MemberList = z.object({ members: z.array(Member), has_more: z.boolean(), next_cursor: uuid.nullable() })
export const ReadAnswer = z.object({
  message: z.string(),
  unread_count: counter,
  read_seq: counter,
  last_read_at: time.optional(),
})
export { Chat, ChatWithMembers }
