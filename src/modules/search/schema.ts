import { z } from 'zod'
import { label, queryInt, uuid } from '../../protocol/primitives.ts'
import { Chat, chatTypes, Message, UserBrief, UserFound } from '../../protocol/resources.ts'

const q = label(200).describe(
  'Words in any order, each found as the beginning of one, in any case, accents or none; a single letter stands for itself. The first ten count. Without a letter, a digit or an emoji nothing is found',
)

const moment = /^(\d{1,15}|\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d))?)$/

export const isSeq = (before: string) => /^\d+$/.test(before)

export const MessageSearch = z
  .strictObject({
    q,
    chat_id: uuid.optional().describe('In this chat alone'),
    from: uuid.optional().describe('Sent by this person'),
    before: z
      .string()
      .regex(moment, 'must be a time such as 2026-01-15T10:05:00.000Z, a day such as 2026-01-15, or, with chat_id, a seq')
      .refine((value) => isSeq(value) || Number.isFinite(Date.parse(value)), 'must be a time that there is')
      .optional()
      .describe('Older than this: a time, a day (its beginning in UTC), or, with `chat_id`, a `seq`'),
    limit: queryInt(1, 100).default(50),
    cursor: z
      .string()
      .regex(/^[bw]\d{1,16}\.\d{1,4}\.\d{1,3}$/, 'must be the next_cursor of an answer')
      .optional()
      .describe('The `next_cursor` of the page before'),
  })
  .refine(({ before, chat_id }) => before === undefined || !isSeq(before) || chat_id !== undefined, {
    error: 'a seq needs a chat_id beside it',
    path: ['before'],
  })

export type MessageSearch = z.infer<typeof MessageSearch>

export const SearchQuery = z.strictObject({ q })

export const SearchHit = z
  .object({
    message: Message,
    chat: z
      .object({
        id: uuid,
        type: z.enum(chatTypes),
        name: z.string().nullable().describe('Of a direct chat, the other’s username'),
        avatar_url: z.string().nullable(),
        peer: UserBrief.nullable(),
      })
      .describe('Where it was sent'),
    highlight: z
      .string()
      .describe(
        'HTML: hits within `<mark>`, all else escaped; of a long text what is around the first hit, with … where it was cut',
      ),
  })
  .meta({ id: 'SearchHit' })

export type SearchHit = z.infer<typeof SearchHit>

export const FoundMessages = z
  .object({
    results: z.array(SearchHit).describe('The best first'),
    has_more: z.boolean(),
    next_cursor: z.string().nullable(),
  })
  .meta({ id: 'FoundMessages' })

export const FoundAll = z
  .object({ users: z.array(UserFound), chats: z.array(Chat), messages: z.array(SearchHit) })
  .meta({ id: 'FoundAll' })
