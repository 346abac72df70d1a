import { createHash } from 'node:crypto'
import type { Queryable } from '../../platform/db/db.ts'
import type { LimitRule } from '../../platform/limits/limits.ts'
import { countHit, forgetHits, takeBackHits } from './counts.ts'

/**
 * Failed logins. An attempt counts before the password is looked at, so that a hundred guesses at once do not pass
 * together; a success takes its count back.
 */

export interface LoginRules {
  /** Per account and address. */
  pair: LimitRule
  /** Per account. */
  account: LimitRule
}

/** Unknown accounts are counted like known ones: by what was typed. */
export interface Attempt {
  pair: string
  account: string
}

export function attemptOf(login: string, address: string): Attempt {
  const account = createHash('sha256').update(login.toLowerCase()).digest('base64url')
  return { account: `account:${account}`, pair: `pair:${account}:${address}` }
}

/** Rejects with `rate_limited` and the seconds to wait. A refused attempt does not count for the whole account. */
export async function countAttempt(db: Queryable, attempt: Attempt, rules: LoginRules): Promise<void> {
  await countHit(db, attempt.pair, rules.pair)
  await countHit(db, attempt.account, rules.account)
}

export const forgetAttempts = (db: Queryable, { pair, account }: Attempt): Promise<void> => forgetHits(db, [account, pair])

/** Of an attempt that was counted and never judged. */
export const takeBackAttempt = (db: Queryable, { pair, account }: Attempt): Promise<void> => takeBackHits(db, [account, pair])
