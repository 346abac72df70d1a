import type { Queryable } from '../../platform/db/db.ts'
import type { ContactRequest, Relation, RelationKind, UserPublic } from '../../protocol/resources.ts'
import type { Tie } from '../users/index.ts'
import type { ContactDeps } from './deps.ts'
import { type RelationRow, selectChanged, selectTies } from './store.ts'

/** What a user holds of others, as they are shown it. A block covers whatever lies below it. */

const kindOf = ({ state, blocked }: Pick<RelationRow, 'state' | 'blocked'>): RelationKind => (blocked ? 'blocked' : state)

export function relationResource(row: RelationRow, user: UserPublic): Relation {
  const { other_id, since, version } = row
  return { user_id: other_id, user, relation: kindOf(row), request_id: row.blocked ? null : row.request_id, since, version }
}

export function requestResource(row: RelationRow, user: UserPublic): ContactRequest {
  return {
    id: row.request_id!,
    user,
    direction: row.state === 'incoming' ? 'incoming' : 'outgoing',
    created_at: row.since,
  }
}

/** In the order of `rows`, all of one user. */
export async function relationViews(deps: Pick<ContactDeps, 'publicUsers'>, rows: readonly RelationRow[]): Promise<Relation[]> {
  const [first] = rows
  if (!first) return []
  const people = await deps.publicUsers(
    first.user_id,
    rows.map((row) => row.other_id),
  )
  return rows.map((row) => relationResource(row, people.get(row.other_id)!))
}

/** What changed of a user's relations after `since` (0: all there is), in the order of their clock; at most `limit`. */
export const changedRelations = (q: Queryable, userId: string, since: number, limit: number): Promise<RelationRow[]> =>
  selectChanged(q, userId, since, limit)

/** How these stand to the viewer; strangers are left out. */
export async function ties(q: Queryable, viewerId: string, ids: readonly string[]): Promise<Map<string, Tie>> {
  if (ids.length === 0) return new Map()
  const rows = await selectTies(q, viewerId, ids)
  return new Map(
    rows.map(({ other_id, state, blocked, blocks_viewer }) => [
      other_id,
      { relation: kindOf({ state: state ?? 'none', blocked }), blocks_viewer },
    ]),
  )
}
