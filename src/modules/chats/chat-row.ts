import { sql } from '../../platform/db/db.ts'
import type { Effect } from '../../platform/news.ts'
import type { ChatEvent } from '../../protocol/resources.ts'
import type { Change, LockedChat } from './change.ts'

/** A chat's own row: as everyone sees it, and its changes. */

export const neutralChat = (chat: LockedChat): ChatEvent => ({
  id: chat.id,
  type: chat.type,
  name: chat.name,
  description: chat.description,
  avatar_url: chat.avatar?.url ?? null,
  slug: chat.slug,
  owner_id: chat.owner_id,
  is_public: chat.is_public,
  member_count: chat.member_count,
  created_at: chat.created_at,
})

export type ChatPatch = Partial<Pick<LockedChat, 'name' | 'description' | 'avatar' | 'owner_id' | 'slug' | 'is_public'>>

/** Writes the chat's own row and tells it. */
export async function updateChat(change: Change, patch: ChatPatch): Promise<void> {
  const { chat, tx } = change
  const version = change.nextVersion()
  Object.assign(chat, patch)
  await tx.query(sql`
    UPDATE chats SET name = ${chat.name}, description = ${chat.description}, avatar = ${chat.avatar && JSON.stringify(chat.avatar)}::jsonb, owner_id = ${chat.owner_id}, slug = ${chat.slug},
      is_public = ${chat.is_public}, version = ${version}
    WHERE id = ${chat.id}`)
  tellChat(change, version)
}

/** Tells the chat as it is now, under the version that its row has. */
export function tellChat({ chat, emitAt }: Change, version: number, effect?: Effect): void {
  const told = neutralChat(chat)
  emitAt(version, [], () => ({ type: 'chat_updated', chat_id: chat.id, version, prev: version - 1, chat: told }), effect)
}
