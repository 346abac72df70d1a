import { randomBytes } from 'node:crypto'
import { type Queryable, sql } from '../../platform/db/db.ts'
import { AppError } from '../../platform/errors.ts'
import { changeChat } from './change.ts'
import type { ChatDeps } from './deps.ts'
import { accessAsManager, join, subscribe } from './membership.ts'
import { accessChat } from './views.ts'

/**
 * Links into a group or channel. Whoever has one may come in while it lives: not expired, not revoked, not used up. All
 * links that do not live are the same to those who try them.
 */

/** Live links of one chat. */
const maxLive = 100

export interface InviteRow {
  code: string
  created_by: string
  created_at: string
  expires_at: string | null
  max_uses: number | null
  uses: number
}

const columns = sql`i.code, i.created_by, i.created_at, i.expires_at, i.max_uses, i.uses`
const isLive = sql`i.revoked_at IS NULL AND (i.expires_at IS NULL OR i.expires_at > now()) AND (i.max_uses IS NULL OR i.uses < i.max_uses)`

/** Owner and admins. Rejects with `too_many_invites`. */
export async function createInvite(
  deps: ChatDeps,
  actorId: string,
  chatId: string,
  input: { max_uses?: number | undefined; expires_in?: number | undefined },
): Promise<InviteRow> {
  const code = randomBytes(16).toString('base64url')
  return changeChat(deps, chatId, async (change) => {
    await accessAsManager(change, actorId)
    const live = await liveInvites(change.tx, chatId, undefined, maxLive)
    if (live.length >= maxLive) throw new AppError('too_many_invites')
    const [row] = await change.tx.query<InviteRow>(sql`
      INSERT INTO chat_invites AS i (code, chat_id, created_by, expires_at, max_uses)
      VALUES (${code}, ${chatId}, ${actorId}, now() + ${input.expires_in ?? null}::integer * interval '1 second', ${input.max_uses ?? null})
      RETURNING ${columns}`)
    return row!
  })
}

/** Newest first, after the one with this code. Index chat_invites_of_chat. */
async function liveInvites(q: Queryable, chatId: string, after: string | undefined, limit: number): Promise<InviteRow[]> {
  const page =
    after === undefined
      ? sql``
      : sql`AND (i.created_at, i.code) < (SELECT created_at, code FROM chat_invites WHERE code = ${after} AND chat_id = ${chatId})`
  return q.query<InviteRow>(sql`
    SELECT ${columns} FROM chat_invites i WHERE i.chat_id = ${chatId} AND ${isLive} ${page}
    ORDER BY i.created_at DESC, i.code DESC LIMIT ${limit}`)
}

async function checkManager(deps: ChatDeps, actorId: string, chatId: string): Promise<void> {
  const { type, my_role } = await accessChat(deps, actorId, chatId)
  if (type === 'dm') throw new AppError('not_a_group')
  if (my_role !== 'owner' && my_role !== 'admin') throw new AppError('forbidden')
}

export async function listInvites(
  deps: ChatDeps,
  actorId: string,
  chatId: string,
  options: { limit: number; cursor?: string | undefined },
): Promise<{ rows: InviteRow[]; has_more: boolean; next_cursor: string | null }> {
  await checkManager(deps, actorId, chatId)
  const found = await liveInvites(deps.db, chatId, options.cursor, options.limit + 1)
  const rows = found.slice(0, options.limit)
  const has_more = found.length > options.limit
  return { rows, has_more, next_cursor: has_more ? rows.at(-1)!.code : null }
}

/** From now on nobody comes in by it: whoever is coming in holds the chat's lock. Rejects with `invite_not_found`. */
export async function revokeInvite(deps: ChatDeps, actorId: string, chatId: string, code: string): Promise<void> {
  await changeChat(deps, chatId, async (change) => {
    await accessAsManager(change, actorId)
    const [row] = await change.tx.query(sql`
      UPDATE chat_invites i SET revoked_at = now() WHERE i.code = ${code} AND i.chat_id = ${chatId} AND ${isLive} RETURNING i.code`)
    if (!row) throw new AppError('invite_not_found')
  })
}

/** Key of chat_invites. */
async function chatOf(q: Queryable, code: string): Promise<string> {
  const [row] = await q.query<{ chat_id: string }>(sql`SELECT chat_id FROM chat_invites WHERE code = ${code}`)
  if (!row) throw new AppError('invite_not_found')
  return row.chat_id
}

/**
 * Whoever is in already uses nothing, and may ask again, the link used up by themselves or not. Somebody who was removed
 * comes back by a link that still lives: who is to stay out has it revoked. Rejects with `invite_not_found`, `group_full`.
 */
export async function joinByInvite(deps: ChatDeps, userId: string, code: string): Promise<{ chat_id: string; joined: boolean }> {
  const chat_id = await chatOf(deps.db, code)
  try {
    const joined = await changeChat(deps, chat_id, async (change) => {
      const { tx, chat } = change
      if ((await change.roleOf(userId)) !== undefined) return false
      const [invite] = await tx.query<{ created_by: string }>(sql`
        UPDATE chat_invites i SET uses = i.uses + 1 WHERE i.code = ${code} AND i.chat_id = ${chat_id} AND ${isLive} RETURNING i.created_by`)
      if (!invite) throw new AppError('invite_not_found')
      if (chat.type === 'channel') return subscribe(change, userId)
      if (chat.member_count >= deps.groupMaxMembers) throw new AppError('group_full')
      await join(change, [{ user_id: userId, role: 'member' }])
      await change.addSystem(userId, { action: 'joined_by_invite', target_id: invite.created_by })
      return true
    })
    return { chat_id, joined }
  } catch (error) {
    throw error instanceof AppError && error.code === 'chat_not_found' ? new AppError('invite_not_found') : error
  }
}

/**
 * Links that have been dead for a month, those of deleted chats too: so long, who came in by one may ask again. Those that
 * are used up stay, as nobody knows since when. Read whole, as there are few and it is rarely done.
 */
export async function sweepInvites(db: Queryable): Promise<void> {
  await db.query(sql`
    DELETE FROM chat_invites i USING chats c
    WHERE c.id = i.chat_id AND least(i.expires_at, i.revoked_at, c.deleted_at) < now() - interval '30 days'`)
}

export interface Preview {
  type: 'group' | 'channel'
  name: string | null
  description: string
  avatar_url: string | null
  member_count: number
  /** Null for whoever is not in. */
  chat_id: string | null
}

/** What somebody with a link sees before they come in. Keys of chat_invites and chat_members. */
export async function previewInvite(deps: ChatDeps, userId: string, code: string): Promise<Preview> {
  const [row] = await deps.db.query<Preview>(sql`
    SELECT c.type, c.name, c.description, k.member_count, m.chat_id,
      -- A picture is for those who may see the chat.
      CASE WHEN c.is_public OR m.chat_id IS NOT NULL THEN c.avatar->>'url' END AS avatar_url
    FROM chat_invites i JOIN chats c ON c.id = i.chat_id AND c.deleted_at IS NULL JOIN chat_counters k ON k.chat_id = i.chat_id
    LEFT JOIN chat_members m ON m.chat_id = i.chat_id AND m.user_id = ${userId} AND m.left_at IS NULL
    WHERE i.code = ${code} AND (m.chat_id IS NOT NULL OR (${isLive}))`)
  if (!row) throw new AppError('invite_not_found')
  return row
}
