import { type Queryable, sql } from '../../platform/db/db.ts'
import { AppError } from '../../platform/errors.ts'
import { newId } from '../../platform/ids.ts'
import type { Effect, Stamped } from '../../platform/news.ts'
import { frame, type ServerEvent } from '../../protocol/events.ts'
import type { ChatType, Role, System, UserBrief } from '../../protocol/resources.ts'
import type { ChatDeps } from './deps.ts'
import { systemMessage } from './system-message.ts'

/**
 * The one way to change a chat's shared state, but for sends (which are batched): takes the lock of the chat's counters
 * row first, numbers each changed row with the next version, commits, and only then tells. Locks are taken in the order
 * counters, members, messages, user clocks; several of a kind by their keys.
 */
export interface LockedChat {
  id: string
  type: ChatType
  name: string | null
  description: string
  avatar: { id: string; url: string } | null
  slug: string | null
  owner_id: string | null
  is_public: boolean
  created_at: string
  last_seq: number
  version: number
  acl_version: number
  member_count: number
}

type Build = (people: Map<string, UserBrief>) => ServerEvent

export interface Change {
  readonly tx: Queryable
  /** As read under the lock; counters move on with the change. */
  readonly chat: LockedChat
  /** The chat's next version: stamp it on the one row that it stands for. */
  nextVersion(): number
  /** Tells the event that `version` stands for. Built after the commit, when people's names are at hand. */
  emitAt(version: number, people: readonly string[], build: Build, effect?: Effect): void
  /** Adds a message of type `system`: takes a version and a seq of its own. */
  addSystem(actorId: string, system: Omit<System, 'actor_id'>): Promise<void>
  /** Whoever decided by an older list of members has to look again. */
  bumpAcl(): void
  /** This chat appears in (or disappears from) the user's list. */
  setListed(userId: string, isMember: boolean): void
  /** The role of an active member, else undefined. */
  roleOf(userId: string): Promise<Role | undefined>
}

interface Told {
  version: number
  people: readonly string[]
  build: Build
  effect: Effect | undefined
}

/**
 * Rejects with `chat_not_found` where there is no such chat, or it was deleted. `create` runs first, in the same
 * transaction: for a chat that begins with this change.
 */
export async function changeChat<T>(
  deps: ChatDeps,
  chatId: string,
  work: (change: Change) => Promise<T>,
  create?: (tx: Queryable) => Promise<unknown>,
): Promise<T> {
  const { result, told, listed, aclChanged, type } = await deps.db.transaction(async (tx) => {
    await create?.(tx)
    const chat = await lockChat(tx, chatId)
    const state = createChange(tx, chat)
    const result = await work(state.change)
    await tx.query(sql`
      UPDATE chat_counters SET last_seq = ${chat.last_seq}, version = ${chat.version},
        acl_version = ${chat.acl_version}, member_count = ${chat.member_count}
      WHERE chat_id = ${chatId}`)
    const listed = await writeListed(tx, chatId, state.listed)
    return { result, told: state.told, listed, aclChanged: state.aclChanged(), type: chat.type }
  })
  if (aclChanged) deps.acl.forget(chatId)
  try {
    await tell(deps, { id: chatId, type }, told, listed)
  } catch (error) {
    // Committed is committed: whoever listens finds the hole and reads it from the database.
    deps.onError(error, 'a change could not be told')
  }
  return result
}

/** Two statements: what is read after the lock was waited for must be newer than the wait. */
async function lockChat(tx: Queryable, chatId: string): Promise<LockedChat> {
  const [counters] = await tx.query<Pick<LockedChat, 'last_seq' | 'version' | 'acl_version' | 'member_count'>>(sql`
    SELECT last_seq, version, acl_version, member_count FROM chat_counters WHERE chat_id = ${chatId} FOR NO KEY UPDATE`)
  const [chat] = await tx.query<Omit<LockedChat, keyof typeof counters>>(sql`
    SELECT id, type, name, description, avatar, slug, owner_id, is_public, created_at FROM chats WHERE id = ${chatId} AND deleted_at IS NULL`)
  if (!counters || !chat) throw new AppError('chat_not_found')
  return { ...(chat as LockedChat), ...counters }
}

function createChange(tx: Queryable, chat: LockedChat) {
  const told: Told[] = []
  const listed = new Map<string, boolean>()
  let aclChanged = false
  const change: Change = {
    tx,
    chat,
    nextVersion: () => {
      chat.version += 1
      return chat.version
    },
    emitAt: (version, people, build, effect) => {
      told.push({ version, people, build, effect })
    },
    addSystem: async (actorId, given) => {
      const system: System = { ...given, actor_id: actorId }
      const version = change.nextVersion()
      chat.last_seq += 1
      const seq = chat.last_seq
      const [row] = await tx.query<{ id: string; client_id: string; created_at: string }>(sql`
        INSERT INTO messages (chat_id, seq, version, id, sender_id, client_id, created_at, message_type, content, system)
        VALUES (${chat.id}, ${seq}, ${version}, ${newId()}, ${actorId}, ${newId()}, date_trunc('milliseconds', clock_timestamp()), 'system', '', ${system})
        RETURNING id, client_id, created_at`)
      change.emitAt(version, [actorId], (people) => ({
        type: 'new_message',
        chat_id: chat.id,
        version,
        prev: version - 1,
        message: systemMessage({ ...row!, chat_id: chat.id, seq, version, sender: people.get(actorId)!, system }),
      }))
    },
    bumpAcl: () => {
      if (!aclChanged) chat.acl_version += 1
      aclChanged = true
    },
    setListed: (userId, isMember) => {
      listed.set(userId, isMember)
    },
    roleOf: async (userId) => {
      const [row] = await tx.query<{ role: Role }>(sql`
        SELECT role FROM chat_members WHERE chat_id = ${chat.id} AND user_id = ${userId} AND left_at IS NULL`)
      return row?.role
    },
  }
  return { change, told, listed, aclChanged: () => aclChanged }
}

interface Listed {
  user_id: string
  version: number
  is_member: boolean
}

/** Stamps the users' own clocks, in the order of their ids, and their rows of this chat. */
export async function writeListed(tx: Queryable, chatId: string, listed: ReadonlyMap<string, boolean>): Promise<Listed[]> {
  if (listed.size === 0) return []
  const clocks = await tx.query<{ user_id: string; version: number }>(sql`
    WITH locked AS (
      SELECT user_id FROM user_clock WHERE user_id = ANY(${[...listed.keys()]}::uuid[]) ORDER BY user_id FOR NO KEY UPDATE
    )
    UPDATE user_clock u SET version = u.version + 1 FROM locked l WHERE u.user_id = l.user_id
    RETURNING u.user_id, u.version`)
  const rows = clocks.map(({ user_id, version }) => ({ user_id, version, is_member: listed.get(user_id)! }))
  await tx.query(sql`
    INSERT INTO user_chats (user_id, chat_id, is_member, version)
    SELECT user_id, ${chatId}::uuid, is_member, version
    FROM unnest(${rows.map((r) => r.user_id)}::uuid[], ${rows.map((r) => r.version)}::bigint[], ${rows.map((r) => r.is_member)}::boolean[])
      AS t(user_id, version, is_member) ORDER BY user_id
    ON CONFLICT (user_id, chat_id) DO UPDATE SET is_member = excluded.is_member, version = excluded.version`)
  return rows
}

async function tell(
  deps: ChatDeps,
  chat: Pick<LockedChat, 'id' | 'type'>,
  told: readonly Told[],
  listed: readonly Listed[],
): Promise<void> {
  const people = await deps.briefs([...new Set(told.flatMap((t) => t.people))])
  const events = told.map(
    ({ version, build, effect }): Stamped => ({ version, prev: version - 1, frame: frame(build(people)), effect }),
  )
  deps.news.tell(`chat:${chat.id}`, events)
  tellListed(deps, chat, listed)
}

/** In a channel nobody else is told who comes and goes, so that it is on the user's own stream that they stop hearing it. */
export function tellListed(
  deps: Pick<ChatDeps, 'news'>,
  { id, type }: Pick<LockedChat, 'id' | 'type'>,
  listed: readonly Listed[],
): void {
  for (const { user_id, version, is_member } of listed) {
    const prev = version - 1
    deps.news.tell(`user:${user_id}`, [
      is_member
        ? { version, prev, frame: '', effect: { attach: id } }
        : {
            version,
            prev,
            frame: frame({ type: 'chat_removed', user_version: version, user_prev: prev, chat_id: id }),
            effect: type === 'channel' ? { detach: id } : undefined,
          },
    ])
  }
}
