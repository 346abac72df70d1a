import { z } from 'zod'
import { anyPassword, label, newPassword, phoneCode, text, username, uuid } from '../../protocol/primitives.ts'
import { privacyDm, privacyLastSeen, UserFound, userStatus } from '../../protocol/resources.ts'

export const displayName = label(100)

export const MePatch = z
  .strictObject({
    username: username.optional(),
    display_name: displayName.optional(),
    bio: text(0, 500).optional(),
    status: z.enum(userStatus).optional().describe('`invisible` looks offline to everybody else'),
    privacy: z
      .strictObject({
        last_seen: z.enum(privacyLastSeen).optional().describe('Who sees when I was here last'),
        dm: z.enum(privacyDm).optional().describe('Who may start a direct chat with me'),
      })
      .optional(),
  })
  .meta({ id: 'MePatch' })

const proofCode = phoneCode.optional().describe('Sent to my verified phone, where the account has no password')

export const PasswordChange = z
  .strictObject({ old_password: anyPassword.optional(), code: proofCode, new_password: newPassword })
  .refine(({ old_password, code }) => (old_password === undefined) !== (code === undefined), {
    error: 'exactly one of old_password and code is required',
    path: ['old_password'],
  })
  .meta({ id: 'PasswordChange' })

export const AccountDeletion = z
  .strictObject({ password: anyPassword.optional(), code: proofCode })
  .refine(({ password, code }) => (password === undefined) !== (code === undefined), {
    error: 'exactly one of password and code is required',
    path: ['password'],
  })
  .meta({ id: 'AccountDeletion' })

export const UserPath = z.strictObject({ id: uuid })

export const SearchQuery = z.strictObject({
  q: label(50).describe('Part of a username or display name, in any case; one or two characters find what begins with them'),
})

export const FoundUsers = z.object({ users: z.array(UserFound) }).meta({ id: 'FoundUsers' })

/** What somebody shows to prove that it is them; exactly one of the two. */
export interface Proof {
  password?: string | undefined
  code?: string | undefined
}
export type MePatch = z.infer<typeof MePatch>
export type FoundUser = z.infer<typeof UserFound>
