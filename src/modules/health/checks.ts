import type { Queryable } from '../../platform/db/db.ts'
import { sql } from '../../platform/db/db.ts'

const timeoutMs = 2_000
// Probes come every few seconds from each balancer; what they learn may be this old.
const freshMs = 1_000

/**
 * Asks the database for a sign of life: at most one question is under way and one answer a second is new, so that no number
 * of probes can take the pool's connections. No answer in 2 s is a no.
 */
export function databaseCheck(db: Queryable, now: () => number = Date.now): () => Promise<boolean> {
  let last: { at: number; alive: boolean } | undefined
  let pending: Promise<boolean> | undefined

  return () => {
    if (last && now() - last.at < freshMs) return Promise.resolve(last.alive)
    // A question that hangs keeps its connection until the pool gives up on it: no second one is asked meanwhile.
    pending ??= db
      .query(sql`SELECT 1`)
      .then(
        () => true,
        () => false,
      )
      .then((alive) => {
        last = { at: now(), alive }
        pending = undefined
        return alive
      })
    return bounded(pending)
  }
}

async function bounded(answer: Promise<boolean>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(resolve, timeoutMs, false)
  })
  try {
    return await Promise.race([answer, late])
  } finally {
    clearTimeout(timer)
  }
}
