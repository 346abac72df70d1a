import type { ClientState } from '../client/state.ts'

/**
 * What two devices of one user must agree on. A live device may hold more of the history than a new one; what both hold
 * must be the same, and nothing may be missing after the first message that a device was told of.
 */

const bare = ({ status: _, delivered_count, read_count, view_count, ...message }: Record<string, unknown>) => message

const withoutMine = (message: Record<string, unknown>) => ({
  ...bare(message),
  reactions: (message.reactions as { emoji: string; count: number }[]).map(({ emoji, count }) => ({ emoji, count })),
})

export interface Likeness {
  /** Differences in what takes a version: there is no excuse for them. */
  stamped: string[]
  /** Differences in ticks, which are best effort until the next catching up. */
  ticks: string[]
}

/** Which reactions in channels are mine takes no version: a device that was just catching up may have missed it. */
export function compare(live: ClientState, fresh: ClientState): Likeness {
  const stamped: string[] = []
  const ticks: string[] = []
  const differ = (what: string, a: unknown, b: unknown) => {
    const [x, y] = [canonical(a), canonical(b)]
    if (x !== y) stamped.push(`${what}: live ${x}, fresh ${y}`)
  }
  differ('chats', [...live.chats.keys()].sort(), [...fresh.chats.keys()].sort())
  differ('user_version', live.userVersion, fresh.userVersion)
  differ('me', { ...live.me, last_seen: null }, { ...fresh.me, last_seen: null })
  differ('relations', relations(live), relations(fresh))
  for (const [id, b] of fresh.chats) {
    const a = live.chats.get(id)
    if (!a) continue
    const name = id.slice(-4)
    differ(`${name} version`, a.version, b.version)
    // Subscribers of a channel come and go untold.
    const shown = ({ chat }: typeof a) => (chat.type === 'channel' ? { ...chat, member_count: 0 } : chat)
    differ(`${name} chat`, shown(a), shown(b))
    // What a user's other devices have received is of no use to this one, and takes no version.
    differ(`${name} my`, { ...a.my, delivered_seq: 0 }, { ...b.my, delivered_seq: 0 })
    differ(`${name} last seq`, a.lastSeq, b.lastSeq)
    const members = (state: typeof a) =>
      [...state.members.values()].sort((x, y) => (x.user_id < y.user_id ? -1 : 1)).map((m) => ({ ...m, user: m.user.id }))
    differ(`${name} members`, members(a), members(b))
    for (const [seq, message] of b.messages) {
      const mine = a.messages.get(seq)
      const show = b.chat.type === 'channel' ? withoutMine : bare
      if (mine) differ(`${name} #${seq}`, show({ ...mine }), show({ ...message }))
    }
    const held = [...a.messages.keys()]
    for (let seq = Math.max(a.heldFrom, a.my.cleared_seq) + 1; seq <= a.lastSeq; seq += 1)
      if (!a.messages.has(seq)) stamped.push(`${name} #${seq} is missing (held: ${held.join()}; from ${a.heldFrom})`)
    differ(`${name} unread`, live.unread(id), fresh.unread(id))
    differ(`${name} mentions`, live.mentions(id), fresh.mentions(id))
    for (const [seq, message] of a.messages) {
      if (message.sender_id !== live.myId || message.message_type === 'system') continue
      const [x, y] = [live.status(id, seq), fresh.status(id, seq)]
      if (x !== y) ticks.push(`${name} #${seq}: live ${x} by ${cursors(a.cursors)}, fresh ${y} by ${cursors(b.cursors)}`)
    }
  }
  return { stamped, ticks }
}

/** What has ended may be known here and not there. How people look at the moment is not what was told then. */
const relations = (state: ClientState) =>
  [...state.relations.values()]
    .filter((each) => each.relation !== 'none')
    .sort((x, y) => (x.user_id < y.user_id ? -1 : 1))
    .map((each) => ({ ...each, user: each.user.id }))

/** JSON with the fields of every object in one order. */
const canonical = (value: unknown) =>
  JSON.stringify(value, (_key, v: unknown) =>
    v !== null && typeof v === 'object' && !Array.isArray(v) ? Object.fromEntries(Object.entries(v).sort()) : v,
  )

const cursors = (all: ReadonlyMap<string, object>) => JSON.stringify([...all.values()])
