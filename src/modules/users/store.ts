import { type Queryable, type Sql, sql } from '../../platform/db/db.ts'
import { escapeLike } from '../../platform/db/like.ts'
import type { Me, UserBrief, UserPublic } from '../../protocol/resources.ts'
import type { MePatch } from './schema.ts'

const briefColumns = sql`u.id, u.username, u.display_name, u.avatar->>'url' AS avatar_url`

export const meColumns = sql`${briefColumns}, u.phone, u.email, u.bio, u.status, u.is_premium, u.is_admin, u.created_at, u.last_seen,
  u.phone_verified_at IS NOT NULL AS phone_verified, u.password_hash IS NOT NULL AS has_password,
  jsonb_build_object('last_seen', u.privacy_last_seen, 'dm', u.privacy_dm) AS privacy`

const profileColumns = sql`${briefColumns}, u.bio, u.is_premium, u.last_seen, u.status, u.privacy_last_seen, u.deleted_at`

/** What is shown of somebody, before it is decided to whom. */
export type ProfileRow = Omit<UserPublic, 'is_online'> & {
  status: Me['status']
  privacy_last_seen: Me['privacy']['last_seen']
  deleted_at: string | null
}

export interface NewUser {
  id: string
  username?: string | undefined
  phone?: string | undefined
  /** A code was sent to it, and came back. */
  phone_verified?: boolean | undefined
  email?: string | undefined
  display_name: string
  password_hash?: string | undefined
}

/** Fails on the unique indexes `users_username`, `users_phone` and `users_email`. */
export async function insertUser(tx: Queryable, user: NewUser): Promise<Me> {
  const [row] = await tx.query<Me>(sql`
    WITH clock AS (INSERT INTO user_clock (user_id) VALUES (${user.id}))
    INSERT INTO users AS u (id, username, phone, phone_verified_at, email, display_name, password_hash)
    VALUES (${user.id}, ${user.username ?? null}, ${user.phone ?? null}, CASE WHEN ${user.phone_verified ?? false} THEN now() END,
      ${user.email ?? null}, ${user.display_name}, ${user.password_hash ?? null})
    RETURNING ${meColumns}`)
  return row!
}

/** By `users_pkey`; nothing of a deleted account. */
export async function selectMe(db: Queryable, id: string): Promise<Me | undefined> {
  const [row] = await db.query<Me>(sql`SELECT ${meColumns} FROM users u WHERE u.id = ${id} AND u.deleted_at IS NULL`)
  return row
}

/** The user's clock goes up by one; the row stays locked, so that changes of one user come one after another. */
export async function tickClock(tx: Queryable, id: string): Promise<number> {
  const [row] = await tx.query<{ version: number }>(
    sql`UPDATE user_clock SET version = version + 1 WHERE user_id = ${id} RETURNING version`,
  )
  return row!.version
}

/** Holds these users' clocks until the transaction ends, taken in the order of their ids: what is between people is changed under both. */
export async function lockClocks(tx: Queryable, ids: readonly string[]): Promise<void> {
  await tx.query(sql`SELECT 1 AS locked FROM user_clock WHERE user_id = ANY(${ids}::uuid[]) ORDER BY user_id FOR NO KEY UPDATE`)
}

/** Fails on the unique index `users_username`. Undefined when the account is deleted. */
export async function updateMe(tx: Queryable, id: string, patch: MePatch): Promise<Me | undefined> {
  const [row] = await tx.query<Me>(sql`
    UPDATE users u SET
      username = coalesce(${patch.username ?? null}, username),
      display_name = coalesce(${patch.display_name ?? null}, display_name),
      bio = coalesce(${patch.bio ?? null}, bio),
      status = coalesce(${patch.status ?? null}, status),
      -- Whoever becomes invisible goes, to all appearances.
      last_seen = CASE WHEN ${patch.status ?? null} = 'invisible' AND status <> 'invisible' THEN now() ELSE last_seen END,
      privacy_last_seen = coalesce(${patch.privacy?.last_seen ?? null}, privacy_last_seen),
      privacy_dm = coalesce(${patch.privacy?.dm ?? null}, privacy_dm)
    WHERE id = ${id} AND deleted_at IS NULL
    RETURNING ${meColumns}`)
  return row
}

/** By `users_pkey`; deleted accounts too. */
export function selectBriefs(db: Queryable, ids: readonly string[]): Promise<UserBrief[]> {
  return db.query<UserBrief>(sql`SELECT ${briefColumns} FROM users u WHERE u.id = ANY(${ids}::uuid[])`)
}

/** By `users_pkey`; deleted accounts too. */
export function selectProfiles(db: Queryable, ids: readonly string[]): Promise<ProfileRow[]> {
  return db.query<ProfileRow>(sql`SELECT ${profileColumns} FROM users u WHERE u.id = ANY(${ids}::uuid[])`)
}

// Enough to sort the best to the top without sorting everybody whose name has an `a`.
const considered = 500

/**
 * At most `limit` accounts, who is called exactly so first, then those whose username begins with it. By `users_search`
 * (trigrams) and `users_username`: less than three characters have no trigram of their own but at the beginning of a name.
 */
export function searchProfiles(db: Queryable, q: string, limit: number): Promise<ProfileRow[]> {
  const start = `${escapeLike(q)}%`
  const pattern = Array.from(q).length < 3 ? start : `%${start}`
  const columns: Sql = profileColumns
  return db.query<ProfileRow>(sql`
    WITH named AS (
      SELECT id FROM users WHERE lower(username) = lower(${q}::text) AND deleted_at IS NULL
    ), alike AS (
      SELECT id FROM users
      WHERE deleted_at IS NULL AND (lower(username) LIKE lower(${pattern}::text) OR lower(display_name) LIKE lower(${pattern}::text))
      LIMIT ${considered}
    )
    SELECT ${columns} FROM users u
    WHERE u.id IN (SELECT id FROM named UNION SELECT id FROM alike)
    ORDER BY u.id IN (SELECT id FROM named) DESC, lower(u.username) LIKE lower(${start}::text) IS TRUE DESC, lower(coalesce(u.username, u.display_name)), u.id
    LIMIT ${limit}`)
}

/** By what somebody shows that it is them; the phone only where it is verified. By `users_pkey`. */
export async function selectProofs(
  db: Queryable,
  id: string,
): Promise<{ password_hash: string | null; phone: string | null } | undefined> {
  const [row] = await db.query<{ password_hash: string | null; phone: string | null }>(sql`
    SELECT password_hash, CASE WHEN phone_verified_at IS NOT NULL THEN phone END AS phone
    FROM users WHERE id = ${id} AND deleted_at IS NULL`)
  return row
}

/** The picture as it stood, to be asked for once the clock's row is locked. */
export async function selectAvatar<T>(tx: Queryable, id: string): Promise<T | null> {
  const [row] = await tx.query<{ avatar: T | null }>(sql`SELECT avatar FROM users WHERE id = ${id}`)
  return row?.avatar ?? null
}

/** Undefined for a deleted account. */
export async function updateAvatar(tx: Queryable, id: string, avatar: object | null): Promise<Me | undefined> {
  const [row] = await tx.query<Me>(sql`
    UPDATE users u SET avatar = ${avatar && JSON.stringify(avatar)}::jsonb WHERE id = ${id} AND deleted_at IS NULL RETURNING ${meColumns}`)
  return row
}

/** Undefined when the password is no longer the one that was checked; null for none. */
export async function replacePasswordHash(
  tx: Queryable,
  id: string,
  checked: string | null,
  replacement: string,
): Promise<Me | undefined> {
  const [row] = await tx.query<Me>(sql`
    UPDATE users u SET password_hash = ${replacement}
    WHERE id = ${id} AND password_hash IS NOT DISTINCT FROM ${checked} AND deleted_at IS NULL
    RETURNING ${meColumns}`)
  return row
}

/** Leaves of a profile what messages need. False when the password is no longer the one that was checked. */
export async function blankUser(tx: Queryable, id: string, checked: string | null, display_name: string): Promise<boolean> {
  const rows = await tx.query(sql`
    UPDATE users SET
      username = NULL, phone = NULL, email = NULL, phone_verified_at = NULL, email_verified_at = NULL, password_hash = NULL,
      display_name = ${display_name}, bio = '', avatar = NULL, status = 'online', is_premium = false, is_admin = false, last_seen = NULL,
      deleted_at = now()
    WHERE id = ${id} AND password_hash IS NOT DISTINCT FROM ${checked} AND deleted_at IS NULL
    RETURNING id`)
  return rows.length > 0
}

/** Ids by lower-case username. Index users_username. */
export function selectByName(db: Queryable, names: readonly string[]): Promise<{ name: string; id: string }[]> {
  return db.query(
    sql`SELECT lower(username) AS name, id FROM users WHERE lower(username) = ANY(${names}::text[]) AND deleted_at IS NULL`,
  )
}

export function selectExisting(
  db: Queryable,
  ids: readonly string[],
): Promise<{ id: string; privacy_dm: 'everyone' | 'contacts' }[]> {
  return db.query(sql`SELECT id, privacy_dm FROM users WHERE id = ANY(${ids}::uuid[]) AND deleted_at IS NULL`)
}

/** Accounts deleted in the last day: what goes with an account may have been cut short. */
export function selectRecentlyDeleted(db: Queryable): Promise<{ id: string }[]> {
  return db.query<{ id: string }>(sql`SELECT id FROM users WHERE deleted_at > now() - interval '1 day'`)
}
