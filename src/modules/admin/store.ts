import { type Queryable, sql } from '../../platform/db/db.ts'

export async function isAdmin(db: Queryable, userId: string): Promise<boolean> {
  const rows = await db.query(
    sql`SELECT id FROM users WHERE id = ${userId} AND is_admin AND disabled_at IS NULL AND deleted_at IS NULL`,
  )
  return rows.length > 0
}

/** False where there is no such account, or it is deleted. The time of the first disabling stays. */
export async function setDisabledAt(tx: Queryable, userId: string, disabled: boolean): Promise<boolean> {
  const rows = await tx.query(sql`
    UPDATE users SET disabled_at = CASE WHEN ${disabled} THEN coalesce(disabled_at, now()) END
    WHERE id = ${userId} AND deleted_at IS NULL RETURNING id`)
  return rows.length > 0
}

export async function setPasswordHash(tx: Queryable, userId: string, hash: string): Promise<void> {
  await tx.query(sql`UPDATE users SET password_hash = ${hash} WHERE id = ${userId} AND deleted_at IS NULL`)
}

export async function setIsAdmin(tx: Queryable, userId: string, isAdmin: boolean): Promise<void> {
  await tx.query(sql`UPDATE users SET is_admin = ${isAdmin} WHERE id = ${userId} AND deleted_at IS NULL`)
}

export interface AccountListRow {
  id: string
  username: string | null
  display_name: string
  phone: string | null
  email: string | null
  is_admin: boolean
  disabled_at: string | null
  created_at: string
  last_seen: string | null
}

/** The newest accounts first. By `users_pkey`: ids are time-ordered. */
export function selectAccounts(db: Queryable, limit: number): Promise<AccountListRow[]> {
  return db.query<AccountListRow>(sql`
    SELECT id, username, display_name, phone, email, is_admin, disabled_at, created_at, last_seen
    FROM users WHERE deleted_at IS NULL ORDER BY id DESC LIMIT ${limit}`)
}

export interface Stats {
  users: number
  disabled_users: number
  admins: number
  sessions: number
  chats: number
  /** All that were ever sent, deleted and system ones too. */
  messages: number
  invites: number
  database_bytes: number
}

/** Counts rows of people and chats, never of messages: each chat knows how many it has. */
export async function selectStats(db: Queryable): Promise<Stats> {
  const [row] = await db.query<Stats>(sql`
    SELECT u.users, u.disabled_users, u.admins,
      (SELECT count(*) FROM sessions WHERE ended_at IS NULL AND expires_at > now()) AS sessions,
      (SELECT count(*) FROM chats WHERE deleted_at IS NULL) AS chats,
      (SELECT coalesce(sum(last_seq), 0)::bigint FROM chat_counters) AS messages,
      (SELECT count(*) FROM server_invites WHERE revoked_at IS NULL AND expires_at > now() AND uses < max_uses) AS invites,
      pg_database_size(current_database()) AS database_bytes
    FROM (
      SELECT count(*) AS users, count(*) FILTER (WHERE disabled_at IS NOT NULL) AS disabled_users, count(*) FILTER (WHERE is_admin) AS admins
      FROM users WHERE deleted_at IS NULL
    ) AS u`)
  return row!
}
