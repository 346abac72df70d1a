import type { Db } from '../../platform/db/db.ts'
import type { LimitRule, Limits } from '../../platform/limits/limits.ts'
import type { News } from '../../platform/news.ts'
import type { UserBrief } from '../../protocol/resources.ts'
import type { AclCache } from '../chats/index.ts'
import type { Writer } from './writer.ts'

export interface MessageDeps {
  db: Db
  news: News
  acl: AclCache
  writer: Writer
  limits: Limits
  messageRule: LimitRule
  briefs(ids: readonly string[]): Promise<Map<string, UserBrief>>
}
