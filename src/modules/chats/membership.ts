import { sql } from '../../platform/db/db.ts'
import { AppError } from '../../platform/errors.ts'
import type { ChatType, Role, System } from '../../protocol/resources.ts'
import type { Change } from './change.ts'
import { tellChat, updateChat } from './chat-row.ts'
import { insertMembers, memberResource, setLeft, setRole } from './members.ts'
import { deleteSubscriber, expelSubscriber, insertSubscriber } from './subscribers.ts'

/** Who is in a chat, and as what: the steps that its rules are made of. All of them run under the chat's lock. */

const isManager = (role: Role) => role === 'owner' || role === 'admin'

/** Somebody who is not in a chat and asks to do something there; a public channel they may see. */
export const strangerTo = ({ type, is_public }: { type: ChatType; is_public: boolean }): AppError =>
  new AppError(type === 'channel' && is_public ? 'forbidden' : 'chat_not_found')

/** My role in a group or channel; refuses strangers, and with `not_a_group` where there is nothing to manage. */
export async function accessShared(change: Change, actorId: string): Promise<Role> {
  const role = await change.roleOf(actorId)
  if (!role) throw strangerTo(change.chat)
  if (change.chat.type === 'dm') throw new AppError('not_a_group')
  return role
}

export async function accessAsManager(change: Change, actorId: string): Promise<Role> {
  const role = await accessShared(change, actorId)
  if (!isManager(role)) throw new AppError('forbidden')
  return role
}

/** What a group says of its members' doings; a channel keeps them to itself. */
export async function announce(change: Change, actorId: string, system: Omit<System, 'actor_id'>): Promise<void> {
  if (change.chat.type === 'group') await change.addSystem(actorId, system)
}

/** Members come in, each with a version; they have read what was there before. */
export async function join(change: Change, members: readonly { user_id: string; role: Role }[]): Promise<void> {
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
      chat.type === 'channel' ? undefined : { joined: user_id },
    )
    change.setListed(user_id, true)
  }
  change.bumpAcl()
}

/** The row, its event and the list of the one who is gone. Nothing later than this event reaches them. */
export async function part(change: Change, userId: string, system: Omit<System, 'actor_id'>, actorId: string): Promise<void> {
  const { chat, tx } = change
  // The message about it comes first: who leaves hears of it, and what follows the leaving is not for them.
  await announce(change, actorId, system)
  const version = change.nextVersion()
  await setLeft(tx, chat.id, userId, version)
  chat.member_count -= 1
  tellLeft(change, userId, version)
  change.setListed(userId, false)
  change.bumpAcl()
}

function tellLeft({ chat, emitAt }: Change, userId: string, version: number): void {
  emitAt(version, [], () => ({ type: 'member_left', chat_id: chat.id, version, prev: version - 1, user_id: userId }), {
    left: userId,
  })
}

/** The role of a member changes; others hear it as `member_joined`. */
export async function assignRole(change: Change, userId: string, role: Role): Promise<void> {
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

export async function makeOwner(change: Change, userId: string, actorId: string): Promise<void> {
  await assignRole(change, userId, 'owner')
  await updateChat(change, { owner_id: userId })
  change.bumpAcl()
  await announce(change, actorId, { action: 'owner_changed', target_id: userId })
}

// --- a channel's subscribers: nobody else hears of them, so that coming and going takes no version ---------------------

/** False for whoever is in already. */
export async function subscribe(change: Change, userId: string): Promise<boolean> {
  const { chat, tx } = change
  if (!(await insertSubscriber(tx, chat.id, userId, chat.last_seq))) return false
  chat.member_count += 1
  change.setListed(userId, true)
  return true
}

export async function unsubscribe(change: Change, userId: string): Promise<void> {
  await deleteSubscriber(change.tx, change.chat.id, userId)
  change.chat.member_count -= 1
  change.setListed(userId, false)
}

/**
 * Takes a version, so that nothing later reaches them; whom it is about is told only of somebody who had been an admin. Of
 * anybody else the chat's row has the version, too: theirs loses it when they subscribe again.
 */
export async function expel(change: Change, userId: string): Promise<void> {
  const { chat, tx } = change
  const version = change.nextVersion()
  const wasTold = await expelSubscriber(tx, chat.id, userId, version)
  chat.member_count -= 1
  change.setListed(userId, false)
  if (wasTold) return tellLeft(change, userId, version)
  await tx.query(sql`UPDATE chats SET version = ${version} WHERE id = ${chat.id}`)
  tellChat(change, version, { left: userId })
}
