import { type Queryable, sql } from '../../platform/db/db.ts'

/** Live is: not ended, not expired. Sessions of deleted accounts are ended. */
const live = sql`s.ended_at IS NULL AND s.expires_at > now()`

export interface NewSession {
  id: string
  user_id: string
  refresh_hash: Buffer
  salt: Buffer
  device: string
  ip: string
  ttlMs: number
}

export async function insertSession(tx: Queryable, s: NewSession): Promise<void> {
  // The first refresh token has none before it, so there is nothing left to confirm.
  await tx.query(sql`
    INSERT INTO sessions (id, user_id, generation, confirmed_generation, refresh_hash, salt, device, ip, expires_at)
    VALUES (${s.id}, ${s.user_id}, 1, 1, ${s.refresh_hash}, ${s.salt}, ${s.device}, ${s.ip}, now() + ${s.ttlMs} * interval '1 ms')`)
}

export interface SessionRow {
  user_id: string
  /** Its account is disabled; the session has ended with that. */
  is_disabled: boolean
  generation: number
  confirmed_generation: number
  refresh_hash: Buffer
  salt: Buffer
  is_live: boolean
}

/** By the primary keys; the session's row stays locked, so that two refreshes come one after the other. */
export async function lockSession(tx: Queryable, id: string): Promise<SessionRow | undefined> {
  const [row] = await tx.query<SessionRow>(sql`
    SELECT s.user_id, s.generation, s.confirmed_generation, s.refresh_hash, s.salt, ${live} AS is_live,
      u.disabled_at IS NOT NULL AS is_disabled
    FROM sessions s JOIN users u ON u.id = s.user_id WHERE s.id = ${id} FOR NO KEY UPDATE OF s`)
  return row
}

/** The next refresh token; the one before is thereby known to have arrived. */
export async function rotate(
  tx: Queryable,
  id: string,
  generation: number,
  hash: Buffer,
  ttlMs: number,
  ip: string,
): Promise<void> {
  await tx.query(sql`
    UPDATE sessions SET
      generation = ${generation}, confirmed_generation = ${generation - 1}, refresh_hash = ${hash}, ip = ${ip},
      last_used_at = now(), expires_at = now() + ${ttlMs} * interval '1 ms'
    WHERE id = ${id}`)
}

/** An access token of this generation was used, so its refresh token has arrived; of an older one it says nothing. */
export async function confirmGeneration(db: Queryable, id: string, generation: number): Promise<void> {
  await db.query(sql`
    UPDATE sessions SET confirmed_generation = ${generation}
    WHERE id = ${id} AND generation = ${generation} AND confirmed_generation < ${generation}`)
}

/** Ends these sessions of the user that are live; answers which. */
export async function endSessions(tx: Queryable, userId: string, ids: readonly string[]): Promise<string[]> {
  const rows = await tx.query<{ id: string }>(sql`
    UPDATE sessions s SET ended_at = now() WHERE s.id = ANY(${ids}::uuid[]) AND s.user_id = ${userId} AND ${live} RETURNING s.id`)
  return rows.map(({ id }) => id)
}

/** Ends all live sessions of a user but one; answers which. By `sessions_of_user`. */
export async function endSessionsOf(tx: Queryable, userId: string, except?: string): Promise<string[]> {
  const rows = await tx.query<{ id: string }>(sql`
    UPDATE sessions s SET ended_at = now()
    WHERE s.user_id = ${userId} AND ${live} AND s.id IS DISTINCT FROM ${except ?? null}::uuid
    RETURNING s.id`)
  return rows.map(({ id }) => id)
}

/** Ends all but the `keep` sessions used last; answers which. By `sessions_of_user`. */
export async function endOldestSessions(tx: Queryable, userId: string, keep: number): Promise<string[]> {
  const rows = await tx.query<{ id: string }>(sql`
    UPDATE sessions SET ended_at = now() WHERE id IN (
      SELECT s.id FROM sessions s WHERE s.user_id = ${userId} AND ${live} ORDER BY s.last_used_at DESC, s.id DESC OFFSET ${keep})
    RETURNING id`)
  return rows.map(({ id }) => id)
}

export interface SessionListRow {
  id: string
  device: string
  ip: string
  created_at: string
  last_used_at: string
}

/** By `sessions_of_user`, the one used last first. */
export function selectSessions(db: Queryable, userId: string): Promise<SessionListRow[]> {
  return db.query<SessionListRow>(sql`
    SELECT s.id, s.device, s.ip, s.created_at, s.last_used_at FROM sessions s
    WHERE s.user_id = ${userId} AND ${live} ORDER BY s.last_used_at DESC, s.id DESC`)
}

/** Those of `ids` that are live, in one query by `sessions_pkey`: for connections that are open. */
export async function liveSessions(db: Queryable, ids: readonly string[]): Promise<Set<string>> {
  const rows = await db.query<{ id: string }>(sql`SELECT s.id FROM sessions s WHERE s.id = ANY(${ids}::uuid[]) AND ${live}`)
  return new Set(rows.map(({ id }) => id))
}

/** Notes that these sessions are in use. Rows that somebody else holds are left for the next time. */
export async function touchSessions(db: Queryable, ids: readonly string[]): Promise<void> {
  await db.query(sql`
    WITH due AS (SELECT id FROM sessions WHERE id = ANY(${ids}::uuid[]) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED)
    UPDATE sessions SET last_used_at = now() FROM due WHERE sessions.id = due.id`)
}

/** Sessions that nobody can use any more; ended ones go when they would have expired. By `sessions_expiry`. */
export async function deleteExpired(db: Queryable): Promise<number> {
  const rows = await db.query(sql`DELETE FROM sessions WHERE expires_at < now() - interval '1 day' RETURNING id`)
  return rows.length
}

export interface SignedInRow {
  user_id: string
  generation: number
  confirmed_generation: number
  is_premium: boolean
  username: string | null
  display_name: string
  avatar_url: string | null
}

/** A live session and whose it is, by the primary keys of both. */
export async function selectSignedIn(db: Queryable, id: string): Promise<SignedInRow | undefined> {
  const [row] = await db.query<SignedInRow>(sql`
    SELECT s.user_id, s.generation, s.confirmed_generation, u.is_premium, u.username, u.display_name, u.avatar->>'url' AS avatar_url
    FROM sessions s JOIN users u ON u.id = s.user_id
    WHERE s.id = ${id} AND ${live} AND u.deleted_at IS NULL AND u.disabled_at IS NULL`)
  return row
}

export interface AccountRow {
  id: string
  password_hash: string | null
}

/**
 * Each kind of login by its unique index. A username has neither `@` nor `+`, so there is no doubt which kind it is. None has
 * a letter beyond ASCII: PostgreSQL would take some for a letter of ASCII in upper case, and wrong passwords, which are
 * counted by the login, would be counted anew for each spelling.
 */
export async function selectAccount(db: Queryable, login: string): Promise<AccountRow | undefined> {
  if (!/^[!-~]+$/.test(login)) return undefined
  const [row] = await db.query<AccountRow>(
    login.includes('@')
      ? sql`SELECT id, password_hash FROM users WHERE lower(email) = lower(${login}) AND deleted_at IS NULL`
      : login.startsWith('+')
        ? sql`SELECT id, password_hash FROM users WHERE phone = ${login} AND deleted_at IS NULL`
        : sql`SELECT id, password_hash FROM users WHERE lower(username) = lower(${login}) AND deleted_at IS NULL`,
  )
  return row
}

/** What the account is at this moment, and stays until the commit; other logins wait. Undefined where it is deleted. */
export async function lockAccount(
  tx: Queryable,
  id: string,
): Promise<{ password_hash: string | null; phone: string | null; disabled: boolean } | undefined> {
  const [row] = await tx.query<{ password_hash: string | null; phone: string | null; disabled: boolean }>(sql`
    SELECT password_hash, phone, disabled_at IS NOT NULL AS disabled FROM users WHERE id = ${id} AND deleted_at IS NULL FOR NO KEY UPDATE`)
  return row
}
