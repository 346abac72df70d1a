import { AppError } from '../../platform/errors.ts'
import type { Me } from '../../protocol/resources.ts'
import { type ChangedMe, claimPhone, createUser, phoneHolder, releasePhone } from '../users/index.ts'
import { checkCode, useCode } from './codes.ts'
import type { AuthDeps, Client } from './deps.ts'
import { admit, checkMayRegister } from './registration.ts'
import type { PhoneVerification, SignedIn } from './schema.ts'
import { enter, signedIn } from './service.ts'
import { openSession } from './sessions.ts'
import { lockAccount } from './store.ts'

/** Signing in, signing up and showing that a phone is one's own, all by a code sent to it. */

/** A phone changed hands while it was looked at: what is tried again then, so many times. */
const attempts = 3

async function again<T>(work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await work()
    } catch (error) {
      if (!(error instanceof AppError && error.code === 'phone_taken') || attempt === attempts) throw error
    }
  }
}

/**
 * Signs in to the account that has this phone verified, else makes one; `created` says which. Rejects with `invalid_code`,
 * and only after a right code with `account_disabled` or with what refuses a registration; the code stays good then.
 */
export async function signInByCode(
  deps: AuthDeps,
  { phone, code, display_name, invite_code }: PhoneVerification,
  client: Client,
): Promise<{ created: boolean; answer: SignedIn }> {
  try {
    const checked = await checkCode(deps, phone, code)
    if (!checked) throw new AppError('invalid_code')
    const holder = await phoneHolder(deps.db, phone)
    if (!holder?.verified) await checkMayRegister(deps, invite_code, client)

    const { created, user, session, ended, changed } = await again(() =>
      deps.db.transaction(async (tx) => {
        if (!(await useCode(tx, checked))) throw new AppError('invalid_code')
        const account = await phoneHolder(tx, phone)
        if (account?.verified) {
          const locked = await lockAccount(tx, account.id)
          if (locked?.phone !== phone) throw new AppError('phone_taken')
          if (locked.disabled) throw new AppError('account_disabled')
          return { created: false, ...(await enter(tx, deps, account.id, client)), changed: [] }
        }
        const changed = await releasePhone(tx, phone)
        await admit(tx, deps, invite_code)
        const user = await createUser(tx, { phone, phone_verified: true, display_name })
        const session = await openSession(tx, deps, user.id, client)
        return { created: true, user, session, ended: [], changed }
      }),
    )
    if (ended.length > 0) deps.control.announce({ sessions_ended: ended })
    tellChanged(deps, changed)
    return { created, answer: signedIn(deps, user, session) }
  } catch (error) {
    if (error instanceof AppError) deps.metrics.loginsRefused.inc({ reason: error.code })
    throw error
  }
}

/** The phone is mine from now on. Rejects with `invalid_code`, and with `phone_taken` where another account has shown it to be its own. */
export async function verifyMyPhone(
  deps: AuthDeps,
  userId: string,
  { phone, code }: { phone: string; code: string },
): Promise<Me> {
  const checked = await checkCode(deps, phone, code)
  if (!checked) throw new AppError('invalid_code')
  const changed = await again(() =>
    deps.db.transaction(async (tx) => {
      if (!(await useCode(tx, checked))) throw new AppError('invalid_code')
      return claimPhone(tx, userId, phone)
    }),
  )
  tellChanged(deps, changed)
  return changed.at(-1)!.me
}

function tellChanged(deps: AuthDeps, changed: readonly ChangedMe[]): void {
  for (const { version, me } of changed) deps.tellMe(me.id, version, me)
}
