import { type Queryable, type Sql, sql } from '../../platform/db/db.ts'
import { AppError } from '../../platform/errors.ts'
import type { Chat, ChatType, Member, Role } from '../../protocol/resources.ts'
import type { ChatDeps, Known } from './deps.ts'
import { activeMembers, type MemberRow, memberResource, membersPage } from './members.ts'
import { type MyRow, myResource } from './mine.ts'
import { chatBySlug } from './slugs.ts'

/** Chats as one member sees them. However many chats, the number of queries is the same. */

export interface ChatRow extends MyRow {
  name: string | null
  description: string
  avatar_url: string | null
  slug: string | null
  owner_id: string | null
  created_at: string
  member_count: number
  version: number
  is_public: boolean
  /** Null where a public channel is only looked at. */
  my_role: Role | null
  peer_id: string | null
  /** The user's clock at the last change of what is theirs in this chat. */
  my_version: number
}

/** These chats of this user; those that are not theirs are left out. Keys of the tables. */
export function chatRows(q: Queryable, userId: string, chatIds: readonly string[]): Promise<ChatRow[]> {
  return selectRows(q, userId, sql`u.chat_id = ANY(${chatIds}::uuid[])`)
}

function selectRows(q: Queryable, userId: string, which: Sql): Promise<ChatRow[]> {
  return q.query<ChatRow>(sql`
    SELECT c.id AS chat_id, c.type, c.name, c.description, c.avatar->>'url' AS avatar_url, c.slug, c.owner_id, c.created_at, c.is_public, k.member_count, k.last_seq, k.version,
      m.role AS my_role, m.read_seq, m.delivered_seq, u.archived_seq, u.pinned_at, u.muted_until, u.cleared_seq, u.version AS my_version,
      CASE WHEN c.type = 'dm' THEN coalesce(
        (SELECT p.user_id FROM chat_members p WHERE p.chat_id = c.id AND p.user_id <> u.user_id LIMIT 1), u.user_id) END AS peer_id
    FROM user_chats u
    JOIN chats c ON c.id = u.chat_id AND c.deleted_at IS NULL
    JOIN chat_counters k ON k.chat_id = u.chat_id
    JOIN chat_members m ON m.chat_id = u.chat_id AND m.user_id = u.user_id AND m.left_at IS NULL
    WHERE u.user_id = ${userId} AND u.is_member AND ${which}`)
}

/**
 * These chats of this user, and public channels that they have not subscribed to: those are shown as to somebody who comes
 * just now, with everything read. Keys of the tables.
 */
export async function readableRows(q: Queryable, userId: string, chatIds: readonly string[]): Promise<ChatRow[]> {
  const mine = await chatRows(q, userId, chatIds)
  const others = chatIds.filter((id) => !mine.some((row) => row.chat_id === id))
  if (others.length === 0) return mine
  const open = await q.query<ChatRow>(sql`
    SELECT c.id AS chat_id, c.type, c.name, c.description, c.avatar->>'url' AS avatar_url, c.slug, c.owner_id, c.created_at, c.is_public, k.member_count, k.last_seq, k.version,
      NULL::text AS my_role, k.last_seq AS read_seq, k.last_seq AS delivered_seq, NULL::bigint AS archived_seq, NULL::timestamptz AS pinned_at,
      NULL::timestamptz AS muted_until, 0::bigint AS cleared_seq, 0::bigint AS my_version, NULL::uuid AS peer_id
    FROM chats c JOIN chat_counters k ON k.chat_id = c.id
    WHERE c.id = ANY(${others}::uuid[]) AND c.type = 'channel' AND c.is_public AND c.deleted_at IS NULL`)
  return [...mine, ...open]
}

/** In the order of `rows`. */
export async function chatViews(
  deps: ChatDeps,
  q: Queryable,
  userId: string,
  rows: readonly ChatRow[],
  known?: Known,
): Promise<Chat[]> {
  const peerIds = [...new Set(rows.map((row) => row.peer_id).filter((id) => id !== null))]
  const [summaries, peers] = await Promise.all([
    deps.summaries(q, userId, rows, known),
    // On a connection of its own: `q` may be a single one.
    deps.publicUsers(userId, peerIds),
  ])
  return rows.map((row) => {
    const { last_message, unread_count, mention_count } = summaries.get(row.chat_id)!
    const peer = row.peer_id === null ? null : (peers.get(row.peer_id) ?? null)
    return {
      id: row.chat_id,
      type: row.type,
      name: row.type === 'dm' ? (peer?.username ?? peer?.display_name ?? null) : row.name,
      description: row.description,
      avatar_url: row.type === 'dm' ? (peer?.avatar_url ?? null) : row.avatar_url,
      slug: row.slug,
      owner_id: row.owner_id,
      is_public: row.is_public,
      member_count: row.member_count,
      created_at: row.created_at,
      peer,
      my_role: row.my_role,
      last_seq: row.last_seq,
      version: row.version,
      last_message,
      last_message_at: last_message?.created_at ?? null,
      unread_count,
      mention_count,
      my: myResource(row),
    }
  })
}

type ListKey = Pick<ChatRow, 'chat_id' | 'pinned_at'> & { at: string }

const byPlace = (a: ListKey, b: ListKey): number =>
  Number(b.pinned_at !== null) - Number(a.pinned_at !== null) ||
  (a.at < b.at ? 1 : a.at > b.at ? -1 : a.chat_id < b.chat_id ? 1 : -1)

/** Pinned first, then by latest message; `count` counts them all, `after` is the id of the last chat of the page before. */
export async function listChats(
  deps: ChatDeps,
  userId: string,
  options: { archived: boolean; limit: number; after?: string | undefined },
) {
  const rows = await selectRows(deps.db, userId, sql`true`)
  const listed = rows.filter(
    (row) => (row.last_seq > row.cleared_seq || row.cleared_seq === 0) && myResource(row).archived === options.archived,
  )
  if (listed.length <= options.limit && options.after === undefined) {
    // The usual case: all of them are told, and their last messages say how they follow on each other.
    const chats = await chatViews(deps, deps.db, userId, listed)
    const pins = new Map(listed.map((row) => [row.chat_id, row.pinned_at]))
    const keyOf = (chat: Chat) => ({
      chat_id: chat.id,
      pinned_at: pins.get(chat.id) ?? null,
      at: chat.last_message_at ?? chat.created_at,
    })
    return {
      chats: chats.sort((a, b) => byPlace(keyOf(a), keyOf(b))),
      count: chats.length,
      has_more: false,
      next_cursor: null,
    }
  }
  const times = await lastTimes(deps.db, listed)
  const sorted = listed
    .map((row) => ({ row, chat_id: row.chat_id, pinned_at: row.pinned_at, at: times.get(row.chat_id) ?? row.created_at }))
    .sort(byPlace)
  const start = options.after === undefined ? 0 : sorted.findIndex((key) => key.chat_id === options.after) + 1
  const page = sorted.slice(start, start + options.limit).map(({ row }) => row)
  const chats = await chatViews(deps, deps.db, userId, page)
  const has_more = start + page.length < sorted.length
  return { chats, count: sorted.length, has_more, next_cursor: has_more ? page.at(-1)!.chat_id : null }
}

/** When each chat was last written in. Key of messages. */
async function lastTimes(q: Queryable, rows: readonly ChatRow[]): Promise<Map<string, string>> {
  const found = await q.query<{ chat_id: string; created_at: string }>(sql`
    SELECT t.chat_id, m.created_at FROM unnest(${rows.map((r) => r.chat_id)}::uuid[], ${rows.map((r) => r.last_seq)}::bigint[]) AS t(chat_id, seq)
    JOIN messages m ON m.chat_id = t.chat_id AND m.seq = t.seq`)
  return new Map(found.map((row) => [row.chat_id, row.created_at]))
}

/** Rejects with `chat_not_found` where the chat is not this user's to see. */
export async function accessChat(deps: ChatDeps, userId: string, chatId: string): Promise<ChatRow> {
  const [row] = await readableRows(deps.db, userId, [chatId])
  if (!row) throw new AppError('chat_not_found')
  return row
}

export async function viewChat(deps: ChatDeps, userId: string, chatId: string): Promise<Chat> {
  const [chat] = await chatViews(deps, deps.db, userId, [await accessChat(deps, userId, chatId)])
  return chat!
}

export async function viewChatWithMembers(deps: ChatDeps, userId: string, chatId: string) {
  const chat = await viewChat(deps, userId, chatId)
  return { ...chat, members: await memberViews(deps, await activeMembers(deps.db, [chatId], 50)) }
}

/** Rejects with `chat_not_found` where no chat that this user may see has the slug. */
export async function viewBySlug(deps: ChatDeps, userId: string, slug: string) {
  const id = await chatBySlug(deps.db, slug)
  if (id === undefined) throw new AppError('chat_not_found')
  return viewChatWithMembers(deps, userId, id)
}

export async function memberViews(deps: Pick<ChatDeps, 'briefs'>, rows: readonly MemberRow[]): Promise<Member[]> {
  const people = await deps.briefs(rows.map((row) => row.user_id))
  return rows.map((row) => memberResource(row, people.get(row.user_id)!))
}

export async function listMembers(
  deps: ChatDeps,
  userId: string,
  chatId: string,
  options: { limit: number; cursor?: string | undefined },
) {
  const { type, my_role } = await accessChat(deps, userId, chatId)
  // Who reads a channel is nobody's business but its owner's and admins'.
  if (type === 'channel' && my_role !== 'owner' && my_role !== 'admin') throw new AppError('forbidden')
  const rows = await membersPage(deps.db, chatId, options.cursor ?? '00000000-0000-0000-0000-000000000000', options.limit + 1)
  const has_more = rows.length > options.limit
  const page = rows.slice(0, options.limit)
  return { members: await memberViews(deps, page), has_more, next_cursor: has_more ? page.at(-1)!.user_id : null }
}

/** A chat's type by its id, for whoever may see it; decides which rules a call goes by. */
export async function typeOf(deps: ChatDeps, userId: string, chatId: string): Promise<ChatType> {
  return (await accessChat(deps, userId, chatId)).type
}
