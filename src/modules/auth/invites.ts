import { randomBytes } from 'node:crypto'
import { type Queryable, sql } from '../../platform/db/db.ts'
import { AppError } from '../../platform/errors.ts'

/** Server invites: codes that let somebody make an account while `REGISTRATION` is `invite`. */

export interface ServerInvite {
  code: string
  /** Null: the operator, by command. */
  created_by: string | null
  created_at: string
  expires_at: string
  max_uses: number
  uses: number
  revoked_at: string | null
}

const columns = sql`i.code, i.created_by, i.created_at, i.expires_at, i.max_uses, i.uses, i.revoked_at`
const isGood = sql`i.revoked_at IS NULL AND i.expires_at > now() AND i.uses < i.max_uses`

export interface InviteOptions {
  max_uses: number
  /** Seconds. */
  expires_in: number
}

/** As long as a message that holds it is looked for. */
export const inviteDefaults: InviteOptions = { max_uses: 1, expires_in: 7 * 86_400 }

export async function makeInvite(
  db: Queryable,
  createdBy: string | null,
  { max_uses, expires_in }: InviteOptions,
): Promise<ServerInvite> {
  const code = randomBytes(18).toString('base64url')
  const [row] = await db.query<ServerInvite>(sql`
    INSERT INTO server_invites AS i (code, created_by, max_uses, expires_at)
    VALUES (${code}, ${createdBy}, ${max_uses}, now() + ${expires_in} * interval '1 s') RETURNING ${columns}`)
  return row!
}

/** The newest first, those that are over too; those made before the one called `cursor`. Index server_invites_created. */
export async function listInvites(
  db: Queryable,
  { limit, cursor }: { limit: number; cursor?: string | undefined },
): Promise<{ invites: ServerInvite[]; has_more: boolean; next_cursor: string | null }> {
  const after =
    cursor === undefined
      ? sql``
      : sql`WHERE (i.created_at, i.code) < (SELECT created_at, code FROM server_invites WHERE code = ${cursor})`
  const rows = await db.query<ServerInvite>(sql`
    SELECT ${columns} FROM server_invites i ${after} ORDER BY i.created_at DESC, i.code DESC LIMIT ${limit + 1}`)
  const invites = rows.slice(0, limit)
  const has_more = rows.length > limit
  return { invites, has_more, next_cursor: has_more ? invites.at(-1)!.code : null }
}

/** Nobody gets in by it any more; accounts it has made stay. Twice is once. Rejects with `invite_not_found`. */
export async function revokeInvite(db: Queryable, code: string): Promise<void> {
  const rows = await db.query(
    sql`UPDATE server_invites SET revoked_at = coalesce(revoked_at, now()) WHERE code = ${code} RETURNING code`,
  )
  if (rows.length === 0) throw new AppError('invite_not_found')
}

/** Those that have been over for a month: so long a list shows what became of them. Read whole, as there are few and it is rarely done. */
export async function sweepInvites(db: Queryable): Promise<void> {
  await db.query(sql`DELETE FROM server_invites WHERE least(expires_at, revoked_at) < now() - interval '30 days'`)
}

/** A look, before there is work to do for it; whether it lasts, `useInvite` decides. By `server_invites_pkey`. */
export async function isInviteGood(db: Queryable, code: string): Promise<boolean> {
  return (await db.query(sql`SELECT i.code FROM server_invites i WHERE i.code = ${code} AND ${isGood}`)).length > 0
}

/**
 * Takes one use, in the transaction that makes the account: a refused account uses nothing, and of those who come for the
 * last use at once one gets it, because the others wait for the row and look at it again.
 */
export async function useInvite(tx: Queryable, code: string): Promise<boolean> {
  const rows = await tx.query(
    sql`UPDATE server_invites i SET uses = i.uses + 1 WHERE i.code = ${code} AND ${isGood} RETURNING i.code`,
  )
  return rows.length > 0
}
