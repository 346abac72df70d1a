import { z } from 'zod'
import { anyPassword, label, newPassword, text, username, uuid } from '../../protocol/primitives.ts'
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

export const PasswordChange = z
  .strictObject({ old_password: anyPassword, new_password: newPassword })
  .meta({ id: 'PasswordChange' })

export const AccountDeletion = z.strictObject({ password: anyPassword }).meta({ id: 'AccountDeletion' })

export const UserPath = z.strictObject({ id: uuid })

export const SearchQuery = z.strictObject({
  q: label(50).describe('Part of a username or display name, in any case; one or two characters find what begins with them'),
})

export const FoundUsers = z.object({ users: z.array(UserFound) }).meta({ id: 'FoundUsers' })

export type MePatch = z.infer<typeof MePatch>
export type FoundUser = z.infer<typeof UserFound>
