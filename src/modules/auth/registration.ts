import type { Queryable } from '../../platform/db/db.ts'
import { AppError } from '../../platform/errors.ts'
import { addressKey, takeLimit } from '../../platform/limits/take.ts'
import type { AuthDeps, Client } from './deps.ts'
import { isInviteGood, useInvite } from './invites.ts'

/** Who may make an account here: by a password or by a code sent to a phone, the rule is the same. */

/**
 * Before any work is done for a stranger. Rejects with `registration_closed`, `invite_required`, `invalid_invite`, or
 * `rate_limited` after too many accounts from one address.
 */
export async function checkMayRegister(deps: AuthDeps, inviteCode: string | undefined, { ip }: Client): Promise<void> {
  const { registration, limits } = deps.config
  if (registration === 'closed') throw new AppError('registration_closed')
  if (registration === 'invite' && inviteCode === undefined) throw new AppError('invite_required')
  await takeLimit(deps.limits, 'register', addressKey(ip), limits.register)
  if (registration === 'invite' && !(await isInviteGood(deps.db, inviteCode!))) throw new AppError('invalid_invite')
}

/**
 * In the transaction that makes the account, before it: uses the invite. Where registration is open a good one is counted,
 * and any other does no harm: a link that was sent before the server was opened still leads in.
 */
export async function admit(tx: Queryable, deps: AuthDeps, inviteCode: string | undefined): Promise<void> {
  const used = inviteCode !== undefined && (await useInvite(tx, inviteCode))
  if (deps.config.registration === 'invite' && !used) throw new AppError('invalid_invite')
}
