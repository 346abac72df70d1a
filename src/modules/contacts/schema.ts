import { z } from 'zod'
import { queryInt, uuid } from '../../protocol/primitives.ts'
import { ContactRequest, UserPublic } from '../../protocol/resources.ts'

export const UserParams = z.strictObject({ user_id: uuid })
export const RequestParams = z.strictObject({ id: uuid })

const limit = queryInt(1, 100).default(50)

/** The place of the last contact of a page: online, name, id. */
const Place = z.tuple([z.boolean(), z.string().max(400), uuid])
export type ContactCursor = z.infer<typeof Place>

const contactCursor = z
  .string()
  .max(4_000)
  .transform((text, context): ContactCursor => {
    try {
      return Place.parse(JSON.parse(Buffer.from(text, 'base64url').toString()))
    } catch {
      context.addIssue('must be the next_cursor of a page')
      return z.NEVER
    }
  })

export const ContactsQuery = z.strictObject({ limit, cursor: contactCursor.optional() })
export const RequestsQuery = z.strictObject({
  direction: z.enum(['incoming', 'outgoing']).default('incoming'),
  limit,
  cursor: uuid.optional(),
})
export const BlocksQuery = z.strictObject({ limit, cursor: uuid.optional() })

export const NewRequest = z.strictObject({ user_id: uuid }).meta({ id: 'NewContactRequest' })

export const ContactList = z.object({ contacts: z.array(UserPublic), has_more: z.boolean(), next_cursor: z.string().nullable() })
export const RequestList = z.object({ requests: z.array(ContactRequest), has_more: z.boolean(), next_cursor: uuid.nullable() })
export const BlockList = z.object({ blocks: z.array(UserPublic), has_more: z.boolean(), next_cursor: uuid.nullable() })
export const RequestAnswer = ContactRequest.extend({
  relation: z.enum(['requested', 'contact']).describe('`contact` where the other one had asked already'),
}).meta({ id: 'ContactRequestAnswer' })
