import { z } from 'zod'
import { SendFields } from '../../protocol/commands.ts'
import { content, counter, emoji, queryInt, time, uuid } from '../../protocol/primitives.ts'
import { Message, Reaction, UserBrief } from '../../protocol/resources.ts'

export const MessageParams = z.strictObject({ id: uuid })
export const SendBody = z.strictObject(SendFields)

const seq = queryInt(0, Number.MAX_SAFE_INTEGER)

export const PageQuery = z
  .strictObject({
    limit: queryInt(1, 100).default(50),
    before: seq.optional().describe('Older than this `seq`'),
    after: seq.optional().describe('Newer than this `seq`'),
    around: seq.optional().describe('This `seq` and what is around it'),
    offset: queryInt(0, Number.MAX_SAFE_INTEGER).default(0).describe('Counts back from the newest'),
  })
  .refine((q) => [q.before, q.after, q.around].filter((v) => v !== undefined).length <= 1, {
    error: 'only one of before, after and around',
    path: ['before'],
  })

export const MessagePage = z.object({
  messages: z.array(Message).describe('Oldest first'),
  total: counter.describe('All messages, deleted and system ones too'),
  limit: counter,
  offset: counter,
  has_more: z.boolean(),
  version: counter.describe('The chat’s version when this was read; where it is below yours, `sync` from it'),
})

export const Status = z.strictObject({ message_id: uuid, status: z.enum(['delivered', 'read'], 'must be delivered or read') })
export const StatusAnswer = z.object({ message: z.string(), read_seq: counter, delivered_seq: counter })

export const Edit = z.strictObject({ content })
export const EditList = z.object({
  edits: z
    .array(z.object({ content: z.string(), edited_at: time.describe('When this text was written') }))
    .describe('Earlier texts, oldest first; the last 100'),
})

export const ReceiptsQuery = z.strictObject({ limit: queryInt(1, 100).default(50), cursor: uuid.optional() })
export const ReceiptList = z.object({
  receipts: z.array(
    z.object({
      user: UserBrief,
      delivered_at: time.nullable(),
      read_at: time.nullable().describe('Never too early; of what was read long ago, when something newer was read'),
    }),
  ),
  has_more: z.boolean(),
  next_cursor: uuid.nullable(),
})

export const Forward = z.strictObject({
  // Each counts as a message: no more than may be sent in a second, or the limit would refuse it for ever.
  chat_ids: z.array(uuid).min(1, 'must name a chat').max(10, 'must name at most 10 chats'),
  client_id: uuid.optional().describe('Made by the client: the same again sends nothing twice, in none of the chats'),
})
export const Forwarded = z.object({ messages: z.array(Message).describe('In the order of `chat_ids`') })

export const React = z.strictObject({ emoji })
export const ReactionParams = z.strictObject({ id: uuid, emoji })
export const ReactionList = z.object({ reactions: z.array(Reaction) })

export const PinParams = z.strictObject({ id: uuid, message_id: uuid })
export const PinList = z.object({ messages: z.array(Message).describe('The one pinned last comes first') })
export { Message }
