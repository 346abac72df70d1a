import type { Queryable } from '../../platform/db/db.ts'
import { frame, type ServerEvent } from '../../protocol/events.ts'
import type { Relation } from '../../protocol/resources.ts'
import { lockClocks, tickClock } from '../users/index.ts'
import type { ContactDeps } from './deps.ts'
import { type RelationRow, selectPair, writeRelation } from './store.ts'
import { relationViews, requestResource } from './views.ts'

/**
 * The one way to change what is between two people: takes both their clocks first, in the order of their ids, so that
 * all changes between them come one after another, whoever makes them; each side that changed takes the next version of its
 * own clock; commits, and only then tells each one's own devices.
 */

type Side = 'mine' | 'theirs'
type EventType = 'contact_request' | 'contact_accepted' | 'relation_updated'
type Patch = Partial<Pick<RelationRow, 'state' | 'blocked' | 'request_id'>>

export interface Pair extends Readonly<Record<Side, RelationRow>> {
  readonly tx: Queryable
  /** Changes one side's row; the last call for a side counts. */
  set(side: Side, patch: Patch, event?: EventType): void
}

interface Written {
  row: RelationRow
  event: EventType
}

/**
 * `first` runs before the clocks are taken, for locks that come before them. Resolves with what `work` answered, and with
 * one's own side as it stands then.
 */
export async function changePair<T>(
  deps: ContactDeps,
  userId: string,
  otherId: string,
  work: (pair: Pair) => Promise<T> | T,
  first?: (tx: Queryable) => Promise<unknown>,
): Promise<{ result: T; mine: RelationRow }> {
  const { result, mine, written } = await deps.db.transaction(async (tx) => {
    await first?.(tx)
    await lockClocks(tx, [userId, otherId])
    // A statement of its own: what is read must be newer than the wait for the locks.
    const rows = await selectPair(tx, userId, otherId)
    const sideOf = (user_id: string, other_id: string) =>
      rows.find((row) => row.user_id === user_id) ?? { ...nothing, user_id, other_id }
    const changes = new Map<Side, { patch: Patch; event: EventType }>()
    const pair: Pair = {
      tx,
      mine: sideOf(userId, otherId),
      theirs: sideOf(otherId, userId),
      set: (side, patch, event = 'relation_updated') => void changes.set(side, { patch, event }),
    }
    const result = await work(pair)
    const written: Written[] = []
    for (const [side, { patch, event }] of changes) {
      const row = { ...pair[side], ...patch }
      written.push({ row: await writeRelation(tx, row, await tickClock(tx, row.user_id)), event })
    }
    return { result, mine: written.find(({ row }) => row.user_id === userId)?.row ?? pair.mine, written }
  })
  for (const each of written) await tell(deps, each)
  return { result, mine }
}

const nothing = { state: 'none', blocked: false, request_id: null, since: '', version: 0 } as const

/** Committed is committed: what cannot be told is found by who listens, as a hole in the user's stream. */
async function tell(deps: ContactDeps, { row, event }: Written): Promise<void> {
  try {
    const [relation] = await relationViews(deps, [row])
    const { user_id, version } = row
    const prev = version - 1
    deps.news.tell(`user:${user_id}`, [
      { version, prev, frame: frame(build(event, row, relation!, { user_version: version, user_prev: prev })) },
    ])
  } catch (error) {
    deps.onError(error, 'a change of contacts could not be told')
  }
}

function build(
  type: EventType,
  row: RelationRow,
  relation: Relation,
  own: { user_version: number; user_prev: number },
): ServerEvent {
  if (type === 'contact_request') return { type, ...own, request: requestResource(row, relation.user), relation }
  if (type === 'contact_accepted') return { type, ...own, user: relation.user, relation }
  return { type, ...own, relation }
}
