import type { Db, Queryable } from '../../platform/db/db.ts'
import type { News } from '../../platform/news.ts'
import type { Chat, Message, UserBrief, UserPublic } from '../../protocol/resources.ts'
import type { AclCache } from './acl.ts'
import type { CursorRow } from './members.ts'

/** What a chat shows of its messages; the messages module answers it. */
export interface Summary {
  last_message: Message | null
  unread_count: number
  mention_count: number
}

/** `version`: the chat's when this was counted; left out where nothing comes after the cursor. */
export type Unread = Pick<Summary, 'unread_count' | 'mention_count'> & { version?: number }

/** What was read already, by chat: cursors of its members, and its last message where there is one to be shown. */
export interface Known {
  cursors: ReadonlyMap<string, readonly CursorRow[]>
  last: ReadonlyMap<string, Message>
}

/** Where a viewer stands in a chat. */
export interface Standing {
  chat_id: string
  type: Chat['type']
  last_seq: number
  read_seq: number
  cleared_seq: number
}

export interface ChatDeps {
  db: Db
  news: News
  acl: AclCache
  groupMaxMembers: number
  onError: (error: unknown, what: string) => void
  briefs(ids: readonly string[]): Promise<Map<string, UserBrief>>
  /** Those of these users who exist and are not deleted. */
  existingUsers(ids: readonly string[]): Promise<Set<string>>
  /** Rejects with `user_not_found`, `not_allowed` or `user_blocked` where this person may not begin a direct chat with that one. */
  checkReachable(q: Queryable, actorId: string, peerId: string): Promise<void>
  publicUsers(viewerId: string, ids: readonly string[]): Promise<Map<string, UserPublic>>
  /** Hook: the last message and the unread count of each chat, in a bounded number of queries. */
  summaries(q: Queryable, viewerId: string, standings: readonly Standing[], known?: Known): Promise<Map<string, Summary>>
  /** Hook: the unread counts alone. */
  unread(q: Queryable, viewerId: string, standings: readonly Standing[]): Promise<Map<string, Unread>>
  /** Hook: who wrote the messages in each range, with the range's last message id; by position. */
  authorsOf(
    q: Queryable,
    ranges: readonly { chat_id: string; after: number; until: number }[],
  ): Promise<{ sender_id: string; last_id: string }[][]>
}
