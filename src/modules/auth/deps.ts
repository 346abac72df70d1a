import type { Control } from '../../platform/control.ts'
import type { Db } from '../../platform/db/db.ts'
import type { LimitRule, Limits } from '../../platform/limits/limits.ts'
import type { Metrics } from '../../platform/metrics.ts'
import type { Passwords } from '../../platform/passwords.ts'
import type { Me } from '../../protocol/resources.ts'
import type { Keys } from './keys.ts'
import type { CodeSender } from './otp-sender.ts'
import { createTurns, type Turns } from './turns.ts'

export interface AuthOptions {
  db: Db
  control: Control
  limits: Limits
  passwords: Passwords
  keys: Keys
  metrics: Pick<Metrics, 'loginsRefused'>
  /** Takes codes to phones. */
  sender: CodeSender
  /** Tells the user's own devices of their profile, after the commit; `version` is that of their clock. */
  tellMe(userId: string, version: number, me: Me): void
  config: {
    accessTokenTtlMs: number
    refreshTokenTtlMs: number
    registration: 'open' | 'invite' | 'closed'
    limits: {
      login: LimitRule
      loginAccount: LimitRule
      register: LimitRule
      /** Codes per phone, and per address. */
      otp: LimitRule
      otpAddress: LimitRule
    }
  }
}

export interface AuthDeps extends AuthOptions {
  /** Logins of one account from one address come one after another: see `login`. */
  turns: Turns
}

export const createAuth = (options: AuthOptions): AuthDeps => ({ ...options, turns: createTurns() })

/** From where somebody signs in, as they see it later in their list of devices. */
export interface Client {
  ip: string
  device: string
}
