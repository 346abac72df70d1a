import type { Control } from '../../platform/control.ts'
import type { Db } from '../../platform/db/db.ts'
import type { LimitRule, Limits } from '../../platform/limits/limits.ts'
import type { Metrics } from '../../platform/metrics.ts'
import type { Passwords } from '../../platform/passwords.ts'
import type { Keys } from './keys.ts'
import { createTurns, type Turns } from './turns.ts'

export interface AuthOptions {
  db: Db
  control: Control
  limits: Limits
  passwords: Passwords
  keys: Keys
  metrics: Pick<Metrics, 'loginsRefused'>
  config: {
    accessTokenTtlMs: number
    refreshTokenTtlMs: number
    registration: 'open' | 'closed'
    limits: { login: LimitRule; loginAccount: LimitRule; register: LimitRule }
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
