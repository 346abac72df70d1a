import { newId } from '../../platform/ids.ts'
import { type SquareSize, squareImages } from '../../platform/images.ts'
import type { Chat, Me } from '../../protocol/resources.ts'
import type { Avatar, MediaDeps, Replaced } from './deps.ts'
import * as store from './store.ts'

/** Pictures of people, groups and channels: squares in two sizes. */

/** Bytes of a picture that is sent to be one. */
export const maxAvatarBytes = 10 * 2 ** 20

const sizes: readonly SquareSize[] = ['large', 'small']
export const fileOf = (path: string, size: SquareSize) => `${path}_${size}.webp`

/** Rejects with `unsupported_media_type`, `invalid_image`, `overloaded`. */
export function setMyAvatar(deps: MediaDeps, userId: string, file: string): Promise<Me> {
  return keep(deps, file, { user_id: userId }, (avatar, replaced) => deps.setUserAvatar(userId, avatar, replaced))
}

/** Owner and admins. Rejects as `setMyAvatar` does, and as a change of the chat's profile. */
export function setChatAvatar(deps: MediaDeps, actorId: string, chatId: string, file: string): Promise<Chat> {
  return keep(deps, file, { chat_id: chatId }, (avatar, replaced) => deps.setChatAvatar(actorId, chatId, avatar, replaced))
}

export const removeMyAvatar = (deps: MediaDeps, userId: string): Promise<Me> => deps.setUserAvatar(userId, null, release)

export const removeChatAvatar = (deps: MediaDeps, actorId: string, chatId: string): Promise<Chat> =>
  deps.setChatAvatar(actorId, chatId, null, release)

async function keep<T>(
  deps: MediaDeps,
  file: string,
  owner: store.Owner,
  use: (avatar: Avatar, replaced: Replaced) => Promise<T>,
): Promise<T> {
  const images = await squareImages(file)
  const id = newId()
  const path = `uploads/${new Date().toISOString().slice(0, 10).replaceAll('-', '/')}/${id}`
  // The row comes first: what a crash, or a refusal, leaves of the rest is swept as unused.
  await store.insertAvatar(deps.db, { id, path }, owner)
  for (const size of sizes) await deps.storage.write(fileOf(path, size), images[size])
  return use({ id, url: `/api/v1/media/${path}.webp` }, async (tx, before) => {
    await release(tx, before)
    await store.setInUse(tx, id, true)
  })
}

const release: Replaced = async (tx, before) => {
  if (before) await store.setInUse(tx, before.id, false)
}

/**
 * The picture's bytes; undefined where it is none in use, or not for this viewer to see: of people it is for everybody who
 * is signed in, of a group or channel for those who may read it.
 */
export async function avatarFor(
  deps: MediaDeps,
  viewerId: string,
  { path, id, size }: { path: string; id: string; size: SquareSize },
): Promise<Buffer | undefined> {
  const owner = await store.selectOwner(deps.db, id, path, viewerId)
  if (!owner) return undefined
  if (owner.chat_id !== undefined && !(await deps.maySeeChat(viewerId, owner.chat_id))) return undefined
  return deps.storage.read(fileOf(path, size))
}

const sweptAtOnce = 200

/** Removes the files, then the rows, of what has been unused for the time that such files are kept. */
export async function sweepAvatars(deps: Pick<MediaDeps, 'db' | 'storage' | 'retentionMs'>): Promise<void> {
  await store.releaseDeleted(deps.db)
  for (;;) {
    const unused = await store.selectUnused(deps.db, deps.retentionMs, sweptAtOnce)
    for (const { id, path } of unused) {
      for (const size of sizes) await deps.storage.remove(fileOf(path, size))
      await store.deleteAvatar(deps.db, id)
    }
    if (unused.length < sweptAtOnce) return
  }
}
