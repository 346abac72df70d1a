import type { Queryable } from '../../platform/db/db.ts'
import { AppError } from '../../platform/errors.ts'
import {
  type Acl,
  type AclCache,
  type Change,
  type ChatDeps,
  type ChatRow,
  changeChat,
  readableRows,
  strangerTo,
} from '../chats/index.ts'
import { type MessageRow, messageById, messagesAt } from './rows.ts'

/** Who may see a message, and who may do what in a chat. */

/** Refuses whoever may not write here by this list of members. */
export function checkMayWrite(acl: Acl | undefined, userId: string): void {
  // The list of a channel has its owner and admins alone; who else may know of the channel is `accessToWrite`'s to say.
  if (acl?.type === 'channel' && !acl.deleted && !acl.roles.has(userId)) throw new AppError('forbidden')
  roleIn(acl, userId)
  checkNoBlock(acl!, userId)
}

/** Reacting is for readers too. */
export function checkMayReact(acl: Acl | undefined, userId: string): void {
  roleIn(acl, userId)
  checkNoBlock(acl!, userId)
}

/** Between two of whom one blocks the other nothing is said. Who blocks is told so; who is blocked, only that it does not go. */
function checkNoBlock({ blockers }: Acl, userId: string): void {
  if (blockers.has(userId)) throw new AppError('user_blocked')
  if (blockers.size > 0) throw new AppError('not_allowed')
}

function roleIn(acl: Acl | undefined, userId: string) {
  const role = acl && !acl.deleted ? acl.roles.get(userId) : undefined
  if (!role) throw new AppError('chat_not_found')
  checkNotDisabled(acl!, userId)
  return role
}

/** Who is disabled has no session any more: this is for what was on its way when it ended. */
function checkNotDisabled(acl: Acl, userId: string): void {
  if (acl.disabled.has(userId)) throw new AppError('session_ended')
}

/** As `checkMayWrite`, but a refusal by a remembered list is decided once more by a fresh one. A private channel does not exist for strangers. */
export async function accessToWrite(deps: { db: Queryable; acl: AclCache }, chatId: string, userId: string): Promise<void> {
  try {
    checkMayWrite(await deps.acl.get(deps.db, chatId), userId)
  } catch {
    deps.acl.forget(chatId)
    const acl = await deps.acl.get(deps.db, chatId)
    if (acl?.type === 'channel' && !acl.roles.has(userId)) {
      const [chat] = await readableRows(deps.db, userId, [chatId])
      if (!chat) throw new AppError('chat_not_found')
    }
    checkMayWrite(acl, userId)
  }
}

/** A message and its chat. Rejects with `message_not_found` for whoever may not see both; a public channel's are anybody's to see. */
export async function accessMessage(
  chats: Pick<ChatDeps, 'db'>,
  userId: string,
  messageId: string,
): Promise<{ row: MessageRow; chat: ChatRow }> {
  const row = await messageById(chats.db, messageId)
  const chat = row && (await readableRows(chats.db, userId, [row.chat_id]))[0]
  if (!row || !chat || row.seq <= chat.cleared_seq) throw new AppError('message_not_found')
  return { row, chat }
}

/**
 * Changes one message, which `accessMessage` has let the actor see, under its chat's lock. `work` gets it as it stands there,
 * and the list of members that holds there. Rejects with `message_not_found` for whoever may not see it any more, and with
 * `forbidden` for who only looks at the channel.
 */
export async function changeMessage<T>(
  chats: ChatDeps,
  actorId: string,
  known: MessageRow,
  work: (change: Change, row: MessageRow, acl: Acl) => Promise<T>,
): Promise<T> {
  try {
    return await changeChat(chats, known.chat_id, async (change) => {
      const acl = await aclUnderLock(chats, change)
      if (!acl) throw new AppError('message_not_found')
      if ((await change.roleOf(actorId)) === undefined) throw strangerTo(change.chat)
      checkNotDisabled(acl, actorId)
      const [row] = await messagesAt(change.tx, [known])
      return work(change, row!, acl)
    })
  } catch (error) {
    throw error instanceof AppError && error.code === 'chat_not_found' ? new AppError('message_not_found') : error
  }
}

/** The remembered list where it is the one that holds, else read anew: nobody changes it while the lock is held. */
async function aclUnderLock(chats: ChatDeps, { tx, chat }: Change): Promise<Acl | undefined> {
  const known = await chats.acl.get(tx, chat.id)
  if (known?.acl_version === chat.acl_version) return known
  chats.acl.forget(chat.id)
  return chats.acl.get(tx, chat.id)
}
