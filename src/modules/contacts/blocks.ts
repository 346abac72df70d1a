import { AppError } from '../../platform/errors.ts'
import { invalid } from '../../platform/input.ts'
import { existingUsers } from '../users/index.ts'
import { changePair } from './change.ts'
import type { ContactDeps } from './deps.ts'

/** A direct chat came to be that was not there to be locked. */
class Appeared extends Error {}

/** A pair has one direct chat, made once: the second try finds it. */
const tries = 3

/**
 * Blocks somebody, or no longer; again changes nothing. The other side is told nothing, and their rows stay as they are. The
 * lock of the direct chat comes first: a send under way there is decided before the block or after it, and none is
 * stored once the block is answered. Rejects with `invalid_input` (oneself) and, on blocking, `user_not_found`.
 */
export async function setBlocked(deps: ContactDeps, userId: string, otherId: string, blocked: boolean): Promise<void> {
  if (userId === otherId) throw invalid('user_id', 'is yourself')
  for (let n = 1; ; n += 1) {
    try {
      const after = await block(deps, userId, otherId, blocked)
      if (!after) return
      after()
      deps.sightChanged(userId, otherId)
      return
    } catch (error) {
      if (!(error instanceof Appeared) || n === tries) throw error
    }
  }
}

async function block(deps: ContactDeps, userId: string, otherId: string, blocked: boolean) {
  let dm: string | undefined
  const { result } = await changePair(
    deps,
    userId,
    otherId,
    async (pair) => {
      const { tx, mine } = pair
      if (blocked && (await existingUsers(tx, [otherId])).size === 0) throw new AppError('user_not_found')
      if (mine.blocked === blocked) return undefined
      // Whoever makes a direct chat takes both clocks, too: none comes to be any more before the commit.
      if (dm === undefined && (await deps.findDm(tx, userId, otherId)) !== undefined) throw new Appeared()
      pair.set('mine', { blocked })
      return deps.blockChanged(tx, userId, otherId, dm)
    },
    async (tx) => {
      dm = await deps.findDm(tx, userId, otherId)
      if (dm !== undefined) await deps.lockChat(tx, dm)
    },
  )
  return result
}
