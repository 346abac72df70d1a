import fc from 'fast-check'

/**
 * What a run does: steps, each a few actions that begin at once. Numbers are places in lists that grow during the run
 * (users, devices, chats, messages) and are taken modulo their length, so that a shrunk script still means something.
 */

export interface Place {
  /** Who acts: a device of all devices. */
  device: number
  chat: number
  /** The instance that a REST call goes to. */
  at: number
}

/** Who acts on a group: its owner, so that most changes are allowed, or just anybody. */
type Actor = { actor: 'owner' | 'anybody' }

interface Aim {
  which: number
  mine: boolean
  rest: boolean
}

export const raceOps = [
  'edit',
  'call',
  'delete',
  'delete_as_owner',
  'reply',
  'react',
  'unreact',
  'pin',
  'forward',
  'expel',
] as const
export type RaceOp = (typeof raceOps)[number]

export const relateOps = ['ask', 'accept', 'drop', 'part', 'block', 'unblock'] as const

export type Action =
  | ({ do: 'send'; rest: boolean; reply: number | undefined; call: number | undefined } & Place)
  /** The same client_id at once from two devices of a user over two instances. */
  | ({ do: 'send_twice' } & Place)
  /** A client_id that was used before, by the same user. */
  | ({ do: 'send_again'; which: number } & Place)
  | ({ do: 'read' | 'delivered'; rest: boolean; back: number } & Place)
  /** One of the last messages of the chat; by its sender, or by whoever acts. */
  | ({ do: 'edit'; call: number | undefined } & Aim & Place)
  | ({ do: 'delete' } & Aim & Place)
  | ({ do: 'react'; emoji: number; remove: boolean; twice: boolean } & Aim & Place)
  | ({ do: 'pin'; remove: boolean; which: number } & Actor & Place)
  | ({ do: 'forward'; which: number; to: number } & Place)
  /** All of this happens to one message at once, from both instances. */
  | ({ do: 'race'; which: number; ops: RaceOp[] } & Place)
  /** A member is called by name while the owner removes them. */
  | ({ do: 'call_and_remove'; target: number; rest: boolean } & Place)
  | ({ do: 'add'; target: number; fit: boolean } & Actor & Place)
  | ({ do: 'remove'; target: number; fit: boolean } & Actor & Place)
  | ({ do: 'role'; target: number; admin: boolean } & Actor & Place)
  | ({ do: 'transfer'; target: number } & Place)
  | ({ do: 'rename' } & Actor & Place)
  | ({ do: 'leave' | 'delete_group' | 'clear_dm' } & Place)
  | ({ do: 'create_group'; members: number } & Place)
  | ({ do: 'settings'; archived?: boolean | undefined; pinned?: boolean | undefined; muted?: boolean | undefined } & Place)
  | ({ do: 'relate'; op: (typeof relateOps)[number]; target: number } & Place)
  /** By the link into the first group. */
  | ({ do: 'join' } & Place)
  /** Of the channel, in runs that have one. */
  | ({ do: 'subscribe'; undo: boolean } & Place)
  /** The owner says something, and somebody reacts to it, or to what was said before. */
  | ({ do: 'post'; which: number; emoji: number; remove: boolean } & Place)
  | ({ do: 'staff'; target: number; admin: boolean } & Place)
  /** The two of a direct chat ask each other at once; both write while the one blocks the other, or no longer. */
  | ({ do: 'cross' | 'block_and_send'; undo: boolean } & Place)
  | { do: 'connect' | 'logout'; device: number; at: number }
  | { do: 'disconnect'; device: number }
  | { do: 'sync'; device: number; limit: number }
  /** The answer is applied so many steps later. */
  | ({ do: 'history'; before: number; delay: number } & Place)
  | { do: 'fault'; kind: Fault; at: number }
  | { do: 'pause'; ms: number }

export const faults = [
  'unkind',
  'kind',
  'outage',
  'restore',
  'disconnect_bus',
  'reconnect_bus',
  'lose_tell',
  'ambiguous_insert',
  'failed_insert',
  'ambiguous_transaction',
  'slow',
] as const
/** With these, news may get lost. */
export const losses: ReadonlySet<Fault> = new Set<Fault>(['outage', 'disconnect_bus', 'lose_tell', 'ambiguous_transaction'])
export type Fault = (typeof faults)[number]

export interface Step {
  actions: Action[]
  /** Waits for all that is under way, before the next step begins. */
  settle: boolean
}

export interface Script {
  seed: number
  /** Whether news may get lost. Where they may not, everybody is told without anything having to be found again. */
  lossy: boolean
  /** Everybody comes back at once while all talk, and then it is quiet: nothing later shows what was missed. */
  rush: boolean
  /** One of the chats is a public channel. */
  channel: boolean
  steps: Step[]
}

const n = fc.nat(999)
const at = fc.nat(1)
const place = { device: n, chat: n, at }
const actor = { actor: fc.constantFrom('owner', 'owner', 'anybody') }
const perhaps = fc.option(n, { nil: undefined, freq: 2 })
const aim = { which: n, mine: fc.constantFrom(true, true, true, false), rest: fc.boolean() }
const maybe = fc.option(fc.boolean(), { nil: undefined })
const rec = <T extends Action['do'], S extends object>(what: T, shape: S) => fc.record({ do: fc.constant(what), ...shape })

const action = fc.oneof(
  {
    weight: 22,
    arbitrary: rec('send', { ...place, rest: fc.boolean(), reply: fc.option(n, { nil: undefined, freq: 3 }), call: perhaps }),
  },
  { weight: 4, arbitrary: rec('send_twice', place) },
  { weight: 3, arbitrary: rec('send_again', { ...place, which: n }) },
  { weight: 7, arbitrary: rec('read', { ...place, rest: fc.boolean(), back: fc.integer({ min: -3, max: 6 }) }) },
  { weight: 6, arbitrary: rec('delivered', { ...place, rest: fc.constant(false), back: fc.integer({ min: -3, max: 6 }) }) },
  { weight: 7, arbitrary: rec('edit', { ...place, ...aim, call: perhaps }) },
  { weight: 3, arbitrary: rec('delete', { ...place, ...aim }) },
  {
    weight: 7,
    arbitrary: rec('react', { ...place, ...aim, emoji: n, remove: fc.constantFrom(false, false, true), twice: fc.boolean() }),
  },
  { weight: 2, arbitrary: rec('pin', { ...place, ...actor, which: n, remove: fc.boolean() }) },
  { weight: 3, arbitrary: rec('forward', { ...place, which: n, to: n }) },
  {
    weight: 8,
    arbitrary: rec('race', { ...place, which: n, ops: fc.array(fc.constantFrom(...raceOps), { minLength: 2, maxLength: 4 }) }),
  },
  { weight: 3, arbitrary: rec('call_and_remove', { ...place, target: n, rest: fc.boolean() }) },
  { weight: 7, arbitrary: rec('add', { ...place, ...actor, target: n, fit: fc.constantFrom(true, true, false) }) },
  { weight: 6, arbitrary: rec('remove', { ...place, ...actor, target: n, fit: fc.constantFrom(true, true, false) }) },
  { weight: 3, arbitrary: rec('role', { ...place, ...actor, target: n, admin: fc.boolean() }) },
  { weight: 1, arbitrary: rec('transfer', { ...place, target: n }) },
  { weight: 3, arbitrary: rec('rename', { ...place, ...actor }) },
  { weight: 3, arbitrary: rec('leave', place) },
  { weight: 1, arbitrary: rec('delete_group', place) },
  { weight: 1, arbitrary: rec('clear_dm', place) },
  { weight: 2, arbitrary: rec('create_group', { ...place, members: n }) },
  { weight: 5, arbitrary: rec('settings', { ...place, archived: maybe, pinned: maybe, muted: maybe }) },
  {
    weight: 9,
    arbitrary: rec('relate', { ...place, op: fc.constantFrom(...relateOps, 'ask', 'accept', 'unblock'), target: n }),
  },
  { weight: 2, arbitrary: rec('join', place) },
  { weight: 4, arbitrary: rec('subscribe', { ...place, undo: fc.constantFrom(true, false, false) }) },
  { weight: 4, arbitrary: rec('post', { ...place, which: n, emoji: n, remove: fc.constantFrom(false, false, true) }) },
  { weight: 2, arbitrary: rec('staff', { ...place, target: n, admin: fc.boolean() }) },
  { weight: 1, arbitrary: rec('cross', { ...place, undo: fc.constant(false) }) },
  { weight: 3, arbitrary: rec('block_and_send', { ...place, undo: fc.constantFrom(true, true, false) }) },
  { weight: 7, arbitrary: rec('connect', { device: n, at }) },
  { weight: 5, arbitrary: rec('disconnect', { device: n }) },
  { weight: 2, arbitrary: rec('logout', { device: n, at }) },
  { weight: 4, arbitrary: rec('sync', { device: n, limit: fc.integer({ min: 1, max: 4 }) }) },
  { weight: 4, arbitrary: rec('history', { ...place, before: n, delay: fc.nat(6) }) },
  { weight: 10, arbitrary: rec('fault', { kind: fc.constantFrom(...faults), at }) },
  { weight: 5, arbitrary: rec('pause', { ms: fc.nat(80) }) },
) as fc.Arbitrary<Action>

const step: fc.Arbitrary<Step> = fc.record({
  actions: fc.array(action, { minLength: 1, maxLength: 4 }),
  settle: fc.boolean(),
})

/** Long enough for faults to meet, short enough for some dozens of runs a minute. */
export const script: fc.Arbitrary<Script> = fc.record({
  seed: fc.nat(),
  lossy: fc.constantFrom(true, true, false),
  rush: fc.boolean(),
  channel: fc.constantFrom(false, false, true),
  steps: fc.array(step, { minLength: 12, maxLength: 26, size: 'max' }),
})

/** The same numbers for the same seed. */
export function seeded(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
}
