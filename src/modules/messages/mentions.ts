import { type Queryable, sql } from '../../platform/db/db.ts'
import type { MessageRow } from './rows.ts'

/** `@username` in a text, resolved to members of the chat. */

/** More in one message are plain text. */
const maxMentions = 50
// Not within a word, an address or a longer name: the rule of usernames decides where one ends.
const pattern = /(?<![A-Za-z0-9_@.])@([A-Za-z0-9_]{3,50})(?![A-Za-z0-9_@])/g

export function namesIn(content: string): string[] {
  if (!content.includes('@')) return []
  const names = new Set<string>()
  for (const [, name] of content.matchAll(pattern)) {
    names.add(name!.toLowerCase())
    if (names.size === maxMentions) break
  }
  return [...names]
}

export interface MentionDeps {
  db: Queryable
  /** Ids by lower-case username; who does not exist is left out. */
  usersByName(names: readonly string[]): Promise<Map<string, string>>
}

/** Other members called in this text, in its order. Keys of users and chat_members. */
export async function mentionsIn(deps: MentionDeps, chatId: string, senderId: string, content: string): Promise<string[]> {
  const names = namesIn(content)
  if (names.length === 0) return []
  const ids = [...(await deps.usersByName(names)).entries()]
    .sort(([a], [b]) => names.indexOf(a) - names.indexOf(b))
    .map(([, id]) => id)
    .filter((id) => id !== senderId)
  if (ids.length === 0) return []
  const members = await deps.db.query<{ user_id: string }>(sql`
    SELECT user_id FROM chat_members WHERE chat_id = ${chatId} AND user_id = ANY(${ids}::uuid[]) AND left_at IS NULL`)
  const present = new Set(members.map((member) => member.user_id))
  return ids.filter((id) => present.has(id))
}

/** Makes the rows of a message's mentions those of `mentions`. Resolves with everybody for whom that made a difference. */
export async function replaceMentions(tx: Queryable, row: MessageRow, mentions: readonly string[]): Promise<string[]> {
  const { chat_id, seq, sender_id } = row
  const before = row.mentions ?? []
  const gone = before.filter((id) => !mentions.includes(id))
  const added = mentions.filter((id) => !before.includes(id))
  if (gone.length > 0)
    await tx.query(
      sql`DELETE FROM message_mentions WHERE chat_id = ${chat_id} AND user_id = ANY(${gone}::uuid[]) AND seq = ${seq}`,
    )
  if (added.length > 0)
    await tx.query(sql`
      INSERT INTO message_mentions (chat_id, user_id, seq, sender_id)
      SELECT ${chat_id}::uuid, user_id, ${seq}::bigint, ${sender_id}::uuid FROM unnest(${added}::uuid[]) AS t(user_id)`)
  return [...gone, ...added]
}
