import type { Queryable } from '../../platform/db/db.ts'
import { AppError } from '../../platform/errors.ts'
import type { Identity } from '../../platform/identity.ts'
import { addressKey } from '../../platform/limits/take.ts'
import type { Me } from '../../protocol/resources.ts'
import { createUser, meOf } from '../users/index.ts'
import type { AuthDeps, Client } from './deps.ts'
import { type Attempt, attemptOf, countAttempt, forgetAttempts, takeBackAttempt } from './failures.ts'
import { admit, checkMayRegister } from './registration.ts'
import type { Login, Registration, SignedIn } from './schema.ts'
import { makeRoom, type OpenedSession, openSession, tokensOf } from './sessions.ts'
import { type AccountRow, lockAccount, selectAccount } from './store.ts'

export function signedIn(deps: AuthDeps, user: Me, session: OpenedSession): SignedIn {
  return { user_id: user.id, ...tokensOf(deps, user.id, session.id, 1, session.refresh_token), user }
}

/**
 * Makes an account and signs it in. Rejects with what `checkMayRegister` says, `overloaded`, or `username_taken`,
 * `phone_taken` and `email_taken`, which the unique indexes decide. What is refused uses no invite.
 */
export async function register(
  deps: AuthDeps,
  { password, invite_code, ...profile }: Registration,
  client: Client,
): Promise<SignedIn> {
  await checkMayRegister(deps, invite_code, client)
  const password_hash = await deps.passwords.hash(password)
  const { user, session } = await deps.db.transaction(async (tx) => {
    await admit(tx, deps, invite_code)
    const user = await createUser(tx, { ...profile, password_hash })
    return { user, session: await openSession(tx, deps, user.id, client) }
  })
  return signedIn(deps, user, session)
}

/**
 * Signs in. Rejects with `invalid_credentials`, the same for an unknown account and after the same time; with
 * `rate_limited` after too many failures, `overloaded` when too many passwords wait; after the right password alone with
 * `account_disabled`.
 */
export async function login(deps: AuthDeps, { login, password }: Login, client: Client): Promise<SignedIn> {
  const attempt = attemptOf(login, addressKey(client.ip))
  // One after another, so that several devices that sign in at once are not taken for guesses: each success takes its count
  // back before the next one counts.
  return deps.turns(attempt.pair, async () => {
    try {
      await countAttempt(deps.db, attempt, { pair: deps.config.limits.login, account: deps.config.limits.loginAccount })
      try {
        const account = await selectAccount(deps.db, login)
        const matches = await deps.passwords.matches(password, account?.password_hash)
        if (!account || !matches) throw new AppError('invalid_credentials')
        return await openFor(deps, account, attempt, client)
      } catch (error) {
        // Nobody guessed wrong: the server was busy, or its database away.
        const isJudged = error instanceof AppError && error.code !== 'overloaded'
        if (!isJudged) await takeBackAttempt(deps.db, attempt).catch(() => {})
        throw error
      }
    } catch (error) {
      if (error instanceof AppError) deps.metrics.loginsRefused.inc({ reason: error.code })
      throw error
    }
  })
}

async function openFor(deps: AuthDeps, account: AccountRow, attempt: Attempt, client: Client): Promise<SignedIn> {
  const { user, session, ended } = await deps.db.transaction(async (tx) => {
    // The password may have changed while it was being compared; its change has ended all sessions but those made since.
    const locked = await lockAccount(tx, account.id)
    if (!locked || locked.password_hash !== account.password_hash) throw new AppError('invalid_credentials')
    if (locked.disabled) throw new AppError('account_disabled')
    await forgetAttempts(tx, attempt)
    return enter(tx, deps, account.id, client)
  })
  if (ended.length > 0) deps.control.announce({ sessions_ended: ended })
  return signedIn(deps, user, session)
}

/** A session for an account that is locked and may have one; `ended` is to be announced after the commit. */
export async function enter(
  tx: Queryable,
  deps: AuthDeps,
  userId: string,
  client: Client,
): Promise<{ user: Me; session: OpenedSession; ended: string[] }> {
  const ended = await makeRoom(tx, userId)
  const session = await openSession(tx, deps, userId, client)
  return { user: await meOf(tx, userId), session, ended }
}

/** What `token` stands for. */
export async function verify(deps: AuthDeps, { user_id, expires_at }: Identity) {
  return { valid: true, user: await meOf(deps.db, user_id), expires_at: new Date(expires_at * 1000).toISOString() } as const
}
