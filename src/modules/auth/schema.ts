import { z } from 'zod'
import { anyPassword, email, newPassword, phone, phoneCode, text, time, username, uuid } from '../../protocol/primitives.ts'
import { Me, Session } from '../../protocol/resources.ts'
import { displayName } from '../users/index.ts'

const inviteCode = text(1, 100).optional().describe('Needed where registration is by invitation')

export const Registration = z
  .strictObject({
    username: username.optional(),
    phone: phone.optional(),
    email: email.optional(),
    password: newPassword,
    display_name: displayName.optional(),
    invite_code: inviteCode,
  })
  .refine(({ username, phone, email }) => username !== undefined || phone !== undefined || email !== undefined, {
    error: 'one of username, phone and email is required',
    path: ['username'],
  })
  .meta({ id: 'Registration' })

const login = text(1, 254)
const logins = ['login', 'username', 'phone', 'email', 'phone_or_email'] as const

export const Login = z
  .strictObject({
    login: login.optional().describe('A username, phone number or email address'),
    username: login.optional(),
    phone: login.optional(),
    email: login.optional(),
    phone_or_email: login.optional(),
    password: anyPassword,
  })
  .refine((given) => logins.filter((name) => given[name] !== undefined).length === 1, {
    error: `exactly one of ${logins.join(', ')} is required`,
    path: ['login'],
  })
  .transform((given) => ({
    login: logins
      .map((name) => given[name])
      .find((value) => value !== undefined)!
      .trim(),
    password: given.password,
  }))
  .meta({ id: 'Login' })

export const CodeRequest = z.strictObject({ phone }).meta({ id: 'CodeRequest' })

export const PhoneVerification = z
  .strictObject({
    phone,
    code: phoneCode,
    display_name: displayName.optional().describe('Of an account that is made'),
    invite_code: inviteCode,
  })
  .meta({ id: 'PhoneVerification' })

export const MyPhone = z.strictObject({ phone, code: phoneCode }).meta({ id: 'MyPhone' })

export const Refresh = z.strictObject({ refresh_token: z.string().min(1).max(200) }).meta({ id: 'Refresh' })

export const SessionPath = z.strictObject({ id: uuid })

const tokens = {
  token: z.string().describe('The access token, for `Authorization: Bearer`'),
  refresh_token: z.string().describe('Good for one refresh; may be repeated until the access token it gave is first used'),
  expires_in: z.number().int().describe('Seconds until the access token ends'),
}

export const Tokens = z.object(tokens).meta({ id: 'Tokens' })
export const CodeSent = z
  .object({ message: z.string(), expires_in: z.number().int().describe('Seconds until the code expires') })
  .meta({ id: 'CodeSent' })
export const SignedIn = z.object({ user_id: uuid, ...tokens, user: Me }).meta({ id: 'SignedIn' })
export const Verified = z.object({ valid: z.literal(true), user: Me, expires_at: time }).meta({ id: 'Verified' })
export const Sessions = z.object({ sessions: z.array(Session) }).meta({ id: 'Sessions' })

export type Registration = z.infer<typeof Registration>
export type Login = z.infer<typeof Login>
export type PhoneVerification = z.infer<typeof PhoneVerification>
export type Tokens = z.infer<typeof Tokens>
export type SignedIn = z.infer<typeof SignedIn>
