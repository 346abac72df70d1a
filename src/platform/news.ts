/**
 * What one instance tells the others of a chat or of a user, and the form it travels in.
 *
 * A stream is a chat or a user; its events are numbered by its version. An event is serialised once, by whoever
 * committed the change; every instance hands the same bytes to its sockets.
 */

/** What an event does to who listens, beside being told. */
export type Effect =
  /** Chat stream: this user is a member from this version on. */
  | { joined: string }
  /** Chat stream: this user hears this event and nothing later. */
  | { left: string }
  /** Chat stream: the chat is gone; everybody hears this event and nothing later. */
  | { gone: true }
  /** User stream: subscribe this user to the chat, then tell `chat_added` as it stands then. Such an event has no frame. */
  | { attach: string }
  /** User stream: this user hears this channel no longer; nothing else tells of it. */
  | { detach: string }

/** An event that took a version of its stream. */
export interface Stamped {
  version: number
  /** The version before it; the receiver must have come at least this far. */
  prev: number
  /** JSON, as it goes to sockets. */
  frame: string
  effect?: Effect | undefined
  /** Unix ms of the commit, for the measure of delivery; only on messages told live. */
  at?: number | undefined
}

/** An event that took none: typing, cursors, presence. Told to who is there, or lost. */
export interface Passing {
  frame: string
  /** Only to these users. */
  to?: readonly string[] | undefined
  /** Not to this user. */
  not?: string | undefined
}

export type StreamId = `chat:${string}` | `user:${string}`

export interface News {
  /** Tells an instance's own sockets and all others. Call it after the commit, never before. */
  tell(stream: StreamId, events: readonly Stamped[]): void
  pass(stream: StreamId, event: Passing): void
  /** To these users, wherever they are connected: one publication on a channel that all instances share. */
  passTo(users: readonly string[], frame: string): void
}

export interface Envelope {
  events?: Stamped[]
  passing?: Passing
}

type Header = {
  i: string
  e?: [version: number, prev: number, effect: Effect | null, at?: number | undefined][]
  to?: readonly string[]
  not?: string | undefined
}

/** A header line, then one line per frame: JSON has no raw line breaks, so frames need no escaping and no parsing. */
export function encodeEvents(from: string, events: readonly Stamped[]): Buffer {
  const header: Header = { i: from, e: events.map((e) => [e.version, e.prev, e.effect ?? null, e.at]) }
  return Buffer.from(`${JSON.stringify(header)}\n${events.map((e) => e.frame).join('\n')}`)
}

export function encodePassing(from: string, { frame, to, not }: Passing): Buffer {
  const header: Header = { i: from, ...(to && { to }), ...(not !== undefined && { not }) }
  return Buffer.from(`${JSON.stringify(header)}\n${frame}`)
}

/** Whether the header names this instance: its own publication comes back, and need not be read. */
export function isFrom(instanceId: string, payload: Buffer): boolean {
  const start = '{"i":"'.length
  return payload.toString('latin1', start, start + instanceId.length) === instanceId
}

export function decode(payload: Buffer): Envelope {
  const [head = '', ...frames] = payload.toString().split('\n')
  const { e, to, not } = JSON.parse(head) as Header
  if (!e) return { passing: { frame: frames[0] ?? '', to, not } }
  return {
    events: e.map(([version, prev, effect, at], n) => ({
      version,
      prev,
      effect: effect ?? undefined,
      at,
      frame: frames[n] ?? '',
    })),
  }
}
