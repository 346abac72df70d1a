import { z } from 'zod'
import { SendFields } from '../../protocol/commands.ts'
import { counter, queryInt, uuid } from '../../protocol/primitives.ts'
import { Message } from '../../protocol/resources.ts'

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
export { Message }
