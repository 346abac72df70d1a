import { type Queryable, sql } from '../../platform/db/db.ts'
import { AppError } from '../../platform/errors.ts'
import type { LimitRule } from '../../platform/limits/limits.ts'
import { seconds } from '../../platform/limits/take.ts'

/** Counts against guessing, in PostgreSQL (`login_failures`), where an outage of Redis does not reset them. */

/** Counts one hit on `key`; rejects with `rate_limited` and the seconds to wait once they are more than the rule's. */
export async function countHit(db: Queryable, key: string, rule: LimitRule): Promise<void> {
  if (rule === null) return
  // The window opens with the first hit and is not prolonged. Times are the database's own.
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

export async function forgetHits(db: Queryable, keys: readonly string[]): Promise<void> {
  await db.query(sql`DELETE FROM login_failures WHERE key = ANY(${keys}::text[])`)
}

/** Takes one hit back of each. */
export async function takeBackHits(db: Queryable, keys: readonly string[]): Promise<void> {
  await db.query(sql`UPDATE login_failures SET points = points - 1 WHERE key = ANY(${keys}::text[]) AND points > 0`)
}

/** By `login_failures_expire`. */
export async function sweepHits(db: Queryable): Promise<void> {
  await db.query(sql`DELETE FROM login_failures WHERE expire < (extract(epoch FROM now()) * 1000)::bigint`)
}
