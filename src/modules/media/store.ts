import { type Queryable, sql } from '../../platform/db/db.ts'

/** Whom a picture shows. */
export type Owner = { user_id: string; chat_id?: undefined } | { user_id?: undefined; chat_id: string }

/** Not in use yet. */
export async function insertAvatar(q: Queryable, { id, path }: { id: string; path: string }, owner: Owner): Promise<void> {
  await q.query(sql`
    INSERT INTO avatars (id, path, user_id, chat_id) VALUES (${id}, ${path}, ${owner.user_id ?? null}, ${owner.chat_id ?? null})`)
}

/** By avatars_pkey. */
export async function setInUse(tx: Queryable, id: string, isInUse: boolean): Promise<void> {
  await tx.query(sql`UPDATE avatars SET unused_at = CASE WHEN ${isInUse}::boolean THEN NULL ELSE now() END WHERE id = ${id}`)
}

/** Whom the picture in use with this path shows, for a viewer whose account is one. By avatars_pkey and users_pkey. */
export async function selectOwner(q: Queryable, id: string, path: string, viewerId: string): Promise<Owner | undefined> {
  const [row] = await q.query<{ user_id: string | null; chat_id: string | null }>(sql`
    SELECT user_id, chat_id FROM avatars
    WHERE id = ${id} AND path = ${path} AND unused_at IS NULL
      AND EXISTS (SELECT 1 FROM users WHERE id = ${viewerId} AND deleted_at IS NULL AND disabled_at IS NULL)`)
  if (!row) return undefined
  return row.chat_id !== null ? { chat_id: row.chat_id } : { user_id: row.user_id! }
}

/** Whatever was deleted since may still have its picture, were the server away for some weeks. */
const recently = sql`now() - interval '30 days'`

/** Pictures of accounts and chats that were deleted are in use no more. Indexes users_deleted and chats_deleted, avatars_user and avatars_chat. */
export async function releaseDeleted(q: Queryable): Promise<void> {
  await q.query(sql`
    UPDATE avatars a SET unused_at = now() FROM users u
    WHERE a.user_id = u.id AND a.unused_at IS NULL AND u.deleted_at > ${recently}`)
  await q.query(sql`
    UPDATE avatars a SET unused_at = now() FROM chats c
    WHERE a.chat_id = c.id AND a.unused_at IS NULL AND c.deleted_at > ${recently}`)
}

/** Some of those that have not been in use for so long. Index avatars_unused. */
export function selectUnused(q: Queryable, ms: number, count: number): Promise<{ id: string; path: string }[]> {
  return q.query(sql`
    SELECT id, path FROM avatars WHERE unused_at < now() - ${ms}::bigint * interval '1 millisecond' ORDER BY unused_at LIMIT ${count}`)
}

export async function deleteAvatar(q: Queryable, id: string): Promise<void> {
  await q.query(sql`DELETE FROM avatars WHERE id = ${id} AND unused_at IS NOT NULL`)
}
