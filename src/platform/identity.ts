import type { UserBrief } from '../protocol/resources.ts'

/** Who is asking: a user, signed in by a session that was alive when this was made. */
export interface Identity {
  user_id: string
  session_id: string
  is_premium: boolean
  /** As shown to others; at most as old as the session cache, which profile changes invalidate. */
  user: UserBrief
  /** Unix seconds at which the access token ends. */
  expires_at: number
}

/** Checks an access token and its session. Rejects with `invalid_token`, `token_expired` or `session_ended`. */
export type Authenticate = (token: string) => Promise<Identity>
