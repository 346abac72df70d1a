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

export const EditChat = z.strictObject({ name: name.optional(), description: description.optional() })
export const AddMembers = z.strictObject({
  user_ids: z.array(uuid).min(1, 'must name somebody').max(1_000, 'must name at most 1000 people'),
})
export const ChangeRole = z.strictObject({ role: z.enum(['admin', 'member'], 'must be admin or member') })
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
