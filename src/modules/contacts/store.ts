import { type Queryable, sql } from '../../platform/db/db.ts'

export type State = 'none' | 'requested' | 'incoming' | 'contact'

/** What one user holds of another. */
export interface RelationRow {
  user_id: string
  other_id: string
  state: State
  blocked: boolean
  request_id: string | null
  since: string
  version: number
}

const columns = sql`r.user_id, r.other_id, r.state, r.blocked, r.request_id, r.since, r.version`

/** Both sides of two people, so far as there are any. Key of relations. */
export function selectPair(q: Queryable, userId: string, otherId: string): Promise<RelationRow[]> {
  return q.query<RelationRow>(sql`
    SELECT ${columns} FROM relations r
    WHERE (r.user_id = ${userId} AND r.other_id = ${otherId}) OR (r.user_id = ${otherId} AND r.other_id = ${userId})`)
}

/** Writes one side under `version`; `since` moves with the state alone, and is the transaction's time: the same on both sides. */
export async function writeRelation(
  tx: Queryable,
  row: Omit<RelationRow, 'since' | 'version'>,
  version: number,
): Promise<RelationRow> {
  const [written] = await tx.query<RelationRow>(sql`
    INSERT INTO relations AS r (user_id, other_id, state, blocked, request_id, since, version)
    VALUES (${row.user_id}, ${row.other_id}, ${row.state}, ${row.blocked}, ${row.request_id}, date_trunc('milliseconds', now()), ${version})
    ON CONFLICT (user_id, other_id) DO UPDATE SET state = excluded.state, blocked = excluded.blocked, request_id = excluded.request_id,
      since = CASE WHEN r.state = excluded.state THEN r.since ELSE excluded.since END, version = excluded.version
    RETURNING ${columns}`)
  return written!
}

/** With whom this user has a request that has this id. Index relations_requests. */
export async function selectByRequest(q: Queryable, userId: string, requestId: string): Promise<RelationRow | undefined> {
  const [row] = await q.query<RelationRow>(sql`
    SELECT ${columns} FROM relations r
    WHERE r.user_id = ${userId} AND r.state IN ('requested', 'incoming') AND r.request_id = ${requestId}`)
  return row
}

/** Requests that wait, the newest first, those of people who are blocked left out. Index relations_requests. */
export function selectRequests(
  q: Queryable,
  userId: string,
  state: 'requested' | 'incoming',
  before: string | undefined,
  limit: number,
): Promise<RelationRow[]> {
  return q.query<RelationRow>(sql`
    SELECT ${columns} FROM relations r
    WHERE r.user_id = ${userId} AND r.state = ${state} AND NOT r.blocked
      AND r.request_id < ${before ?? 'ffffffff-ffff-ffff-ffff-ffffffffffff'} AND r.request_id IS NOT NULL
    ORDER BY r.request_id DESC LIMIT ${limit}`)
}

export interface ContactKey {
  id: string
  display_name: string
  /** May be shown as online, if they are. */
  shows: boolean
}

/** All contacts of a user, those they block left out. Index relations_contacts, and the keys of users and relations. */
export function selectContacts(q: Queryable, userId: string): Promise<ContactKey[]> {
  return q.query<ContactKey>(sql`
    SELECT u.id, u.display_name, u.status <> 'invisible' AND NOT EXISTS (
      SELECT 1 FROM relations b WHERE b.user_id = r.other_id AND b.other_id = r.user_id AND b.blocked) AS shows
    FROM relations r JOIN users u ON u.id = r.other_id AND u.deleted_at IS NULL
    WHERE r.user_id = ${userId} AND r.state = 'contact' AND NOT r.blocked`)
}

/** Whom a user blocks, in the order of ids; deleted accounts are left out. Index relations_blocked. */
export function selectBlocked(
  q: Queryable,
  userId: string,
  after: string | undefined,
  limit: number,
): Promise<{ other_id: string }[]> {
  return q.query<{ other_id: string }>(sql`
    SELECT r.other_id FROM relations r JOIN users u ON u.id = r.other_id AND u.deleted_at IS NULL
    WHERE r.user_id = ${userId} AND r.blocked AND r.other_id > ${after ?? '00000000-0000-0000-0000-000000000000'}
    ORDER BY r.other_id LIMIT ${limit}`)
}

/** With whom this user has a request or is a contact. Key of relations. */
export function selectTied(q: Queryable, userId: string): Promise<{ other_id: string }[]> {
  return q.query<{ other_id: string }>(sql`SELECT r.other_id FROM relations r WHERE r.user_id = ${userId} AND r.state <> 'none'`)
}

/**
 * What changed after `since` of what this user holds of others, in the order of their clock. From nothing (0) what has ended
 * is left out. Index relations_version.
 */
export function selectChanged(q: Queryable, userId: string, since: number, limit: number): Promise<RelationRow[]> {
  return q.query<RelationRow>(sql`
    SELECT ${columns} FROM relations r
    WHERE r.user_id = ${userId} AND r.version > ${since} AND (${since > 0}::boolean OR r.state <> 'none' OR r.blocked)
    ORDER BY r.version LIMIT ${limit}`)
}

export interface TieRow {
  other_id: string
  state: State | null
  blocked: boolean
  blocks_viewer: boolean
}

/** How these stand to a viewer; strangers are left out. Key of relations. */
export function selectTies(q: Queryable, viewerId: string, ids: readonly string[]): Promise<TieRow[]> {
  return q.query<TieRow>(sql`
    SELECT t.id AS other_id, m.state, coalesce(m.blocked, false) AS blocked, coalesce(o.blocked, false) AS blocks_viewer
    FROM unnest(${ids}::uuid[]) AS t(id)
    LEFT JOIN relations m ON m.user_id = ${viewerId} AND m.other_id = t.id
    LEFT JOIN relations o ON o.user_id = t.id AND o.other_id = ${viewerId}
    WHERE m.user_id IS NOT NULL OR o.user_id IS NOT NULL`)
}
