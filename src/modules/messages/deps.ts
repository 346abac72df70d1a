import type { Db, Queryable } from '../../platform/db/db.ts'
import type { LimitRule, Limits } from '../../platform/limits/limits.ts'
import type { News } from '../../platform/news.ts'
import type { UserBrief } from '../../protocol/resources.ts'
import type { AclCache, ChatDeps } from '../chats/index.ts'
import type { MessageRow } from './rows.ts'
import type { Writer } from './writer.ts'

export interface MessageDeps {
  db: Db
  chats: ChatDeps
  news: News
  acl: AclCache
  writer: Writer
  limits: Limits
  messageRule: LimitRule
  briefs(ids: readonly string[]): Promise<Map<string, UserBrief>>
  /** Ids by lower-case username; who does not exist is left out. */
  usersByName(names: readonly string[]): Promise<Map<string, string>>
  /** Hook: the text of a message was edited, or is gone; in the same transaction. */
  onTextChanged(tx: Queryable, message: Pick<MessageRow, 'chat_id' | 'seq' | 'sender_id' | 'content'>): Promise<void>
}
