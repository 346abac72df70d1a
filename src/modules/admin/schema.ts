import { z } from 'zod'
import { counter, queryInt, text, time, uuid } from '../../protocol/primitives.ts'
import { inviteDefaults } from '../auth/index.ts'

export const ServerInvite = z
  .object({
    code: z.string(),
    url: z.string().describe('A link to give to somebody'),
    created_by: uuid.nullable().describe('`null`: the operator, by command'),
    created_at: time,
    expires_at: time,
    max_uses: counter,
    uses: counter,
    revoked_at: time.nullable(),
  })
  .meta({ id: 'ServerInvite' })

export const ServerInvites = z
  .object({ invites: z.array(ServerInvite), has_more: z.boolean(), next_cursor: z.string().nullable() })
  .meta({ id: 'ServerInvites' })

const day = 86_400

export const NewServerInvite = z
  .strictObject({
    max_uses: z.number().int('must be a whole number').min(1).max(100_000).default(inviteDefaults.max_uses),
    expires_in: z
      .number()
      .int('must be a whole number')
      .min(60)
      .max(366 * day)
      .default(inviteDefaults.expires_in)
      .describe('Seconds; a week unless told'),
  })
  .meta({ id: 'NewServerInvite' })

const code = text(1, 100)

export const InvitePath = z.strictObject({ code })
export const InvitesQuery = z.strictObject({
  limit: queryInt(1, 100).default(50),
  cursor: code.optional().describe('`next_cursor` of the page before'),
})
export const UserPath = z.strictObject({ id: uuid })

export const Stats = z
  .object({
    users: counter,
    disabled_users: counter,
    admins: counter,
    sessions: counter.describe('Devices that are signed in'),
    chats: counter,
    messages: counter.describe('All that were ever sent, deleted and system ones too'),
    invites: counter.describe('Invitations that still let somebody in'),
    database_bytes: counter,
  })
  .meta({ id: 'ServerStats' })
