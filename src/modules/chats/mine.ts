import { type Db, type Queryable, type Sql, sql } from '../../platform/db/db.ts'
import { AppError } from '../../platform/errors.ts'
import { frame } from '../../protocol/events.ts'
import type { My } from '../../protocol/resources.ts'
import type { ChatDeps, Standing } from './deps.ts'

/** What is a user's alone in a chat: settings, their own read cursor, what they cleared. Takes the user's clock, not the chat's. */

export interface MyRow extends Standing {
  delivered_seq: number
  archived_seq: number | null
  pinned_at: string | null
  muted_until: string | null
  version: number
}

/** A new message takes a chat out of the archive, unless it is muted: decided when looking, so that sending costs nothing. */
export function myResource(
  row: Pick<MyRow, 'last_seq' | 'read_seq' | 'delivered_seq' | 'archived_seq' | 'pinned_at' | 'muted_until' | 'cleared_seq'>,
): My {
  const muted = row.muted_until !== null && Date.parse(row.muted_until) > Date.now()
  return {
    read_seq: row.read_seq,
    delivered_seq: row.delivered_seq,
    archived: row.archived_seq !== null && (muted || row.last_seq <= row.archived_seq),
    archived_seq: row.archived_seq,
    pinned: row.pinned_at !== null,
    muted_until: muted ? row.muted_until : null,
    cleared_seq: row.cleared_seq,
  }
}

/** Where these users stand in these chats (pairs by position), members only. Keys of the three tables. */
export async function myRows(
  q: Queryable,
  pairs: readonly { user_id: string; chat_id: string }[],
): Promise<(MyRow & { user_id: string })[]> {
  return q.query<MyRow & { user_id: string }>(sql`
    SELECT u.user_id, u.chat_id, c.type, k.last_seq, k.version, m.read_seq, m.delivered_seq, u.archived_seq, u.pinned_at, u.muted_until, u.cleared_seq
    FROM unnest(${pairs.map((p) => p.user_id)}::uuid[], ${pairs.map((p) => p.chat_id)}::uuid[]) AS t(user_id, chat_id)
    JOIN user_chats u ON u.user_id = t.user_id AND u.chat_id = t.chat_id AND u.is_member
    JOIN chat_members m ON m.chat_id = t.chat_id AND m.user_id = t.user_id AND m.left_at IS NULL
    JOIN chat_counters k ON k.chat_id = t.chat_id
    JOIN chats c ON c.id = t.chat_id`)
}

export interface Moved {
  user_id: string
  chat_id: string
  version: number
}

/** Tells `my_updated` to the users' own devices; best effort, since `sync` has it too. Resolves with the unread counts. */
export async function tellMine(deps: ChatDeps, moved: readonly Moved[]): Promise<Map<string, { my: My; unread_count: number }>> {
  const rows = await myRows(deps.db, moved)
  const byUser = Map.groupBy(rows, (row) => row.user_id)
  const told = new Map<string, { my: My; unread_count: number }>()
  for (const [userId, standings] of byUser) {
    const summaries = await deps.unread(deps.db, userId, standings)
    for (const row of standings) {
      const { unread_count, mention_count, version: counted = row.version } = summaries.get(row.chat_id)!
      const my = myResource(row)
      told.set(`${userId} ${row.chat_id}`, { my, unread_count })
      const version = moved.find((m) => m.user_id === userId && m.chat_id === row.chat_id)?.version ?? 0
      const stamp = { user_version: version, user_prev: version - 1 }
      deps.news.tell(`user:${userId}`, [
        {
          version,
          prev: version - 1,
          frame: frame({
            type: 'my_updated',
            ...stamp,
            chat_id: row.chat_id,
            my,
            unread_count,
            mention_count,
            last_seq: row.last_seq,
            chat_version: counted,
          }),
        },
      ])
    }
  }
  return told
}

export interface SettingsPatch {
  archived?: boolean | undefined
  pinned?: boolean | undefined
  muted_until?: string | null | undefined
}

/**
 * Rejects with `chat_not_found` where the chat is not mine. Muting and unmuting leave the chat where it is, in the archive
 * or out of it: that is only decided by asking for it, or by the next message.
 */
export async function changeSettings(deps: ChatDeps, userId: string, chatId: string, patch: SettingsPatch): Promise<void> {
  await changeMine(
    deps,
    userId,
    chatId,
    sql`
      archived_seq = CASE WHEN coalesce(${patch.archived ?? null}::boolean, k.last_seq <= u.archived_seq OR (u.archived_seq IS NOT NULL AND u.muted_until > now()))
        THEN k.last_seq END,
      pinned_at = CASE WHEN ${patch.pinned ?? null}::boolean IS NULL THEN u.pinned_at
        WHEN ${patch.pinned ?? null}::boolean THEN coalesce(u.pinned_at, now()) ELSE NULL END,
      muted_until = CASE WHEN ${patch.muted_until !== undefined}::boolean THEN ${patch.muted_until ?? null}::timestamptz ELSE u.muted_until END`,
  )
}

/** Deletes a direct chat for this user alone: what it holds now is gone for them, and a new message brings it back. */
export async function clearDm(deps: ChatDeps, userId: string, chatId: string): Promise<void> {
  await changeMine(deps, userId, chatId, sql`cleared_seq = k.last_seq, archived_seq = NULL, pinned_at = NULL`)
}

/** Writes the user's own row of the chat (`u`, beside its counters `k`) under the next version of their clock, and tells their devices. */
async function changeMine(deps: ChatDeps, userId: string, chatId: string, assignments: Sql): Promise<void> {
  const version = await deps.db.transaction(async (tx) => {
    const version = await tick(tx, userId)
    const [row] = await tx.query(sql`
      UPDATE user_chats u SET version = ${version}, ${assignments}
      FROM chat_counters k
      WHERE u.user_id = ${userId} AND u.chat_id = ${chatId} AND u.is_member AND k.chat_id = u.chat_id
      RETURNING u.chat_id`)
    if (!row) throw new AppError('chat_not_found')
    return version
  })
  await tellMine(deps, [{ user_id: userId, chat_id: chatId, version }])
}

/**
 * Something of theirs in this chat changed for these people: the next version of the clock of each who is a member, taken in
 * the order of their ids, after the chat's lock: a clock that moved without a row that says why would be a hole. To be told
 * by `tellMine` after the commit.
 */
export async function tickMine(tx: Queryable, chatId: string, userIds: readonly string[]): Promise<Moved[]> {
  if (userIds.length === 0) return []
  return tx.query<Moved>(sql`
    WITH locked AS (
      SELECT c.user_id FROM user_clock c WHERE c.user_id IN (
        SELECT user_id FROM user_chats WHERE user_id = ANY(${userIds}::uuid[]) AND chat_id = ${chatId} AND is_member)
      ORDER BY c.user_id FOR NO KEY UPDATE
    ), ticked AS (
      UPDATE user_clock c SET version = c.version + 1 FROM locked l WHERE c.user_id = l.user_id RETURNING c.user_id, c.version
    )
    UPDATE user_chats u SET version = t.version FROM ticked t
    WHERE u.user_id = t.user_id AND u.chat_id = ${chatId} AND u.is_member
    RETURNING u.user_id, u.chat_id, u.version`)
}

/** As `tickMine`, for one user and several chats, each with a version of its own: something that counts in all of them changed. */
export async function tickMineIn(tx: Queryable, userId: string, chatIds: readonly string[]): Promise<Moved[]> {
  if (chatIds.length === 0) return []
  return tx.query<Moved>(sql`
    WITH given AS (
      SELECT chat_id, row_number() OVER (ORDER BY chat_id) AS n FROM user_chats
      WHERE user_id = ${userId} AND chat_id = ANY(${chatIds}::uuid[]) AND is_member
    ), ticked AS (
      UPDATE user_clock SET version = version + (SELECT count(*) FROM given) WHERE user_id = ${userId} RETURNING version
    )
    UPDATE user_chats u SET version = t.version - (SELECT count(*) FROM given) + g.n FROM ticked t, given g
    WHERE u.user_id = ${userId} AND u.chat_id = g.chat_id
    RETURNING u.user_id, u.chat_id, u.version`)
}

/** The user's clock moves on; its row is locked until the transaction ends. */
async function tick(tx: Queryable, userId: string): Promise<number> {
  const [row] = await tx.query<{ version: number }>(
    sql`UPDATE user_clock SET version = version + 1 WHERE user_id = ${userId} RETURNING version`,
  )
  return row!.version
}

/** Which chats a connection of these users has to hear, and their versions; one snapshot. Key of user_chats. */
export async function memberships(db: Db, userIds: readonly string[]) {
  const rows = await db.query<{ user_id: string; user_version: number; chat_id: string | null; version: number | null }>(sql`
    SELECT u.user_id, u.version AS user_version, k.chat_id, k.version
    FROM user_clock u
    LEFT JOIN (user_chats uc JOIN chat_counters k ON k.chat_id = uc.chat_id) ON uc.user_id = u.user_id AND uc.is_member
    WHERE u.user_id = ANY(${userIds}::uuid[])`)
  const found = new Map<string, { user_version: number; chats: { chat_id: string; version: number }[] }>()
  for (const { user_id, user_version, chat_id, version } of rows) {
    let mine = found.get(user_id)
    if (!mine) {
      mine = { user_version, chats: [] }
      found.set(user_id, mine)
    }
    if (chat_id !== null) mine.chats.push({ chat_id, version: version! })
  }
  return found
}

/** Where these chats and users stand in the database. */
export async function versions(db: Db, chatIds: readonly string[], userIds: readonly string[]) {
  const rows = await db.query<{ kind: 'chat' | 'user'; id: string; version: number }>(sql`
    SELECT 'chat' AS kind, chat_id AS id, version FROM chat_counters WHERE chat_id = ANY(${chatIds}::uuid[])
    UNION ALL
    SELECT 'user', user_id, version FROM user_clock WHERE user_id = ANY(${userIds}::uuid[])`)
  const of = (kind: string) => new Map(rows.filter((row) => row.kind === kind).map((row) => [row.id, row.version]))
  return { chats: of('chat'), users: of('user') }
}
