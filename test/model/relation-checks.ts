import type { Pool } from 'pg'
import type { ClientState } from '../client/state.ts'
import { slackMs } from './checks.ts'
import type { Run } from './run.ts'

/** Who blocked whom when, and what a new device shows of it. */

/** When who blocked whom, or no longer: "blocker blocked". */
export type Blocks = ReadonlyMap<string, { blocked: boolean; at: number }[]>

export async function blocksOf(run: Run): Promise<Blocks> {
  const { rows } = await run.world.sql.query<{ key: string; blocked: boolean; at: number }>(
    `SELECT user_id || ' ' || other_id AS key, blocked, (extract(epoch FROM at) * 1000)::float AS at FROM j_blocks
     WHERE user_id = ANY($1) ORDER BY at`,
    [run.people.map((person) => person.account.id)],
  )
  return Map.groupBy(rows, (row) => row.key)
}

/** Whether one of the two of this direct chat blocked the other all the while, or none all the while; undefined where that changed. */
export function isBlocked(
  run: Run,
  blocks: Blocks,
  chatId: string,
  { from, until }: { from: number; until: number },
): boolean | undefined {
  const pair = run.pairs.get(chatId)
  if (!pair) return false
  const [one, two] = [pair, [...pair].reverse()].map((sides) => {
    const changes = blocks.get(sides.join(' ')) ?? []
    if (changes.some(({ at }) => at >= from - slackMs && at <= until + slackMs)) return undefined
    return changes.findLast(({ at }) => at < from)?.blocked ?? false
  })
  if (one === true || two === true) return true
  return one === false && two === false ? false : undefined
}

export const isBlockRefusal = (result: string) => result === 'not_allowed' || result === 'user_blocked'

/** What a new device shows is what is stored. */
export async function checkShown(sql: Pool, userId: string, state: ClientState): Promise<string[]> {
  const { rows } = await sql.query<{ user_id: string; relation: string; version: number }>(
    `SELECT other_id AS user_id, CASE WHEN blocked THEN 'blocked' ELSE state END AS relation, version::int FROM relations
     WHERE user_id = $1 AND (blocked OR state <> 'none') ORDER BY other_id`,
    [userId],
  )
  const shown = [...state.relations.values()]
    .filter(({ relation }) => relation !== 'none')
    .sort((a, b) => (a.user_id < b.user_id ? -1 : 1))
    .map(({ user_id, relation, version }) => ({ user_id, relation, version }))
  const [x, y] = [JSON.stringify(shown), JSON.stringify(rows)]
  return x === y ? [] : [`${userId} is shown relations ${x}, has ${y}`]
}
