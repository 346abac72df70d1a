import { type Queryable, violatedUnique } from '../../platform/db/db.ts'
import { AppError } from '../../platform/errors.ts'
import { newId } from '../../platform/ids.ts'
import { takeLimit } from '../../platform/limits/take.ts'
import type { Me, RelationKind, UserBrief, UserPublic } from '../../protocol/resources.ts'
import type { CheckedCode, Tie, UsersDeps } from './deps.ts'
import type { FoundUser, MePatch, Proof } from './schema.ts'
import * as store from './store.ts'

/** What a deleted account is called. */
export const deletedName = 'Deleted account'

const maxFound = 20

/** What `users_…` stand for when a name is taken. */
export function asTaken(error: unknown): unknown {
  const constraint = violatedUnique(error)
  if (constraint === 'users_username') return new AppError('username_taken')
  if (constraint === 'users_phone') return new AppError('phone_taken')
  if (constraint === 'users_email') return new AppError('email_taken')
  return error
}

/**
 * Makes an account and its clock. Without a display name it is the username, never phone or email, which are private.
 * Rejects with `username_taken`, `phone_taken` or `email_taken`; the transaction is of no more use then.
 */
export async function createUser(
  tx: Queryable,
  { display_name, ...user }: Omit<store.NewUser, 'id' | 'display_name'> & { display_name?: string | undefined },
): Promise<Me> {
  try {
    return await store.insertUser(tx, { ...user, id: newId(), display_name: display_name ?? user.username ?? 'User' })
  } catch (error) {
    throw asTaken(error)
  }
}

/** My own profile. Rejects with `user_not_found` when the account is deleted. */
export async function meOf(db: Queryable, id: string): Promise<Me> {
  const me = await store.selectMe(db, id)
  if (!me) throw new AppError('user_not_found')
  return me
}

/** Profiles as they stand beside messages, by id; unknown ids are left out. Deleted accounts are called `deletedName`. */
export function briefs(deps: Pick<UsersDeps, 'db' | 'briefCache'>, ids: readonly string[]): Promise<Map<string, UserBrief>> {
  return deps.briefCache.load(deps.db, ids)
}

const stranger: Tie = { relation: 'none', blocks_viewer: false }

interface Seen {
  user: UserPublic
  relation: RelationKind
}

/**
 * What `viewerId` may see of these people. Where one of the two blocks the other, nobody's coming and going is shown to
 * either: who is blocked is not told, and who blocks does not look.
 */
async function see(
  deps: Pick<UsersDeps, 'db' | 'relations' | 'online'>,
  viewerId: string,
  rows: readonly store.ProfileRow[],
): Promise<Seen[]> {
  const ids = rows.map(({ id }) => id)
  const [relations, online] = await Promise.all([deps.relations(deps.db, viewerId, ids), deps.online(ids)])
  return rows.map(({ status, privacy_last_seen, deleted_at, ...row }) => {
    const { relation, blocks_viewer } = relations.get(row.id) ?? stranger
    const isHidden = blocks_viewer || relation === 'blocked'
    const isMine = row.id === viewerId
    const tellsLastSeen =
      isMine || (!isHidden && (privacy_last_seen === 'everyone' || (privacy_last_seen === 'contacts' && relation === 'contact')))
    return {
      relation,
      user: {
        ...row,
        // Who is invisible looks as if they had not come back since they were last seen.
        is_online: deleted_at === null && (isMine || (!isHidden && status !== 'invisible')) && online.has(row.id),
        last_seen: tellsLastSeen ? row.last_seen : null,
      },
    }
  })
}

/** Public profiles by id, as `viewerId` sees them; unknown ids are left out. */
export async function publicUsers(
  deps: Pick<UsersDeps, 'db' | 'relations' | 'online'>,
  viewerId: string,
  ids: readonly string[],
): Promise<Map<string, UserPublic>> {
  if (ids.length === 0) return new Map()
  const seen = await see(deps, viewerId, await store.selectProfiles(deps.db, [...new Set(ids)]))
  return new Map(seen.map(({ user }) => [user.id, user]))
}

/** One public profile. Rejects with `user_not_found`; a deleted account is still found. */
export async function publicUser(deps: UsersDeps, viewerId: string, id: string): Promise<UserPublic> {
  const user = (await publicUsers(deps, viewerId, [id])).get(id)
  if (!user) throw new AppError('user_not_found')
  return user
}

/**
 * Rejects with `user_not_found`, `user_blocked` where the viewer blocks this person, and `not_allowed` where they take
 * direct chats from contacts alone, or block the viewer: the two look alike.
 */
export async function checkReachable(
  deps: Pick<UsersDeps, 'relations'>,
  q: Queryable,
  viewerId: string,
  id: string,
): Promise<void> {
  const [row] = await store.selectExisting(q, [id])
  if (!row) throw new AppError('user_not_found')
  if (id === viewerId) return
  const { relation, blocks_viewer } = (await deps.relations(q, viewerId, [id])).get(id) ?? stranger
  if (relation === 'blocked') throw new AppError('user_blocked')
  if (blocks_viewer || (row.privacy_dm === 'contacts' && relation !== 'contact')) throw new AppError('not_allowed')
}

/** At most 20 people whose username or display name has `q` in it; the closest first. */
export async function searchUsers(deps: UsersDeps, viewerId: string, q: string): Promise<FoundUser[]> {
  const seen = await see(deps, viewerId, await store.searchProfiles(deps.db, q, maxFound))
  return seen.map(({ user, relation }) => ({ ...user, relation }))
}

/** Rejects with `username_taken`. A patch without any field changes nothing and is told to nobody. */
export async function updateMe(deps: UsersDeps, userId: string, patch: MePatch): Promise<Me> {
  const { privacy, ...fields } = patch
  if (Object.keys({ ...fields, ...privacy }).length === 0) return meOf(deps.db, userId)
  return changeMe(deps, userId, (tx) => store.updateMe(tx, userId, patch))
}

/**
 * Puts a picture in the place of another, or of none; `replaced` runs in the same transaction with the one before. Without
 * any, removing it changes nothing. Rejects with `user_not_found`.
 */
export async function setAvatar<T extends { url: string }>(
  deps: UsersDeps,
  userId: string,
  avatar: T | null,
  replaced: (tx: Queryable, before: T | null) => Promise<void>,
): Promise<Me> {
  const known = await meOf(deps.db, userId)
  if (avatar === null && known.avatar_url === null) return known
  return changeMe(deps, userId, async (tx) => {
    const before = await store.selectAvatar<T>(tx, userId)
    const me = await store.updateAvatar(tx, userId, avatar)
    if (me) await replaced(tx, before)
    return me
  })
}

/** A change of what is shown of somebody: under their clock, told to their devices. */
async function changeMe(deps: UsersDeps, userId: string, work: (tx: Queryable) => Promise<Me | undefined>): Promise<Me> {
  const { me, version } = await deps.db
    .transaction(async (tx) => {
      const version = await store.tickClock(tx, userId)
      const me = await work(tx)
      if (!me) throw new AppError('user_not_found')
      return { me, version }
    })
    .catch((error: unknown) => {
      throw asTaken(error)
    })
  deps.control.announce({ user_changed: userId })
  deps.tellUser(userId, { version, prev: version - 1, event: { type: 'me_updated', me } })
  return me
}

interface Proven {
  /** Null: the account has no password, and a code was shown. */
  hash: string | null
  code: CheckedCode | undefined
}

/**
 * What was shown belongs to the account: its password or, where it has none, a code sent to its phone. Rejects with
 * `wrong_password`, and with `rate_limited` after too many of those.
 */
async function checkProof(deps: UsersDeps, userId: string, { password, code }: Proof): Promise<Proven> {
  // Counted before the comparison: guesses that come at once do not pass together.
  await takeLimit(deps.limits, 'password', userId, deps.passwordRule)
  const { password_hash: hash = null, phone = null } = (await store.selectProofs(deps.db, userId)) ?? {}
  let proven: Proven | undefined
  if (password !== undefined) {
    if (await deps.passwords.matches(password, hash)) proven = { hash, code: undefined }
  } else if (code !== undefined && hash === null && phone !== null) {
    const checked = await deps.codes.check(phone, code)
    proven = checked && { hash, code: checked }
  }
  if (!proven) throw new AppError('wrong_password')
  await deps.limits.reset('password', userId)
  return proven
}

/** A code works once: of two who show it at the same moment, one gets on. */
async function useProof(deps: UsersDeps, tx: Queryable, { code }: Proven): Promise<void> {
  if (code && !(await deps.codes.use(tx, code))) throw new AppError('wrong_password')
}

/** Sets the first password too. Ends every other session of the user. Rejects with `wrong_password`. */
export async function changePassword(
  deps: UsersDeps,
  { user_id, session_id }: { user_id: string; session_id: string },
  { new_password, ...proof }: Proof & { new_password: string },
): Promise<void> {
  const proven = await checkProof(deps, user_id, proof)
  const replacement = await deps.passwords.hash(new_password)
  const { ended, version, me } = await deps.db.transaction(async (tx) => {
    await useProof(deps, tx, proven)
    // That there is a password now is seen in the profile.
    const version = proven.hash === null ? await store.tickClock(tx, user_id) : undefined
    const me = await store.replacePasswordHash(tx, user_id, proven.hash, replacement)
    if (!me) throw new AppError('wrong_password')
    return { ended: await deps.endSessions(tx, user_id, session_id), version, me }
  })
  if (ended.length > 0) deps.control.announce({ sessions_ended: ended })
  if (version !== undefined) deps.tellUser(user_id, { version, prev: version - 1, event: { type: 'me_updated', me } })
}

/** Blanks the profile and ends all sessions; messages stay. Rejects with `wrong_password`. */
export async function deleteAccount(deps: UsersDeps, userId: string, proof: Proof): Promise<void> {
  const proven = await checkProof(deps, userId, proof)
  const ended = await deps.db.transaction(async (tx) => {
    await useProof(deps, tx, proven)
    if (!(await store.blankUser(tx, userId, proven.hash, deletedName))) throw new AppError('wrong_password')
    return deps.endSessions(tx, userId)
  })
  deps.control.announce({ sessions_ended: ended, user_changed: userId })
  await deps.onDeleted(userId)
}

/** Does again what may have been cut short when these accounts were deleted. */
export async function sweepDeleted(deps: Pick<UsersDeps, 'db' | 'onDeleted'>): Promise<void> {
  for (const { id } of await store.selectRecentlyDeleted(deps.db)) await deps.onDeleted(id)
}

/** Ids by lower-case username; who does not exist is left out. */
export async function usersByName(db: Queryable, names: readonly string[]): Promise<Map<string, string>> {
  return new Map((await store.selectByName(db, names)).map(({ name, id }) => [name, id]))
}

/** Those of these who exist and are not deleted. */
export async function existingUsers(db: Queryable, ids: readonly string[]): Promise<Set<string>> {
  return new Set((await store.selectExisting(db, ids)).map(({ id }) => id))
}
