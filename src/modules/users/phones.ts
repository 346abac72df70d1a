import { type Queryable, sql } from '../../platform/db/db.ts'
import { AppError } from '../../platform/errors.ts'
import type { Me } from '../../protocol/resources.ts'
import { asTaken } from './service.ts'
import { meColumns, tickClock } from './store.ts'

/**
 * Whose a phone is. Anybody may type a number when they register: it is theirs until somebody shows that it is their own,
 * by a code sent to it. What was shown is not taken away again.
 */

/** A profile that changed in a transaction, to be told to its user after the commit. */
export interface ChangedMe {
  version: number
  me: Me
}

export interface PhoneHolder {
  id: string
  verified: boolean
  disabled: boolean
}

/** By `users_phone`. */
export async function phoneHolder(db: Queryable, phone: string): Promise<PhoneHolder | undefined> {
  const [row] = await db.query<PhoneHolder>(sql`
    SELECT id, phone_verified_at IS NOT NULL AS verified, disabled_at IS NOT NULL AS disabled
    FROM users WHERE phone = ${phone} AND deleted_at IS NULL`)
  return row
}

/**
 * Takes the phone from the account that holds it unverified, if one does. Rejects with `phone_taken` where it is verified,
 * and where it changed hands in this very moment: trying again helps then.
 */
export async function releasePhone(tx: Queryable, phone: string): Promise<ChangedMe[]> {
  const holder = await phoneHolder(tx, phone)
  if (!holder) return []
  if (holder.verified) throw new AppError('phone_taken')
  return [await losePhone(tx, holder.id, phone, await tickClock(tx, holder.id))]
}

/** Makes the phone this user's, verified; whoever held it unverified loses it. Their own profile is the last one. Rejects as `releasePhone`. */
export async function claimPhone(tx: Queryable, userId: string, phone: string): Promise<ChangedMe[]> {
  const holder = await phoneHolder(tx, phone)
  const other = holder && holder.id !== userId ? holder.id : undefined
  if (other !== undefined && holder!.verified) throw new AppError('phone_taken')
  // Clocks before rows of users, by their keys: as everywhere.
  const versions = new Map<string, number>()
  for (const id of other === undefined ? [userId] : [userId, other].sort()) versions.set(id, await tickClock(tx, id))
  const changed = other === undefined ? [] : [await losePhone(tx, other, phone, versions.get(other)!)]
  const [me] = await tx
    .query<Me>(sql`
      UPDATE users u SET phone = ${phone}, phone_verified_at = now() WHERE id = ${userId} AND deleted_at IS NULL RETURNING ${meColumns}`)
    .catch((error: unknown) => {
      throw asTaken(error)
    })
  if (!me) throw new AppError('user_not_found')
  return [...changed, { version: versions.get(userId)!, me }]
}

async function losePhone(tx: Queryable, id: string, phone: string, version: number): Promise<ChangedMe> {
  const [me] = await tx.query<Me>(sql`
    UPDATE users u SET phone = NULL WHERE id = ${id} AND phone = ${phone} AND phone_verified_at IS NULL RETURNING ${meColumns}`)
  if (!me) throw new AppError('phone_taken')
  return { version, me }
}
