import { type Queryable, sql } from '../../platform/db/db.ts'
import type { Limiter } from '../../platform/limiter.ts'
import type { Chat, Cursor, Me, Member, Message, SyncAnswer, SyncChat, UserBrief } from '../../protocol/resources.ts'
import {
  activeMembers,
  type ChatDeps,
  changedMembers,
  chatRows,
  chatViews,
  cursorsOf,
  isUntold,
  memberViews,
} from '../chats/index.ts'
import { changedRelations, relationViews } from '../contacts/index.ts'
import { changedMessages, type Found, messageViews, newestMessages } from '../messages/index.ts'
import { type Candidate, type Planned, plan } from './plan.ts'

/**
 * Everything that changed since, read in one snapshot: a row that commits later has a version above the one told, so
 * that the next call brings it. Bounded in rows and bytes; applying an answer twice changes nothing.
 */

export interface SyncDeps {
  chats: ChatDeps
  me: (userId: string) => Promise<Me>
  /** A snapshot holds a connection while others are asked for: so many at once, and no more. */
  limiter: Limiter
}

export interface SyncInput {
  chats: Readonly<Record<string, number>>
  user_version: number
  limit: number
  /** Chats whose cursors are told though nothing else has changed. */
  ticks: readonly string[]
}

/** Below the bound of a connection's send queue (1 MiB), with room for the frame around. */
const maxBytes = 900_000
/** Text read from the database for one answer. */
const maxTextBytes = 400_000
/** Contacts, requests and blocks in one answer: at their longest less than half of its bytes. */
const maxRelationsTold = 100
/** Of a larger group, the rest is listed by `GET /chats/:id/members`. */
const maxMembersTold = 1_000

export function sync(deps: SyncDeps, userId: string, input: SyncInput): Promise<SyncAnswer> {
  return deps.limiter(async () => {
    const { entries, removed, complete, relationRows, relations_reset, toldUpTo } = await deps.chats.db.snapshot((tx) =>
      read(deps, tx, userId, input),
    )
    const me = await deps.me(userId)
    const relations = await relationViews(deps.chats, relationRows)
    const packed = pack(entries, relations.length > 0 ? sizeOf(relations) : 0)
    const untold = entries.slice(packed.length).some(({ planned }) => planned.kind !== 'ticks')
    const has_more = !complete || untold || packed.some((entry) => entry.told.has_more)
    // The user's clock moves only so far as all that it counts has been told.
    return {
      chats: packed.map((entry) => entry.told),
      removed,
      relations,
      relations_reset,
      me,
      user_version: toldUpTo(packed.length),
      has_more,
      server_time: new Date().toISOString(),
    }
  })
}

interface Entry {
  planned: Planned
  told: SyncChat
}

async function read(deps: SyncDeps, tx: Queryable, userId: string, input: SyncInput) {
  const rows = await tx.query<Candidate & { clock: number }>(sql`
    SELECT u.version AS clock, k.chat_id, k.version, k.last_seq, k.member_count, c.type = 'channel' AS is_channel, uc.version AS my_version
    FROM user_clock u
    LEFT JOIN (user_chats uc JOIN chat_counters k ON k.chat_id = uc.chat_id JOIN chats c ON c.id = uc.chat_id AND c.deleted_at IS NULL)
      ON uc.user_id = u.user_id AND uc.is_member
    WHERE u.user_id = ${userId}`)
  const clock = rows[0]?.clock ?? 0
  const mine = rows.filter((row) => row.chat_id !== null)
  const present = new Set(mine.map((row) => row.chat_id))
  const removed = Object.keys(input.chats).filter((id) => !present.has(id))
  // A client that is ahead of the database has seen a state that was lost.
  const relations_reset = input.user_version > clock
  const from = relations_reset ? 0 : input.user_version
  const changed = await changedRelations(tx, userId, from, maxRelationsTold + 1)
  const relationRows = changed.slice(0, maxRelationsTold)
  const horizon = changed[maxRelationsTold]?.version ?? Infinity
  const { chosen, left } = plan(mine, input.chats, from, input.limit, new Set(input.ticks), horizon)
  const { entries, starved } = await describe(deps, tx, userId, chosen, input.limit)
  const own = [...chosen, ...left].filter((chat) => chat.kind === 'mine').map((chat) => chat.my_version)
  return {
    entries,
    removed,
    relationRows,
    relations_reset,
    complete: left.length === 0 && !starved && horizon === Infinity,
    // Up to what comes first of all that had to wait. Chats of the user's own changes come first among the entries.
    toldUpTo: (count: number): number => Math.min(clock, horizon - 1, ...own.slice(count).map((version) => version - 1)),
  }
}

/**
 * The entries of an answer, in the order of `chosen`; the number of queries does not depend on how many. `starved`: of some
 * chats, which are left out, no message could be read, because those before them were so long.
 */
async function describe(
  deps: SyncDeps,
  tx: Queryable,
  userId: string,
  chosen: readonly Planned[],
  limit: number,
): Promise<{ entries: Entry[]; starved: boolean }> {
  const { chats } = deps
  const ids = chosen.map((c) => c.chat_id)
  const rows = new Map((await chatRows(tx, userId, ids)).map((row) => [row.chat_id, row]))
  const planned = chosen.flatMap((c) => {
    const row = rows.get(c.chat_id)
    return row ? [{ ...c, row, cleared_seq: row.cleared_seq }] : []
  })
  const cursorRows = await cursorsOf(
    tx,
    planned.filter((c) => c.cursors && c.member_count <= maxMembersTold).map((c) => c.chat_id),
  )
  const cursors = Map.groupBy(cursorRows, (row) => row.chat_id)
  const behind = planned.filter((c) => c.kind === 'behind')
  const fresh = planned.filter((c) => c.kind === 'fresh')
  const changed = await changedMessages(tx, behind, limit, maxTextBytes)
  const newest = await newestMessages(tx, fresh, limit, maxTextBytes)
  const unreached = new Set(
    [...behind.filter((c) => !changed.has(c.chat_id)), ...fresh.filter((c) => !newest.has(c.chat_id))].map((c) => c.chat_id),
  )
  const upTo = new Map(planned.map((c) => [c.chat_id, reached(c, changed.get(c.chat_id))]))
  const changedRows = await changedMembers(
    tx,
    behind.map((c) => ({ chat_id: c.chat_id, since: c.since, until: upTo.get(c.chat_id)! })),
  )
  const memberRows = [
    ...changedRows.filter((row) => !isUntold(row)),
    ...(await activeMembers(
      tx,
      fresh.map((c) => c.chat_id),
      maxMembersTold,
    )),
  ]
  const members = groupMembers(
    memberRows.map((row) => row.chat_id),
    await memberViews(chats, memberRows),
  )
  const told = await messageViews(
    tx,
    chats.briefs,
    userId,
    [...changed.values(), ...newest.values()].flatMap((found) => found.rows),
    cursors,
  )
  const messages = Map.groupBy(told, (message) => message.chat_id)
  const last = new Map(
    told.flatMap((message) => {
      const { last_seq, cleared_seq } = rows.get(message.chat_id)!
      return message.seq === last_seq && last_seq > cleared_seq ? [[message.chat_id, message] as const] : []
    }),
  )
  const summed = await chatViews(
    chats,
    tx,
    userId,
    planned.map((c) => c.row),
    { cursors, last },
  )
  const views = new Map(summed.map((chat) => [chat.id, chat]))
  const entries = planned
    .filter((c) => !unreached.has(c.chat_id))
    .map((c) => ({
      planned: c,
      told: entry(
        c,
        views.get(c.chat_id)!,
        messages.get(c.chat_id) ?? [],
        members.get(c.chat_id) ?? [],
        (cursors.get(c.chat_id) ?? []).map(cursor),
        upTo.get(c.chat_id)!,
      ),
    }))
  return { entries, starved: unreached.size > 0 }
}

const cursor = ({ user_id, read_seq, delivered_seq, joined_seq }: Cursor): Cursor => ({
  user_id,
  read_seq,
  delivered_seq,
  joined_seq,
})

/** The version up to which an entry is complete. */
function reached(chat: Planned, found: Found | undefined): number {
  return found?.cut ? (found.rows.at(-1)?.version ?? chat.since) : chat.version
}

function entry(chat: Planned, view: Chat, messages: Message[], members: Member[], cursors: Cursor[], version: number): SyncChat {
  return { chat: view, messages, members, cursors, version, has_more: version < chat.version, reset: chat.reset }
}

function groupMembers(chatIds: readonly string[], views: readonly Member[]): Map<string, Member[]> {
  const grouped = new Map<string, Member[]>()
  for (const [n, view] of views.entries()) {
    const mine = grouped.get(chatIds[n]!)
    if (mine) mine.push(view)
    else grouped.set(chatIds[n]!, [view])
  }
  return grouped
}

const sizeOf = (value: unknown) => Buffer.byteLength(JSON.stringify(value))

const lengthOf = ({ display_name, username, avatar_url }: UserBrief) =>
  display_name.length + (username?.length ?? 0) + (avatar_url?.length ?? 0)

/**
 * Never less than an entry's size, without making its JSON. A character takes 6 bytes at most; what is not text (names of
 * fields, ids, numbers, times) is counted generously.
 */
function boundOf({ chat, messages, members, cursors }: SyncChat): number {
  let bytes = 2_500 + 150 * cursors.length
  let characters =
    chat.description.length + (chat.name?.length ?? 0) + (chat.peer ? chat.peer.bio.length + 2 * lengthOf(chat.peer) : 0)
  for (const { user } of members) {
    bytes += 500
    characters += lengthOf(user)
  }
  for (const message of chat.last_message ? [chat.last_message, ...messages] : messages) {
    const { reply_to, forwarded_from, reactions, mentions, system } = message
    bytes +=
      1_000 +
      100 * reactions.length +
      40 * mentions.length +
      (reply_to ? 300 : 0) +
      (forwarded_from ? 250 : 0) +
      (system ? 350 : 0)
    characters += message.content.length + lengthOf(message.sender) + 20 * reactions.length + (system?.name?.length ?? 0)
    if (reply_to) characters += reply_to.content.length + lengthOf(reply_to.sender)
    if (forwarded_from) characters += lengthOf(forwarded_from.sender)
  }
  return bytes + 6 * characters
}

/** As many entries as fit beside what has `used` some of the bytes; the first one is made to fit, where it stands alone. */
function pack(entries: readonly Entry[], used: number): Entry[] {
  const packed: Entry[] = []
  let bytes = used
  // The usual answer is far from the bound, and need not be written out to be measured.
  if (entries.reduce((sum, { told }) => sum + boundOf(told), used) <= maxBytes) return [...entries]
  for (const entry of entries) {
    const size = sizeOf(entry.told)
    if (bytes + size > maxBytes) {
      if (bytes === 0) packed.push(shorten(entry))
      break
    }
    bytes += size
    packed.push(entry)
  }
  return packed
}

/** Escapes can make JSON six times as long as the text: keeps half of the messages until it fits. */
function shorten({ planned, told }: Entry): Entry {
  let { messages } = told
  while (messages.length > 1 && sizeOf({ ...told, messages }) > maxBytes) {
    const half = Math.ceil(messages.length / 2)
    messages = planned.kind === 'fresh' ? messages.slice(-half) : messages.slice(0, half)
  }
  if (planned.kind === 'fresh' || messages.length === told.messages.length) return { planned, told: { ...told, messages } }
  const version = messages.at(-1)!.version
  const members = told.members.filter((member) => member.version <= version)
  return { planned, told: { ...told, messages, members, version, has_more: true } }
}
