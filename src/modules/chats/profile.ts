import { type Queryable, sql } from '../../platform/db/db.ts'
import { AppError } from '../../platform/errors.ts'
import type { System } from '../../protocol/resources.ts'
import { type Change, changeChat, type LockedChat, tellListed, writeListed } from './change.ts'
import { neutralChat, updateChat } from './chat-row.ts'
import type { ChatDeps } from './deps.ts'
import { accessAsManager, accessShared } from './membership.ts'
import { moveSlug } from './slugs.ts'
import { deletedWithMembers, deleteSome } from './subscribers.ts'
import { accessChat } from './views.ts'

/** What a group or channel is called, and its end. */

export interface ProfilePatch {
  name?: string | undefined
  description?: string | undefined
  /** Null removes it. */
  slug?: string | null | undefined
  is_public?: boolean | undefined
}

/**
 * Owner and admins; who may see a channel is the owner's to say. Rejects with `slug_taken`, and with `not_a_channel` for a
 * group that is to be public. What is so already changes nothing.
 */
export async function editChat(deps: ChatDeps, actorId: string, chatId: string, patch: ProfilePatch): Promise<void> {
  await changeChat(deps, chatId, async (change) => {
    const mine = await accessAsManager(change, actorId)
    const { chat } = change
    if (patch.is_public !== undefined) {
      if (chat.type !== 'channel') throw new AppError('not_a_channel')
      if (mine !== 'owner') throw new AppError('forbidden')
    }
    const { name = chat.name, description = chat.description, slug = chat.slug, is_public = chat.is_public } = patch
    const said: Omit<System, 'actor_id'>[] = []
    if (name !== chat.name) said.push({ action: 'renamed', name: name ?? '' })
    if (description !== chat.description) said.push({ action: 'described' })
    if (slug !== chat.slug) said.push({ action: 'slug_changed', name: slug ?? '' })
    if (is_public !== chat.is_public) said.push({ action: is_public ? 'made_public' : 'made_private' })
    if (said.length === 0) return
    if (slug !== chat.slug) await moveSlug(change.tx, chatId, chat.slug, slug)
    await updateChat(change, { name, description, slug, is_public })
    for (const system of said) await change.addSystem(actorId, system)
  })
}

/**
 * Owner and admins put a picture in the place of another, or of none; `replaced` runs in the same transaction with the one
 * before. Without any, removing it changes nothing.
 */
export async function setChatAvatar(
  deps: ChatDeps,
  actorId: string,
  chatId: string,
  avatar: LockedChat['avatar'],
  replaced: (tx: Queryable, before: LockedChat['avatar']) => Promise<void>,
): Promise<void> {
  await changeChat(deps, chatId, async (change) => {
    await accessAsManager(change, actorId)
    const before = change.chat.avatar
    if (avatar === null && before === null) return
    await updateChat(change, { avatar })
    await replaced(change.tx, before)
    await change.addSystem(actorId, { action: 'avatar_changed' })
  })
}

/** Rejects as a change of the profile would. */
export async function checkMayEdit(deps: ChatDeps, actorId: string, chatId: string): Promise<void> {
  const { type, my_role } = await accessChat(deps, actorId, chatId)
  if (type === 'dm') throw new AppError('not_a_group')
  if (my_role !== 'owner' && my_role !== 'admin') throw new AppError('forbidden')
}

/** The owner deletes the group or channel for all. */
export async function deleteChat(deps: ChatDeps, actorId: string, chatId: string): Promise<void> {
  const type = await changeChat(deps, chatId, async (change) => {
    if ((await accessShared(change, actorId)) !== 'owner') throw new AppError('forbidden')
    await dissolve(change)
    return change.chat.type
  })
  // Whoever listens has heard that it is gone; their lists are put in order a few at a time, in the end by the sweep.
  if (type === 'channel')
    void emptyChannel(deps, chatId).catch((error: unknown) => deps.onError(error, 'a deleted channel could not be emptied'))
}

export async function dissolve(change: Change): Promise<void> {
  const { chat, tx } = change
  const version = change.nextVersion()
  await tx.query(sql`UPDATE chats SET deleted_at = now(), version = ${version} WHERE id = ${chat.id}`)
  if (chat.slug !== null) await moveSlug(tx, chat.id, chat.slug, null)
  if (chat.type !== 'channel') {
    const members = await tx.query<{ user_id: string }>(
      sql`SELECT user_id FROM chat_members WHERE chat_id = ${chat.id} AND left_at IS NULL`,
    )
    for (const { user_id } of members) change.setListed(user_id, false)
  }
  const told = neutralChat(chat)
  change.emitAt(
    version,
    [],
    () => ({ type: 'chat_updated', chat_id: chat.id, version, prev: version - 1, chat: told, deleted: true }),
    { gone: true },
  )
  change.bumpAcl()
}

/** Subscribers that are taken out in one transaction. */
const atOnce = 500

/** Takes a deleted channel out of the lists of all who were in it. What a crash leaves undone, the next call does. */
async function emptyChannel(deps: ChatDeps, chatId: string): Promise<void> {
  for (;;) {
    const listed = await deps.db.transaction(async (tx) => {
      const gone = await deleteSome(tx, chatId, atOnce)
      return writeListed(tx, chatId, new Map(gone.map((userId) => [userId, false])))
    })
    tellListed(deps, { id: chatId, type: 'channel' }, listed)
    if (listed.length < atOnce) return
  }
}

/** Finishes what `deleteChat` began. */
export async function sweepDeletedChannels(deps: ChatDeps): Promise<void> {
  for (const id of await deletedWithMembers(deps.db, 100)) await emptyChannel(deps, id)
}
