import { type Queryable, sql } from '../../platform/db/db.ts'
import { AppError } from '../../platform/errors.ts'
import { newId } from '../../platform/ids.ts'
import type { Role } from '../../protocol/resources.ts'
import { ties } from '../contacts/index.ts'
import { changeChat } from './change.ts'
import { updateChat } from './chat-row.ts'
import type { ChatDeps } from './deps.ts'
import { lockMembers, longestAdmin, successor } from './members.ts'
import { accessAsManager, accessShared, announce, assignRole, expel, join, makeOwner, part, unsubscribe } from './membership.ts'
import { dissolve } from './profile.ts'

/** Groups and channels: who may come, go and be what. Every rule is decided under the chat's lock. */

/** Refuses the whole call with `user_not_found` if one of them does not exist. */
async function checkPeople(deps: ChatDeps, ids: readonly string[]): Promise<void> {
  if ((await deps.existingUsers(ids)).size !== ids.length) throw new AppError('user_not_found')
}

/** Nobody is put into a group by somebody whom they block: the whole call is refused with `not_allowed`. */
async function checkNoBlock(q: Queryable, actorId: string, ids: readonly string[]): Promise<void> {
  for (const { blocks_viewer } of (await ties(q, actorId, ids)).values()) if (blocks_viewer) throw new AppError('not_allowed')
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
      await checkNoBlock(change.tx, actorId, others)
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

/** Those who are members already are left as they are. Nobody is put into a channel: `not_a_group`. */
export async function addMembers(deps: ChatDeps, actorId: string, chatId: string, userIds: readonly string[]): Promise<void> {
  const wanted = [...new Set(userIds)]
  // Existence first, outside of the lock; a stranger to the chat learns nothing by it, since people can be looked up anyway.
  await checkPeople(deps, wanted)
  await changeChat(deps, chatId, async (change) => {
    await accessAsManager(change, actorId)
    if (change.chat.type !== 'group') throw new AppError('not_a_group')
    const present = await change.tx.query<{ user_id: string }>(sql`
      SELECT user_id FROM chat_members WHERE chat_id = ${chatId} AND user_id = ANY(${wanted}::uuid[]) AND left_at IS NULL`)
    const known = new Set(present.map((row) => row.user_id))
    const fresh = wanted.filter((id) => !known.has(id))
    if (change.chat.member_count + fresh.length > deps.groupMaxMembers) throw new AppError('group_full')
    if (fresh.length === 0) return
    await checkNoBlock(change.tx, actorId, fresh)
    await join(
      change,
      fresh.map((user_id) => ({ user_id, role: 'member' as const })),
    )
    for (const target_id of fresh) await change.addSystem(actorId, { action: 'member_added', target_id })
  })
}

/** Owners remove anyone, admins remove members and subscribers; removing oneself is leaving. */
export async function removeMember(deps: ChatDeps, actorId: string, chatId: string, userId: string): Promise<void> {
  if (actorId === userId) return leaveChat(deps, actorId, chatId)
  await changeChat(deps, chatId, async (change) => {
    const mine = await accessAsManager(change, actorId)
    const theirs = await change.roleOf(userId)
    if (!theirs) throw new AppError('member_not_found')
    if (mine !== 'owner' && (theirs === 'owner' || theirs === 'admin')) throw new AppError('forbidden')
    if (theirs === 'subscriber') await expel(change, userId)
    else await part(change, userId, { action: 'member_removed', target_id: userId }, actorId)
  })
}

/** Owners make and unmake admins. The owner's own role moves by `transfer` alone. */
export async function changeRole(
  deps: ChatDeps,
  actorId: string,
  chatId: string,
  userId: string,
  wanted: 'admin' | 'member' | 'subscriber',
): Promise<void> {
  await changeChat(deps, chatId, async (change) => {
    const mine = await accessAsManager(change, actorId)
    const theirs = await change.roleOf(userId)
    if (!theirs) throw new AppError('member_not_found')
    if (mine !== 'owner' || theirs === 'owner') throw new AppError('forbidden')
    const plain: Role = change.chat.type === 'channel' ? 'subscriber' : 'member'
    if (wanted === 'subscriber' && plain !== wanted)
      throw new AppError('invalid_input', { details: { role: 'must be admin or member' } })
    const role = wanted === 'admin' ? 'admin' : plain
    if (theirs === role) return
    await assignRole(change, userId, role)
    change.bumpAcl()
    await announce(change, actorId, { action: 'role_changed', target_id: userId, role })
  })
}

/** The owner hands over and stays as an admin. */
export async function transferChat(deps: ChatDeps, actorId: string, chatId: string, userId: string): Promise<void> {
  await changeChat(deps, chatId, async (change) => {
    const mine = await accessShared(change, actorId)
    if (mine !== 'owner') throw new AppError('forbidden')
    if (userId === actorId) return
    if (!(await change.roleOf(userId))) throw new AppError('member_not_found')
    await lockMembers(change.tx, chatId, [actorId, userId])
    await assignRole(change, actorId, 'admin')
    await makeOwner(change, userId, actorId)
  })
}

/**
 * An owner who leaves hands over first; the last one out takes a group with them. A channel goes to an admin or to nobody:
 * without one its owner is refused with `transfer_first`, unless their account is gone (`orphan`). Then it stays as it is,
 * to be read and without an owner.
 */
export async function leaveChat(deps: ChatDeps, actorId: string, chatId: string, orphan = false): Promise<void> {
  await changeChat(deps, chatId, async (change) => {
    const mine = await accessShared(change, actorId)
    if (mine === 'subscriber') return unsubscribe(change, actorId)
    const { chat, tx } = change
    if (chat.type === 'group' && chat.member_count === 1) return dissolve(change)
    if (mine === 'owner') {
      const heir = chat.type === 'channel' ? await longestAdmin(tx, chatId) : await successor(tx, chatId, actorId)
      if (heir !== undefined) {
        await lockMembers(tx, chatId, [actorId, heir])
        await makeOwner(change, heir, actorId)
      } else if (orphan) await updateChat(change, { owner_id: null })
      else throw new AppError('transfer_first')
    }
    await part(change, actorId, { action: 'member_left' }, actorId)
  })
}

/**
 * A deleted user goes from every group and channel, each handed over as by leaving. One by one, each a change of its own:
 * what a crash leaves undone, the next call does. Direct chats stay, for the other's sake.
 */
export async function leaveEverything(deps: ChatDeps, userId: string): Promise<void> {
  const rows = await deps.db.query<{ chat_id: string }>(sql`
    SELECT u.chat_id FROM user_chats u JOIN chats c ON c.id = u.chat_id
    WHERE u.user_id = ${userId} AND u.is_member AND c.type <> 'dm' AND c.deleted_at IS NULL`)
  for (const { chat_id } of rows) {
    try {
      await leaveChat(deps, userId, chat_id, true)
    } catch (error) {
      // Removed, or the chat deleted, in the meantime: that is what was wanted.
      if (!(error instanceof AppError && (error.code === 'chat_not_found' || error.code === 'forbidden'))) throw error
    }
  }
}
