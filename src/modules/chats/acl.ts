import { LRUCache } from 'lru-cache'
import { type Queryable, sql } from '../../platform/db/db.ts'
import type { ChatType, Role } from '../../protocol/resources.ts'

/**
 * Who may do what in a chat, as of one `acl_version`. It may be old: whoever writes by it compares `acl_version` under
 * the lock of the chat's counters row, and loads it anew where it differs.
 */
export interface Acl {
  chat_id: string
  type: ChatType
  acl_version: number
  /** Nobody may write here any more. */
  deleted: boolean
  /** Of a channel the owner and admins alone: it may have more subscribers than anybody should remember. */
  roles: ReadonlyMap<string, Role>
  /** Of a direct chat: who of the two blocks the other. Empty elsewhere. */
  blockers: ReadonlySet<string>
  /** Those of `roles` whose accounts are disabled: their sessions have ended, and what was on its way is refused. */
  disabled: ReadonlySet<string>
}

export interface AclCache {
  /** From the cache, else from the database; undefined where there is no such chat. */
  get(q: Queryable, chatId: string): Promise<Acl | undefined> | Acl | undefined
  /** The cached one was seen to be old. */
  forget(chatId: string): void
}

/** Bounded by the number of members held, some 100 bytes each. */
const maxMembers = 200_000

export function createAclCache(): AclCache {
  const cache = new LRUCache<string, Acl>({ maxSize: maxMembers, sizeCalculation: (acl) => acl.roles.size + 2 })
  const loading = new Map<string, Promise<Acl | undefined>>()
  return {
    get(q, chatId) {
      const cached = cache.get(chatId)
      if (cached) return cached
      const running = loading.get(chatId)
      if (running) return running
      const load = loadAcl(q, chatId)
        .then((acl) => {
          // Forgotten meanwhile: answer, but do not keep.
          if (acl && loading.get(chatId) === load) cache.set(chatId, acl)
          return acl
        })
        .finally(() => {
          if (loading.get(chatId) === load) loading.delete(chatId)
        })
      loading.set(chatId, load)
      return load
    },
    forget(chatId) {
      cache.delete(chatId)
      loading.delete(chatId)
    },
  }
}

/**
 * One statement, so that version, members and blocks are of one snapshot: who blocks bumps the direct chat's version in the
 * same transaction. Served by the keys of the four tables and of users, by chat_members_staff and users_disabled.
 */
async function loadAcl(q: Queryable, chatId: string): Promise<Acl | undefined> {
  const [row] = await q.query<{
    type: ChatType
    acl_version: number
    deleted: boolean
    roles: Record<string, Role> | null
    disabled: string[]
    blockers: string[] | null
  }>(sql`
    SELECT c.type, k.acl_version, c.deleted_at IS NOT NULL AS deleted,
      CASE WHEN c.type = 'channel'
        THEN ARRAY(SELECT u.id::text FROM chat_members m JOIN users u ON u.id = m.user_id AND u.disabled_at IS NOT NULL
          WHERE m.chat_id = k.chat_id AND m.role IN ('owner', 'admin'))
        ELSE ARRAY(SELECT u.id::text FROM chat_members m JOIN users u ON u.id = m.user_id AND u.disabled_at IS NOT NULL
          WHERE m.chat_id = k.chat_id AND m.left_at IS NULL)
      END AS disabled,
      CASE WHEN c.type = 'channel'
        THEN (SELECT jsonb_object_agg(m.user_id, m.role) FROM chat_members m WHERE m.chat_id = k.chat_id AND m.role IN ('owner', 'admin'))
        ELSE (SELECT jsonb_object_agg(m.user_id, m.role) FROM chat_members m WHERE m.chat_id = k.chat_id AND m.left_at IS NULL)
      END AS roles,
      CASE WHEN c.type = 'dm' THEN (
        SELECT jsonb_agg(m.user_id) FROM chat_members m
        JOIN chat_members p ON p.chat_id = m.chat_id AND p.user_id <> m.user_id
        JOIN relations r ON r.user_id = m.user_id AND r.other_id = p.user_id AND r.blocked
        WHERE m.chat_id = k.chat_id) END AS blockers
    FROM chat_counters k JOIN chats c ON c.id = k.chat_id
    WHERE k.chat_id = ${chatId}`)
  if (!row) return undefined
  const { type, acl_version, deleted, roles, disabled, blockers } = row
  return {
    chat_id: chatId,
    type,
    acl_version,
    deleted,
    roles: new Map(Object.entries(roles ?? {})),
    disabled: new Set(disabled),
    blockers: new Set(blockers ?? []),
  }
}

/** Whether one of the two in a direct chat blocks the other, by a list that may be old. Where nobody can say, it counts as so. */
export async function isSilent(q: Queryable, cache: AclCache, chatId: string): Promise<boolean> {
  try {
    return ((await cache.get(q, chatId))?.blockers.size ?? 0) > 0
  } catch {
    return true
  }
}

/** Holds the lock of the chat's counters, which comes before every other, until the transaction ends. */
export async function lockCounters(tx: Queryable, chatId: string): Promise<void> {
  await tx.query(sql`SELECT 1 AS locked FROM chat_counters WHERE chat_id = ${chatId} FOR NO KEY UPDATE`)
}

/** Under the lock of the counters: whoever decided by an older list has to look again. */
export async function bumpAcl(tx: Queryable, chatId: string): Promise<void> {
  await tx.query(sql`UPDATE chat_counters SET acl_version = acl_version + 1 WHERE chat_id = ${chatId}`)
}

/**
 * What this user may do changed in all their chats: whoever decided by an older list looks again. To be called after the
 * commit of what changed: a list that was loaded before has an older `acl_version` than this leaves behind.
 */
export async function bumpAclOf(db: Queryable, userId: string): Promise<void> {
  await db.query(sql`
    WITH locked AS (
      SELECT k.chat_id FROM user_chats u JOIN chat_counters k ON k.chat_id = u.chat_id
      WHERE u.user_id = ${userId} AND u.is_member ORDER BY k.chat_id FOR NO KEY UPDATE OF k
    )
    UPDATE chat_counters k SET acl_version = k.acl_version + 1 FROM locked l WHERE k.chat_id = l.chat_id`)
}
