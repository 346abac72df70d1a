import { sql } from '../../platform/db/db.ts'
import type { Limiter } from '../../platform/limiter.ts'
import type { Stamped } from '../../platform/news.ts'
import { frame } from '../../protocol/events.ts'
import type { Me, Member, MessageEvent } from '../../protocol/resources.ts'
import {
  type ChatDeps,
  changedMembers,
  chatRows,
  chatViews,
  isUntold,
  type LockedChat,
  type MemberRow,
  memberViews,
  neutralChat,
} from '../chats/index.ts'
import { changedRelations, relationViews } from '../contacts/index.ts'
import { changedMessages, messageEvents, newMessage } from '../messages/index.ts'

/**
 * What the bus lost, read from PostgreSQL and told as the events would have been. A row that changed twice is told once,
 * under its last version: the versions in between are skipped, so that `prev` is that of the event told before.
 */

export interface StreamDeps {
  chats: ChatDeps
  me: (userId: string) => Promise<Me>
  limiter: Limiter
}

interface StreamPage {
  events: Stamped[]
  version: number
  more: boolean
}

const pageSize = 200
const pageBytes = 1_000_000

type Untold = Omit<Stamped, 'prev' | 'frame'> & { frame: (prev: number) => string }

/** A chat's changes after `since`, a page of them. */
export function chatChanges(deps: StreamDeps, chatId: string, since: number): Promise<StreamPage> {
  return deps.limiter(() =>
    deps.chats.db.snapshot(async (tx) => {
      const [chat] = await tx.query<LockedChat & { row_version: number; deleted: boolean }>(sql`
        SELECT c.id, c.type, c.name, c.description, c.avatar, c.slug, c.owner_id, c.is_public, c.created_at, c.version AS row_version,
          c.deleted_at IS NOT NULL AS deleted, k.last_seq, k.version, k.acl_version, k.member_count
        FROM chat_counters k JOIN chats c ON c.id = k.chat_id WHERE k.chat_id = ${chatId}`)
      if (!chat || chat.version <= since) return { events: [], version: since, more: false }
      const range = { chat_id: chatId, since, version: chat.version, last_seq: chat.last_seq, cleared_seq: 0 }
      const found = (await changedMessages(tx, [range], pageSize, pageBytes)).get(chatId)!
      const until = found.cut ? found.rows.at(-1)!.version : chat.version
      const untold: Untold[] = []
      for (const [n, message] of (await messageEvents(tx, deps.chats.briefs, found.rows)).entries())
        untold.push(untoldMessage(chat, message, found.rows[n]!.changed))
      const members = await changedMembers(tx, [{ chat_id: chatId, since, until }])
      const views = await memberViews(deps.chats, members)
      for (const [n, member] of members.entries()) untold.push(untoldMember(chat, member, views[n]!))
      if (chat.row_version > since && chat.row_version <= until) {
        const { row_version: version, deleted } = chat
        untold.push({
          version,
          effect: deleted ? { gone: true } : undefined,
          frame: (prev) =>
            frame({ type: 'chat_updated', chat_id: chatId, version, prev, chat: neutralChat(chat), ...(deleted && { deleted }) }),
        })
      }
      return { events: chain(untold, since), version: until, more: until < chat.version }
    }),
  )
}

/**
 * Into a channel nobody comes by what is told in it: subscribers leave without a version, so that an older coming, told late,
 * would keep them listening. `attach` on their own stream does it.
 */
function untoldMember(chat: LockedChat, row: MemberRow, member: Member): Untold {
  const { user_id, version, left_at } = row
  const chat_id = chat.id
  if (left_at === null)
    return {
      version,
      effect: chat.type === 'channel' ? undefined : { joined: user_id },
      frame: (prev) => frame({ type: 'member_joined', chat_id, version, prev, user_id, member }),
    }
  return {
    version,
    effect: { left: user_id },
    frame: (prev) =>
      isUntold(row)
        ? frame({ type: 'chat_updated', chat_id, version, prev, chat: neutralChat(chat) })
        : frame({ type: 'member_left', chat_id, version, prev, user_id }),
  }
}

/**
 * A message that changed since it was sent is told as changed, whether or not it was heard of before. Who reacted is not
 * in it, and the last change may be the viewer's own reaction: with reactions it follows on from nothing, so that clients
 * ask `sync`. In channels reactors hear of their own reactions by themselves, and ten thousand do not ask at once.
 */
function untoldMessage({ type }: LockedChat, message: MessageEvent, changed: boolean): Untold {
  const { chat_id, version, id: message_id, seq } = message
  if (!changed) return { version, frame: (prev) => newMessage(message, prev).frame }
  return {
    version,
    frame: (last) => {
      const prev = message.reactions.length > 0 && type !== 'channel' ? version : last
      return message.deleted_at === null
        ? frame({ type: 'message_edited', chat_id, version, prev, message })
        : frame({ type: 'message_deleted', chat_id, version, prev, message_id, seq, message })
    },
  }
}

/** In the order of their versions, each following on from the one before it. */
function chain(untold: Untold[], since: number): Stamped[] {
  let prev = since
  return untold
    .sort((a, b) => a.version - b.version)
    .map(({ version, effect, frame }) => {
      const event = { version, prev, effect, frame: frame(prev) }
      prev = version
      return event
    })
}

interface OwnChange {
  clock: number
  chat_id: string | null
  version: number
  is_member: boolean
  is_channel: boolean
}

/**
 * What is a user's own and changed after `since`. Each chat is told whole, each relation as it stands; the profile last, at
 * the clock's own time. The clock is read in the same snapshot as the rest, so that nothing below it is left out.
 */
export function userChanges(deps: StreamDeps, userId: string, since: number): Promise<StreamPage> {
  return deps.limiter(async () => {
    const { rows, relations } = await deps.chats.db.snapshot(async (tx) => ({
      rows: await tx.query<OwnChange>(sql`
        SELECT u.version AS clock, c.chat_id, c.version, c.is_member, (SELECT type = 'channel' FROM chats WHERE id = c.chat_id) AS is_channel
        FROM user_clock u LEFT JOIN user_chats c ON c.user_id = u.user_id AND c.version > ${since}
        WHERE u.user_id = ${userId} ORDER BY c.version LIMIT ${pageSize + 1}`),
      relations: await changedRelations(tx, userId, since, pageSize + 1),
    }))
    const clock = rows[0]?.clock ?? since
    if (clock <= since) return { events: [], version: since, more: false }
    const changed = rows.filter((row) => row.chat_id !== null)
    // Of both, in the order of the clock they share, as many as make a page.
    const versions = [...changed, ...relations].map((row) => row.version).sort((a, b) => a - b)
    const more = versions.length > pageSize
    const until = more ? versions[pageSize - 1]! : clock
    const untold: Untold[] = changed
      .filter(({ version }) => version <= until)
      .map(({ chat_id, version, is_member, is_channel }) => ({
        version,
        effect: is_member ? { attach: chat_id! } : is_channel ? { detach: chat_id! } : undefined,
        frame: (prev) =>
          is_member ? '' : frame({ type: 'chat_removed', user_version: version, user_prev: prev, chat_id: chat_id! }),
      }))
    const told = relations.filter(({ version }) => version <= until)
    for (const relation of await relationViews(deps.chats, told)) {
      const { version } = relation
      untold.push({
        version,
        frame: (prev) => frame({ type: 'relation_updated', user_version: version, user_prev: prev, relation }),
      })
    }
    if (!more && (versions.at(-1) ?? since) < clock) {
      const me = await deps.me(userId)
      untold.push({ version: clock, frame: (prev) => frame({ type: 'me_updated', user_version: clock, user_prev: prev, me }) })
    }
    return { events: chain(untold, since), version: until, more }
  })
}

/** `chat_added` as it stands now; undefined when the chat is not this user's any more. */
export async function chatAdded(
  deps: StreamDeps,
  userId: string,
  chatId: string,
  stamp: { version: number; prev: number },
): Promise<{ frame: string; version: number } | undefined> {
  const { chats } = deps
  const rows = await chatRows(chats.db, userId, [chatId])
  const [chat] = await chatViews(chats, chats.db, userId, rows)
  if (!chat) return undefined
  return { version: chat.version, frame: frame({ type: 'chat_added', user_version: stamp.version, user_prev: stamp.prev, chat }) }
}
