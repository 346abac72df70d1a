import { sql } from '../../platform/db/db.ts'
import { AppError } from '../../platform/errors.ts'
import { newId } from '../../platform/ids.ts'
import type { ChatEvent, Role, System } from '../../protocol/resources.ts'
import { type Change, changeChat, type LockedChat } from './change.ts'
import type { ChatDeps } from './deps.ts'
import { insertMembers, lockMembers, memberResource, setLeft, setRole, successor } from './members.ts'

/** Groups: who may come, go and rename. Every rule is decided under the chat's lock. */

export const neutralChat = (chat: LockedChat): ChatEvent => ({
  id: chat.id,
  type: chat.type,
  name: chat.name,
  description: chat.description,
  avatar_url: null,
  slug: chat.slug,
  owner_id: chat.owner_id,
  member_count: chat.member_count,
  created_at: chat.created_at,
})

const isManager = (role: Role) => role === 'owner' || role === 'admin'

/** My role in a group; `chat_not_found` for strangers, `not_a_group` where there is nothing to manage. */
async function accessGroup(change: Change, actorId: string): Promise<Role> {
  const role = await change.roleOf(actorId)
  if (!role) throw new AppError('chat_not_found')
  if (change.chat.type !== 'group') throw new AppError('not_a_group')
  return role
}

async function accessAsManager(change: Change, actorId: string): Promise<Role> {
  const role = await accessGroup(change, actorId)
  if (!isManager(role)) throw new AppError('forbidden')
  return role
}

/** Refuses the whole call with `user_not_found` if one of them does not exist. */
async function checkPeople(deps: ChatDeps, ids: readonly string[]): Promise<void> {
  if ((await deps.existingUsers(ids)).size !== ids.length) throw new AppError('user_not_found')
}

/** Makes the group with its first members; resolves with its id. */
export async function createGroup(
  deps: ChatDeps,
  actorId: string,
  input: { name: string; description: string; member_ids: readonly string[] },
): Promise<string> {
  const others = [...new Set(input.member_ids)].filter((id) => id !== actorId)
  if (others.length + 1 > deps.groupMaxMembers) throw new AppError('group_full')
  await checkPeople(deps, others)
  const id = newId()
  await changeChat(
    deps,
    id,
    async (change) => {
      await join(change, [
        { user_id: actorId, role: 'owner' },
        ...others.map((user_id) => ({ user_id, role: 'member' as const })),
      ])
      await change.addSystem(actorId, { action: 'group_created', name: input.name })
    },
    async (tx) => {
      await tx.query(
        sql`INSERT INTO chats (id, type, name, description, owner_id) VALUES (${id}, 'group', ${input.name}, ${input.description}, ${actorId})`,
      )
      await tx.query(sql`INSERT INTO chat_counters (chat_id) VALUES (${id})`)
    },
  )
  return id
}

/** Members come in, each with a version; they have read what was there before. */
async function join(change: Change, members: readonly { user_id: string; role: Role }[]): Promise<void> {
  const { chat, tx } = change
  const stamped = members.map((member) => ({ ...member, version: change.nextVersion() }))
  const rows = await insertMembers(tx, chat.id, chat.last_seq, stamped)
  chat.member_count += members.length
  for (const { user_id, version } of stamped) {
    const row = rows.get(user_id)!
    change.emitAt(
      version,
      [user_id],
      (people) => ({
        type: 'member_joined',
        chat_id: chat.id,
        version,
        prev: version - 1,
        user_id,
        member: memberResource(row, people.get(user_id)!),
      }),
      { joined: user_id },
    )
    change.setListed(user_id, true)
  }
  change.bumpAcl()
}

/** Those who are members already are left as they are. Resolves with the number of members then. */
export async function addMembers(deps: ChatDeps, actorId: string, chatId: string, userIds: readonly string[]): Promise<void> {
  const wanted = [...new Set(userIds)]
  // Existence first, outside of the lock; a stranger to the chat learns nothing by it, since people can be looked up anyway.
  await checkPeople(deps, wanted)
  await changeChat(deps, chatId, async (change) => {
    await accessAsManager(change, actorId)
    const present = await change.tx.query<{ user_id: string }>(sql`
      SELECT user_id FROM chat_members WHERE chat_id = ${chatId} AND user_id = ANY(${wanted}::uuid[]) AND left_at IS NULL`)
    const known = new Set(present.map((row) => row.user_id))
    const fresh = wanted.filter((id) => !known.has(id))
    if (change.chat.member_count + fresh.length > deps.groupMaxMembers) throw new AppError('group_full')
    if (fresh.length === 0) return
    await join(
      change,
      fresh.map((user_id) => ({ user_id, role: 'member' as const })),
    )
    for (const target_id of fresh) await change.addSystem(actorId, { action: 'member_added', target_id })
  })
}

/** The row, its event and the list of the one who is gone. Nothing later than this event reaches them. */
async function part(change: Change, userId: string, system: Omit<System, 'actor_id'>, actorId: string): Promise<void> {
  const { chat, tx } = change
  // The message about it comes first: who leaves hears of it, and what follows the leaving is not for them.
  await change.addSystem(actorId, system)
  const version = change.nextVersion()
  await setLeft(tx, chat.id, userId, version)
  chat.member_count -= 1
  change.emitAt(version, [], () => ({ type: 'member_left', chat_id: chat.id, version, prev: version - 1, user_id: userId }), {
    left: userId,
  })
  change.setListed(userId, false)
  change.bumpAcl()
}

/** Owners remove anyone, admins remove members; removing oneself is leaving. */
export async function removeMember(deps: ChatDeps, actorId: string, chatId: string, userId: string): Promise<void> {
  if (actorId === userId) return leaveGroup(deps, actorId, chatId)
  await changeChat(deps, chatId, async (change) => {
    const mine = await accessAsManager(change, actorId)
    const theirs = await change.roleOf(userId)
    if (!theirs) throw new AppError('member_not_found')
    if (mine !== 'owner' && theirs !== 'member') throw new AppError('forbidden')
    await part(change, userId, { action: 'member_removed', target_id: userId }, actorId)
  })
}

/** Owners make and unmake admins. The owner's own role moves by `transfer` alone. */
export async function changeRole(
  deps: ChatDeps,
  actorId: string,
  chatId: string,
  userId: string,
  role: 'admin' | 'member',
): Promise<void> {
  await changeChat(deps, chatId, async (change) => {
    const mine = await accessAsManager(change, actorId)
    const theirs = await change.roleOf(userId)
    if (!theirs) throw new AppError('member_not_found')
    if (mine !== 'owner' || theirs === 'owner') throw new AppError('forbidden')
    if (theirs === role) return
    await assignRole(change, userId, role)
    change.bumpAcl()
    await change.addSystem(actorId, { action: 'role_changed', target_id: userId, role })
  })
}

async function assignRole(change: Change, userId: string, role: Role): Promise<void> {
  const version = change.nextVersion()
  const row = await setRole(change.tx, change.chat.id, userId, role, version)
  change.emitAt(version, [userId], (people) => ({
    type: 'member_joined',
    chat_id: change.chat.id,
    version,
    prev: version - 1,
    user_id: userId,
    member: memberResource(row, people.get(userId)!),
  }))
}

/** The owner hands over and stays as an admin. */
export async function transferGroup(deps: ChatDeps, actorId: string, chatId: string, userId: string): Promise<void> {
  await changeChat(deps, chatId, async (change) => {
    const mine = await accessGroup(change, actorId)
    if (mine !== 'owner') throw new AppError('forbidden')
    if (userId === actorId) return
    if (!(await change.roleOf(userId))) throw new AppError('member_not_found')
    await lockMembers(change.tx, chatId, [actorId, userId])
    await assignRole(change, actorId, 'admin')
    await makeOwner(change, userId, actorId)
  })
}

async function makeOwner(change: Change, userId: string, actorId: string): Promise<void> {
  await assignRole(change, userId, 'owner')
  await updateChat(change, { owner_id: userId })
  change.bumpAcl()
  await change.addSystem(actorId, { action: 'owner_changed', target_id: userId })
}

/** An owner who leaves hands over first; the last one out takes the group with them. */
export async function leaveGroup(deps: ChatDeps, actorId: string, chatId: string): Promise<void> {
  await changeChat(deps, chatId, async (change) => {
    const mine = await accessGroup(change, actorId)
    if (change.chat.member_count === 1) return dissolve(change)
    if (mine === 'owner') {
      const heir = (await successor(change.tx, chatId, actorId))!
      await lockMembers(change.tx, chatId, [actorId, heir])
      await makeOwner(change, heir, actorId)
    }
    await part(change, actorId, { action: 'member_left' }, actorId)
  })
}

export async function editGroup(
  deps: ChatDeps,
  actorId: string,
  chatId: string,
  patch: { name?: string | undefined; description?: string | undefined },
): Promise<void> {
  await changeChat(deps, chatId, async (change) => {
    await accessAsManager(change, actorId)
    const { name = change.chat.name, description = change.chat.description } = patch
    const renamed = name !== change.chat.name
    const described = description !== change.chat.description
    if (!renamed && !described) return
    await updateChat(change, { name, description })
    if (renamed) await change.addSystem(actorId, { action: 'renamed', name: name ?? '' })
    if (described) await change.addSystem(actorId, { action: 'described' })
  })
}

/** Writes the chat's own row and tells it. */
async function updateChat(change: Change, patch: Partial<Pick<LockedChat, 'name' | 'description' | 'owner_id'>>): Promise<void> {
  const { chat, tx } = change
  const version = change.nextVersion()
  Object.assign(chat, patch)
  await tx.query(sql`
    UPDATE chats SET name = ${chat.name}, description = ${chat.description}, owner_id = ${chat.owner_id}, version = ${version} WHERE id = ${chat.id}`)
  const told = neutralChat(chat)
  change.emitAt(version, [], () => ({ type: 'chat_updated', chat_id: chat.id, version, prev: version - 1, chat: told }))
}

/** The owner deletes the group for all. */
export async function deleteGroup(deps: ChatDeps, actorId: string, chatId: string): Promise<void> {
  await changeChat(deps, chatId, async (change) => {
    if ((await accessGroup(change, actorId)) !== 'owner') throw new AppError('forbidden')
    await dissolve(change)
  })
}

async function dissolve(change: Change): Promise<void> {
  const { chat, tx } = change
  const version = change.nextVersion()
  await tx.query(sql`UPDATE chats SET deleted_at = now(), version = ${version} WHERE id = ${chat.id}`)
  const members = await tx.query<{ user_id: string }>(
    sql`SELECT user_id FROM chat_members WHERE chat_id = ${chat.id} AND left_at IS NULL`,
  )
  for (const { user_id } of members) change.setListed(user_id, false)
  const told = neutralChat(chat)
  change.emitAt(
    version,
    [],
    () => ({ type: 'chat_updated', chat_id: chat.id, version, prev: version - 1, chat: told, deleted: true }),
    { gone: true },
  )
  change.bumpAcl()
}

/**
 * A deleted user goes from every group, each handed over as by leaving. Group by group, each a change of its own: what
 * a crash leaves undone, the next call does. Direct chats stay, for the other's sake.
 */
export async function leaveEverything(deps: ChatDeps, userId: string): Promise<void> {
  const rows = await deps.db.query<{ chat_id: string }>(sql`
    SELECT u.chat_id FROM user_chats u JOIN chats c ON c.id = u.chat_id
    WHERE u.user_id = ${userId} AND u.is_member AND c.type = 'group' AND c.deleted_at IS NULL`)
  for (const { chat_id } of rows) {
    try {
      await leaveGroup(deps, userId, chat_id)
    } catch (error) {
      // Removed, or the group deleted, in the meantime: that is what was wanted.
      if (!(error instanceof AppError && error.code === 'chat_not_found')) throw error
    }
  }
}
