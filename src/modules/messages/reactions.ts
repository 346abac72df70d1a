import { type Queryable, sql } from '../../platform/db/db.ts'
import { AppError } from '../../platform/errors.ts'
import type { Reaction } from '../../protocol/resources.ts'
import { accessMessage, changeMessage, checkMayReact } from './access.ts'
import { reactInChannel } from './channel-reactions.ts'
import type { MessageDeps } from './deps.ts'
import { insertReactionInTurn, reactionsOf, removeReaction } from './reaction-rows.ts'
import type { MessageRow } from './rows.ts'
import { place } from './views.ts'

/** Different emojis that one message can carry. */
const maxEmojis = 50

/**
 * Adds a reaction or takes it back; adding twice is one, and takes no version. Resolves with the message's reactions as
 * the actor sees them. Rejects with `message_not_found`, `message_deleted`, `too_many_reactions`, and with `forbidden` for
 * whoever only looks at a channel.
 */
export async function react(
  deps: MessageDeps,
  actorId: string,
  messageId: string,
  emoji: string,
  removed: boolean,
): Promise<Reaction[]> {
  const known = await accessMessage(deps.chats, actorId, messageId)
  if (known.chat.type !== 'channel') return reactInChat(deps, actorId, known.row, emoji, removed)
  await reactInChannel(deps.chats, actorId, known, { emoji, removed, maxEmojis })
  return reactionsFor(deps.db, known.row, actorId)
}

async function reactionsFor(q: Queryable, row: MessageRow, viewerId: string): Promise<Reaction[]> {
  return (await reactionsOf(q, [row], viewerId)).get(place(row.chat_id, row.seq)) ?? []
}

function reactInChat(
  deps: MessageDeps,
  actorId: string,
  known: MessageRow,
  emoji: string,
  removed: boolean,
): Promise<Reaction[]> {
  return changeMessage(deps.chats, actorId, known, async (change, row, acl) => {
    if (row.deleted_at !== null) throw new AppError('message_deleted')
    checkMayReact(acl, actorId)
    const { tx } = change
    const changed = removed ? await removeReaction(tx, row, actorId, emoji) : await insertReactionInTurn(tx, row, actorId, emoji)
    const reactions = await reactionsFor(tx, row, actorId)
    if (!changed) return reactions
    if (!removed && reactions.length > maxEmojis) throw new AppError('too_many_reactions')
    const { chat_id, seq, id } = row
    const version = change.nextVersion()
    await tx.query(sql`UPDATE messages SET version = ${version}, changed = true WHERE chat_id = ${chat_id} AND seq = ${seq}`)
    const count = reactions.find((reaction) => reaction.emoji === emoji)?.count ?? 0
    change.emitAt(version, [], () => ({
      type: 'reaction',
      chat_id,
      version,
      prev: version - 1,
      message_id: id,
      seq,
      emoji,
      user_id: actorId,
      removed,
      count,
    }))
    return reactions
  })
}
