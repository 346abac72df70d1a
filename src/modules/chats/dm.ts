import { type Queryable, sql } from '../../platform/db/db.ts'
import { newId } from '../../platform/ids.ts'
import { tellListed, writeListed } from './change.ts'
import type { ChatDeps } from './deps.ts'

/**
 * The one direct chat between two people, or of one with themselves (saved messages). The pair's row decides who makes
 * it: the loser of a race waits for the winner's commit and takes theirs. Rejects with `user_not_found`, `not_allowed` or
 * `user_blocked`.
 */
export async function getOrCreateDm(deps: ChatDeps, actorId: string, peerId: string): Promise<{ id: string; created: boolean }> {
  const known = await findDm(deps.db, actorId, peerId)
  if (known) return { id: known, created: false }
  await deps.checkReachable(deps.db, actorId, peerId)
  const [a, b] = [actorId, peerId].sort() as [string, string]
  const people = [...new Set([a, b])]
  const id = newId()
  const listed = await deps.db.transaction(async (tx) => {
    const [mine] = await tx.query(sql`
      INSERT INTO dm_pairs (user_a, user_b, chat_id) VALUES (${a}, ${b}, ${id}) ON CONFLICT DO NOTHING RETURNING chat_id`)
    if (!mine) return undefined
    await tx.query(sql`INSERT INTO chats (id, type) VALUES (${id}, 'dm')`)
    await tx.query(
      sql`INSERT INTO chat_counters (chat_id, version, member_count) VALUES (${id}, ${people.length}, ${people.length})`,
    )
    await tx.query(sql`
      INSERT INTO chat_members (chat_id, user_id, role, version)
      SELECT ${id}::uuid, user_id, 'member', n FROM unnest(${people}::uuid[]) WITH ORDINALITY AS t(user_id, n)`)
    const listed = await writeListed(tx, id, new Map(people.map((userId) => [userId, true])))
    // Once more under both clocks, under which people block each other: after this, a block finds the chat.
    await deps.checkReachable(tx, actorId, peerId)
    return listed
  })
  if (!listed) return { id: (await findDm(deps.db, actorId, peerId))!, created: false }
  tellListed(deps, { id, type: 'dm' }, listed)
  return { id, created: true }
}

/** Key of dm_pairs. */
export async function findDm(q: Queryable, actorId: string, peerId: string): Promise<string | undefined> {
  const [a, b] = [actorId, peerId].sort() as [string, string]
  const [row] = await q.query<{ chat_id: string }>(sql`SELECT chat_id FROM dm_pairs WHERE user_a = ${a} AND user_b = ${b}`)
  return row?.chat_id
}
