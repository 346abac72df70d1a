import { AppError } from '../../platform/errors.ts'
import { newId } from '../../platform/ids.ts'
import { invalid } from '../../platform/input.ts'
import { takeLimit } from '../../platform/limits/take.ts'
import type { ContactRequest, UserPublic } from '../../protocol/resources.ts'
import { existingUsers, lockClocks } from '../users/index.ts'
import { changePair, type Pair } from './change.ts'
import type { ContactDeps } from './deps.ts'
import { selectByRequest, selectTied } from './store.ts'
import { requestResource } from './views.ts'

/** Requests and contacts. Every rule is decided under both clocks, so that what crosses meets. */

export type RequestAnswer = ContactRequest & { relation: 'requested' | 'contact' }

/**
 * Asks somebody to be a contact. Asking again is the same request; if the other one has asked already, the two are contacts
 * at once. Rejects with `invalid_input` (oneself), `user_not_found`, `already_contacts`, `user_blocked`, `not_allowed` and
 * `rate_limited`.
 */
export async function requestContact(
  deps: ContactDeps,
  userId: string,
  otherId: string,
): Promise<{ answer: RequestAnswer; created: boolean }> {
  if (userId === otherId) throw invalid('user_id', 'is yourself')
  await takeLimit(deps.limits, 'contact', userId, deps.contactRule)
  const { result, mine } = await changePair(deps, userId, otherId, async (pair) => {
    const { mine, theirs } = pair
    await checkBothExist(pair)
    if (mine.blocked) throw new AppError('user_blocked')
    if (mine.state === 'contact') throw new AppError('already_contacts')
    if (mine.state === 'requested') return { crossed: undefined, created: false }
    if (mine.state === 'incoming') {
      becomeContacts(pair)
      return { crossed: mine, created: false }
    }
    // After what was there before they blocked me: only a new request meets the block.
    if (theirs.blocked) throw new AppError('not_allowed')
    const request_id = newId()
    pair.set('mine', { state: 'requested', request_id })
    pair.set('theirs', { state: 'incoming', request_id }, 'contact_request')
    return { crossed: undefined, created: true }
  })
  const { crossed, created } = result
  if (crossed) deps.sightChanged(userId, otherId)
  const request = requestResource(crossed ?? mine, await profile(deps, userId, otherId))
  return { answer: { ...request, relation: crossed ? 'contact' : 'requested' }, created }
}

/** Accounts may go at any moment: an account that is being deleted takes what is between people along under the same locks. */
async function checkBothExist({ tx, mine }: Pair): Promise<void> {
  if ((await existingUsers(tx, [mine.user_id, mine.other_id])).size < 2) throw new AppError('user_not_found')
}

function becomeContacts(pair: Pair): void {
  for (const side of ['mine', 'theirs'] as const) pair.set(side, { state: 'contact', request_id: null }, 'contact_accepted')
}

function part(pair: Pair): void {
  for (const side of ['mine', 'theirs'] as const) pair.set(side, { state: 'none', request_id: null })
}

const profile = async (deps: ContactDeps, viewerId: string, id: string): Promise<UserPublic> =>
  (await deps.publicUsers(viewerId, [id])).get(id)!

/** The one who was asked. Resolves with the new contact. Rejects with `request_not_found`, or `user_blocked` where they block who asked. */
export async function acceptRequest(deps: ContactDeps, userId: string, requestId: string): Promise<UserPublic> {
  const otherId = await otherOf(deps, userId, requestId)
  await changePair(deps, userId, otherId, async (pair) => {
    const { mine } = pair
    if (mine.request_id !== requestId || mine.state !== 'incoming') throw new AppError('request_not_found')
    if (mine.blocked) throw new AppError('user_blocked')
    becomeContacts(pair)
  })
  deps.sightChanged(userId, otherId)
  return profile(deps, userId, otherId)
}

/** Who was asked rejects it, who asked takes it back. Rejects with `request_not_found`. */
export async function dropRequest(deps: ContactDeps, userId: string, requestId: string): Promise<void> {
  const otherId = await otherOf(deps, userId, requestId)
  await changePair(deps, userId, otherId, (pair) => {
    if (pair.mine.request_id !== requestId) throw new AppError('request_not_found')
    part(pair)
  })
}

/** Between whom a request is never changes, so no lock is needed. */
async function otherOf(deps: ContactDeps, userId: string, requestId: string): Promise<string> {
  const row = await selectByRequest(deps.db, userId, requestId)
  if (!row) throw new AppError('request_not_found')
  return row.other_id
}

/** On both sides; their chats stay. Rejects with `contact_not_found`. */
export async function removeContact(deps: ContactDeps, userId: string, otherId: string): Promise<void> {
  await changePair(deps, userId, otherId, (pair) => {
    if (pair.mine.state !== 'contact') throw new AppError('contact_not_found')
    part(pair)
  })
}

/**
 * A deleted account is nobody's contact and waits for nothing. Pair by pair, each a change of its own: what a crash leaves
 * undone, the next call does. That somebody blocks them stays, so that what is not counted as unread is not counted now.
 */
export async function forgetUser(deps: ContactDeps, userId: string): Promise<void> {
  // Requests that found the account still there hold its clock: they are waited for, and those that come later find it gone.
  await deps.db.transaction((tx) => lockClocks(tx, [userId]))
  for (const { other_id } of await selectTied(deps.db, userId)) await changePair(deps, userId, other_id, part)
}
