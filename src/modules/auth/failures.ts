import { createHash } from 'node:crypto'
import { type Queryable, sql } from '../../platform/db/db.ts'
import { AppError } from '../../platform/errors.ts'
import type { LimitRule } from '../../platform/limits/limits.ts'
import { seconds } from '../../platform/limits/take.ts'

/**
 * Failed logins, counted in PostgreSQL, where an outage of Redis does not reset them. An attempt counts before the password
 * is looked at, so that a hundred guesses at once do not pass together; a success takes its count back.
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
  await countOne(db, attempt.pair, rules.pair)
  await countOne(db, attempt.account, rules.account)
}

async function countOne(db: Queryable, key: string, rule: LimitRule): Promise<void> {
  if (rule === null) return
  // The window opens with the first attempt and is not prolonged. Times are the database's own.
  const [row] = await db.query<{ points: number; wait: number }>(sql`
    WITH clock AS (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS at)
    INSERT INTO login_failures AS f (key, points, expire)
    SELECT ${key}, 1, at + ${rule.windowMs}::bigint FROM clock
    ON CONFLICT (key) DO UPDATE SET
      points = CASE WHEN f.expire > (SELECT at FROM clock) THEN f.points + 1 ELSE 1 END,
      expire = CASE WHEN f.expire > (SELECT at FROM clock) THEN f.expire ELSE excluded.expire END
    RETURNING points, expire - (SELECT at FROM clock) AS wait`)
  if (row!.points > rule.points) throw new AppError('rate_limited', { retryAfter: seconds(row!.wait) })
}

export async function forgetAttempts(db: Queryable, { pair, account }: Attempt): Promise<void> {
  await db.query(sql`DELETE FROM login_failures WHERE key = ANY(${[account, pair]}::text[])`)
}

/** By `login_failures_expire`. */
export async function sweepFailures(db: Queryable): Promise<void> {
  await db.query(sql`DELETE FROM login_failures WHERE expire < (extract(epoch FROM now()) * 1000)::bigint`)
}
