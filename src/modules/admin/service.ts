import { randomInt } from 'node:crypto'
import type { Queryable } from '../../platform/db/db.ts'
import { AppError } from '../../platform/errors.ts'
import type { Me } from '../../protocol/resources.ts'
import { endSessionsOf, selectAccount } from '../auth/index.ts'
import { bumpAclOf } from '../chats/index.ts'
import { createUser, tickClock } from '../users/index.ts'
import type { AdminDeps } from './deps.ts'
import * as store from './store.ts'

/** What admins of the server and its operator do to accounts. Whoever calls these may; `accessAsAdmin` decides for REST. */

/** Rejects with `forbidden`. Asked of the database each time: it is rare, and must not be a minute old. */
export async function accessAsAdmin(deps: AdminDeps, userId: string): Promise<void> {
  if (!(await store.isAdmin(deps.db, userId))) throw new AppError('forbidden')
}

/** The account's id, by username, phone or email. Rejects with `user_not_found`. */
export async function accountOf(db: Queryable, login: string): Promise<string> {
  const account = await selectAccount(db, login)
  if (!account) throw new AppError('user_not_found')
  return account.id
}

/**
 * A disabled account is signed out everywhere and cannot sign in; its profile and messages stay, and it goes on receiving.
 * Nothing is lost: enabled again, it signs in as before. Twice is once. Rejects with `user_not_found`.
 *
 * Sends that are on their way are decided under their chats' locks: before the answer to this call they may still pass,
 * after it none does, whatever other instances remember.
 */
export async function setDisabled(deps: AdminDeps, userId: string, disabled: boolean): Promise<void> {
  const ended = await deps.db.transaction(async (tx) => {
    // Before the sessions: a login that is under way holds this row until its session is there to be ended.
    if (!(await store.setDisabledAt(tx, userId, disabled))) throw new AppError('user_not_found')
    return disabled ? endSessionsOf(tx, userId) : []
  })
  deps.control.announce({ sessions_ended: ended, user_changed: userId })
  await bumpAclOf(deps.db, userId)
}

/** Makes an account whatever `REGISTRATION` says. Rejects with `username_taken`. */
export async function addUser(
  deps: AdminDeps,
  {
    password,
    is_admin,
    ...profile
  }: { username: string; password: string; display_name?: string | undefined; is_admin: boolean },
): Promise<Me> {
  const password_hash = await deps.passwords.hash(password)
  return deps.db.transaction(async (tx) => {
    const me = await createUser(tx, { ...profile, password_hash })
    if (is_admin) await store.setIsAdmin(tx, me.id, true)
    return { ...me, is_admin }
  })
}

/** Ends all sessions; whoever had them has to know the new password. */
export async function resetPassword(deps: AdminDeps, userId: string, password: string): Promise<void> {
  const hash = await deps.passwords.hash(password)
  const ended = await deps.db.transaction(async (tx) => {
    // The profile says whether there is a password. The clock first, as with every change of a profile.
    await tickClock(tx, userId)
    await store.setPasswordHash(tx, userId, hash)
    return endSessionsOf(tx, userId)
  })
  deps.control.announce({ sessions_ended: ended, user_changed: userId })
}

/** Running servers find the new version of the profile when they next compare, within seconds. */
export async function setAdmin(deps: AdminDeps, userId: string, isAdmin: boolean): Promise<void> {
  await deps.db.transaction(async (tx) => {
    await tickClock(tx, userId)
    await store.setIsAdmin(tx, userId, isAdmin)
  })
  deps.control.announce({ user_changed: userId })
}

// Without those that are taken for one another.
const letters = 'abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789'

/** 16 characters, 93 bits; with an upper-case letter, a lower-case letter and a digit. */
export function makePassword(): string {
  for (;;) {
    const password = Array.from({ length: 16 }, () => letters[randomInt(letters.length)]).join('')
    if (/[a-z]/.test(password) && /[A-Z]/.test(password) && /\d/.test(password)) return password
  }
}
