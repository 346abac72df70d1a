import type { Db, Queryable } from '../../platform/db/db.ts'
import type { LimitRule, Limits } from '../../platform/limits/limits.ts'
import type { News } from '../../platform/news.ts'
import type { UserPublic } from '../../protocol/resources.ts'

/** What contacts need, and the hooks that modules above fill. */
export interface ContactDeps {
  db: Db
  news: News
  limits: Limits
  contactRule: LimitRule
  onError: (error: unknown, what: string) => void
  /** Profiles as `viewerId` may see them. */
  publicUsers(viewerId: string, ids: readonly string[]): Promise<Map<string, UserPublic>>
  /** Who of these is connected. */
  online(ids: readonly string[]): Promise<Set<string>>
  /** Hook: the direct chat between these two, undefined where there is none. */
  findDm(q: Queryable, userId: string, otherId: string): Promise<string | undefined>
  /** Hook: holds the lock of this chat until the transaction ends. */
  lockChat(tx: Queryable, chatId: string): Promise<void>
  /**
   * Hook: `userId` blocks `otherId`, or does so no longer; in the same transaction, under the locks of their direct chat (if
   * there is one) and of both clocks. What it resolves with is called after the commit.
   */
  blockChanged(tx: Queryable, userId: string, otherId: string, dm: string | undefined): Promise<() => void>
  /** Hook, after the commit: what these two may see of each other's coming and going has changed. */
  sightChanged(userId: string, otherId: string): void
}
