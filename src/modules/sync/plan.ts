/**
 * Which chats an answer of `sync` tells, and how. A chat is `fresh` (the client has nothing of it, or too little to be
 * worth catching up): told anew with its newest page; `behind`: told what changed; `mine`: nothing but what is the user's
 * own changed; `ticks`: nothing did, but where others stand was asked for. Whatever does not fit is told by the next call,
 * which comes further by at least one chat; of `ticks`, as many are told as fit.
 */

export interface Candidate {
  chat_id: string
  version: number
  last_seq: number
  member_count: number
  /** Where its members stand is nobody's business. */
  is_channel: boolean
  /** The user's clock at the last change of what is theirs in this chat. */
  my_version: number
}

export interface Planned extends Candidate {
  kind: 'fresh' | 'behind' | 'mine' | 'ticks'
  /** The version from which the client catches up; 0 where it starts anew. */
  since: number
  /** The client had something and has to forget it. */
  reset: boolean
  /** Where others stand is told. */
  cursors: boolean
}

/** Further behind than this, a chat is told anew. */
export const maxLag = 1_000
/** Rows of messages, members and cursors that an answer may be made of, roughly. */
const maxRows = 5_000
const maxChats = 300

export interface Plan {
  chosen: Planned[]
  /** Chats that must wait for the next call. */
  left: Planned[]
}

export function plan(
  mine: readonly Candidate[],
  known: Readonly<Record<string, number>>,
  userVersion: number,
  limit: number,
  ticks: ReadonlySet<string> = new Set(),
  /** What is the user's own and changed from this version of their clock on must wait, for something before it does. */
  horizon = Infinity,
): Plan {
  const all = mine.map((chat) => classify(chat, known, userVersion, ticks)).filter((chat) => chat !== undefined)
  // Own changes in the order of the user's clock, so that it can say how far they were told; then what is waited for most.
  const rank = { mine: 0, behind: 1, fresh: 2, ticks: 3 }
  all.sort(
    (a, b) => rank[a.kind] - rank[b.kind] || (a.kind === 'mine' ? a.my_version - b.my_version : a.chat_id < b.chat_id ? 1 : -1),
  )
  const waits = (chat: Planned) => chat.kind === 'mine' && chat.my_version >= horizon
  const due = all.filter((chat) => !waits(chat))
  let rows = 0
  let count = 0
  while (count < due.length && count < maxChats) {
    rows += cost(due[count]!, limit)
    if (rows > maxRows && count > 0) break
    count += 1
  }
  const left = [...due.slice(count).filter((chat) => chat.kind !== 'ticks'), ...all.filter(waits)]
  return { chosen: due.slice(0, count), left }
}

function classify(
  chat: Candidate,
  known: Readonly<Record<string, number>>,
  userVersion: number,
  ticks: ReadonlySet<string>,
): Planned | undefined {
  const since = Object.hasOwn(known, chat.chat_id) ? known[chat.chat_id]! : undefined
  if (since === undefined) return { ...chat, kind: 'fresh', since: 0, reset: false, cursors: !chat.is_channel }
  // A client that is ahead of the database has seen a state that was lost, by restoring a backup perhaps.
  if (since > chat.version || chat.version - since > maxLag)
    return { ...chat, kind: 'fresh', since: 0, reset: true, cursors: !chat.is_channel }
  if (since < chat.version) return { ...chat, kind: 'behind', since, reset: false, cursors: !chat.is_channel }
  const cursors = ticks.has(chat.chat_id) && !chat.is_channel
  if (chat.my_version > userVersion) return { ...chat, kind: 'mine', since, reset: false, cursors }
  return cursors ? { ...chat, kind: 'ticks', since, reset: false, cursors } : undefined
}

function cost(chat: Planned, limit: number): number {
  const changes = chat.kind === 'fresh' ? chat.last_seq : chat.version - chat.since
  return 1 + Math.min(limit, changes) + (chat.cursors ? chat.member_count : 0)
}
