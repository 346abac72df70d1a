import type { Db, Queryable } from '../../platform/db/db.ts'
import type { Authenticate } from '../../platform/identity.ts'
import type { Storage } from '../../platform/storage.ts'
import type { Chat, Me } from '../../protocol/resources.ts'

/** A picture in use, as it stands in the row of whom it shows. */
export interface Avatar {
  id: string
  url: string
}

/** In the transaction that puts a picture in the place of another. */
export type Replaced = (tx: Queryable, before: Avatar | null) => Promise<void>

/** What pictures need, and the hooks that the modules of those who have them fill. */
export interface MediaDeps {
  db: Db
  storage: Storage
  /** Signs links. */
  signKey: Buffer
  authenticate: Authenticate
  /** Files that nothing refers to any more are kept so long. */
  retentionMs: number
  setUserAvatar(userId: string, avatar: Avatar | null, replaced: Replaced): Promise<Me>
  /** Rejects with what a change of the chat's profile is refused with. */
  setChatAvatar(actorId: string, chatId: string, avatar: Avatar | null, replaced: Replaced): Promise<Chat>
  /** Rejects as `setChatAvatar` would, before anything is uploaded. */
  checkMayEditChat(actorId: string, chatId: string): Promise<void>
  maySeeChat(userId: string, chatId: string): Promise<boolean>
}
