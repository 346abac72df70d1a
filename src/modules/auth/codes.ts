import { createHmac, randomInt, timingSafeEqual } from 'node:crypto'
import { type Queryable, sql } from '../../platform/db/db.ts'
import { newId } from '../../platform/ids.ts'
import { addressKey } from '../../platform/limits/take.ts'
import type { CheckedCode } from '../users/index.ts'
import { countHit } from './counts.ts'
import type { AuthDeps, Client } from './deps.ts'

/**
 * Codes sent to phones. Each is good for one use, five minutes and five tries, and a new one replaces the old: all of it
 * decided by rows of PostgreSQL, so that it holds across instances and an outage of Redis gives nobody more guesses.
 *
 * Stored is HMAC-SHA256 under a key derived from the server's secret, which is not in the database. No hash without such a
 * key would do: a million codes are tried in no time, and however slow it was, five minutes of a rented machine would be
 * near. With it a copy of the database says nothing about a code; and who has the secret as well signs tokens by himself.
 */

const ttlMs = 5 * 60_000
const maxTries = 5

function hashOf(key: Buffer, { phone, id }: CheckedCode, code: string): Buffer {
  return createHmac('sha256', key).update(`${id} ${phone} ${code}`).digest()
}

/**
 * Sends a new code to the phone; the same for every number, whether an account has it or not. Rejects with `rate_limited`,
 * and with `unavailable` when it could not be sent: there is no code then.
 */
export async function requestCode(deps: AuthDeps, phone: string, { ip }: Client): Promise<{ expires_in: number }> {
  const { otp, otpAddress } = deps.config.limits
  await countHit(deps.db, `otp-address:${addressKey(ip)}`, otpAddress)
  await countHit(deps.db, `otp-phone:${phone}`, otp)
  const code = String(randomInt(1_000_000)).padStart(6, '0')
  const made = { phone, id: newId() }
  const hash = hashOf(deps.keys.codeKey, made, code)
  await deps.db.query(sql`
    INSERT INTO phone_codes (phone, id, hash, expires_at) VALUES (${phone}, ${made.id}, ${hash}, now() + ${ttlMs} * interval '1 ms')
    ON CONFLICT (phone) DO UPDATE SET id = excluded.id, hash = excluded.hash, tries = 0, expires_at = excluded.expires_at`)
  const expires_in = ttlMs / 1_000
  try {
    await deps.sender.send({ phone, code, expires_in })
  } catch (error) {
    await useCode(deps.db, made)
    throw error
  }
  return { expires_in }
}

/**
 * Whether it is the phone's code. Every call counts as a try before it is looked at, so that guesses that come at once do
 * not pass together; a right one stays good until it is used.
 */
export async function checkCode(
  deps: Pick<AuthDeps, 'db' | 'keys'>,
  phone: string,
  code: string,
): Promise<CheckedCode | undefined> {
  const [row] = await deps.db.query<{ id: string; hash: Buffer }>(sql`
    UPDATE phone_codes SET tries = tries + 1 WHERE phone = ${phone} AND tries < ${maxTries} AND expires_at > now() RETURNING id, hash`)
  if (!row) return undefined
  const checked = { phone, id: row.id }
  return timingSafeEqual(row.hash, hashOf(deps.keys.codeKey, checked, code)) ? checked : undefined
}

/** Of several who checked the same code one gets true, and the others wait for its commit. False too when a new one has replaced it. */
export async function useCode(tx: Queryable, { phone, id }: CheckedCode): Promise<boolean> {
  return (await tx.query(sql`DELETE FROM phone_codes WHERE phone = ${phone} AND id = ${id} RETURNING id`)).length > 0
}

/** By `phone_codes_expiry`. */
export async function sweepCodes(db: Queryable): Promise<void> {
  await db.query(sql`DELETE FROM phone_codes WHERE expires_at < now()`)
}
