import { type Queryable, sql } from '../../platform/db/db.ts'
import { escapeLike } from '../../platform/db/like.ts'
import { AppError } from '../../platform/errors.ts'
import { newId } from '../../platform/ids.ts'
import type { Chat } from '../../protocol/resources.ts'
import { changeChat } from './change.ts'
import type { ChatDeps } from './deps.ts'
import { leaveChat } from './groups.ts'
import { join, subscribe } from './membership.ts'
import { moveSlug } from './slugs.ts'
import { accessChat, chatViews, readableRows } from './views.ts'

/** Channels: a few write, any number read. What a channel costs does not depend on how many they are. */

/** Makes the channel with its owner; resolves with its id. Rejects with `slug_taken`. */
export async function createChannel(
  deps: ChatDeps,
  actorId: string,
  input: { name: string; description: string; slug?: string | null | undefined; is_public: boolean },
): Promise<string> {
  const id = newId()
  const { name, description, slug = null, is_public } = input
  await changeChat(
    deps,
    id,
    async (change) => {
      await join(change, [{ user_id: actorId, role: 'owner' }])
      await change.addSystem(actorId, { action: 'channel_created', name })
    },
    async (tx) => {
      await moveSlug(tx, id, null, slug)
      await tx.query(sql`
        INSERT INTO chats (id, type, name, description, slug, is_public, owner_id)
        VALUES (${id}, 'channel', ${name}, ${description}, ${slug}, ${is_public}, ${actorId})`)
      await tx.query(sql`INSERT INTO chat_counters (chat_id) VALUES (${id})`)
    },
  )
  return id
}

/**
 * Anybody, to a public channel; into a private one an invite link leads. Resolves with whether they were not in yet. Rejects
 * with `chat_not_found`, and with `not_a_channel` for a member of another chat.
 */
export async function subscribeTo(deps: ChatDeps, userId: string, chatId: string): Promise<boolean> {
  return changeChat(deps, chatId, async (change) => {
    const { type, is_public } = change.chat
    if ((await change.roleOf(userId)) !== undefined) {
      if (type !== 'channel') throw new AppError('not_a_channel')
      return false
    }
    if (type !== 'channel' || !is_public) throw new AppError('chat_not_found')
    return subscribe(change, userId)
  })
}

/** As leaving; who is not in is left as they are. Rejects with `chat_not_found`, `not_a_channel` and `transfer_first`. */
export async function unsubscribeFrom(deps: ChatDeps, userId: string, chatId: string): Promise<void> {
  const { type, my_role } = await accessChat(deps, userId, chatId)
  if (type !== 'channel') throw new AppError('not_a_channel')
  if (my_role === null) return
  try {
    await leaveChat(deps, userId, chatId)
  } catch (error) {
    // Of a public channel: they were out already.
    if (!(error instanceof AppError && error.code === 'forbidden')) throw error
  }
}

/** How far a listing came: the biggest come first, and of as big ones the older. */
export interface Position {
  member_count: number
  id: string
}

/**
 * Public channels whose name, slug or description holds `q` somewhere, in any case. Index chats_directory where `q` has
 * three characters at least; all public channels are sorted else.
 */
async function directory(q: Queryable, text: string, after: Position | undefined, limit: number): Promise<Position[]> {
  const pattern = `%${escapeLike(text)}%`
  const filter =
    text === ''
      ? sql``
      : sql`AND (lower(c.name) LIKE lower(${pattern}::text) OR c.slug LIKE lower(${pattern}::text) OR lower(c.description) LIKE lower(${pattern}::text))`
  const page =
    after === undefined ? sql`` : sql`AND (-k.member_count, c.id) > (${-after.member_count}::integer, ${after.id}::uuid)`
  return q.query<Position>(sql`
    SELECT c.id, k.member_count FROM chats c JOIN chat_counters k ON k.chat_id = c.id
    WHERE c.type = 'channel' AND c.is_public AND c.deleted_at IS NULL ${filter} ${page}
    ORDER BY -k.member_count, c.id LIMIT ${limit}`)
}

export async function listChannels(
  deps: ChatDeps,
  viewerId: string,
  options: { q: string; limit: number; after?: Position | undefined },
): Promise<{ channels: Chat[]; has_more: boolean; next_cursor: string | null }> {
  const found = await directory(deps.db, options.q, options.after, options.limit + 1)
  const page = found.slice(0, options.limit)
  const has_more = found.length > options.limit
  const rows = new Map(
    (
      await readableRows(
        deps.db,
        viewerId,
        page.map(({ id }) => id),
      )
    ).map((row) => [row.chat_id, row]),
  )
  const channels = await chatViews(
    deps,
    deps.db,
    viewerId,
    page.map(({ id }) => rows.get(id)).filter((row) => row !== undefined),
  )
  const last = page.at(-1)
  return { channels, has_more, next_cursor: has_more && last ? `${last.member_count}.${last.id}` : null }
}
