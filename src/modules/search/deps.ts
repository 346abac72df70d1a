import type { Db } from '../../platform/db/db.ts'
import type { UserBrief } from '../../protocol/resources.ts'
import type { ChatDeps } from '../chats/index.ts'
import type { UsersDeps } from '../users/index.ts'

export interface SearchDeps {
  db: Db
  chats: ChatDeps
  users: UsersDeps
  briefs(ids: readonly string[]): Promise<Map<string, UserBrief>>
}
