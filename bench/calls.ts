import type { Pids, Shares } from './proc.ts'
import type { Percentiles, StreamResult, StreamSpec } from './tally.ts'

/** What the benchmark asks of its load generator, which is a process of its own. */

export interface PeerSpec {
  url: string
  token: string
  /** Its one chat, by index of `chats`; -1 for none. */
  chat: number
}

export interface LoadSpec {
  seconds: number
  streams: StreamSpec[]
  /** Whose share of the processor is wanted. */
  pids: Pids
  /** So long what is missing may still come after the last message. */
  drainMs?: number
}

export interface LoadResult {
  streams: StreamResult[]
  /** Of one processor, while messages were being sent; `generator` is this process. */
  shares: Shares
  /** From the last message until everything had arrived, ms. */
  drainMs: number
  /** Messages that did not arrive in the order of their versions, or with a hole before them. */
  unordered: number
  /** Arrived after their stream had been given up. */
  late: number
  /** Sockets that were closed, by code. */
  closes: Record<number, number>
  /** By how much the generator's own schedule was missed, 99 of 100 times: near the latencies, it is the generator that was measured. */
  lagP99: number
}

export interface Calls {
  /** `atOnce` handshakes under way. Resolves when all have answered `ready` or failed. */
  connect(input: { peers: PeerSpec[]; chats: string[]; atOnce: number }): { ms: number; failed: number; ready: Percentiles }
  load(input: LoadSpec): LoadResult
  /** These stop reading, and are not expected to hear everything any more. */
  pause(input: { peers: number[] }): null
  resume(input: { peers: number[] }): null
  /** Each asks `sync` for where it stands; needed before `comeBack`. */
  position(input: { peers: number[] }): null
  /** All connections of these are gone at once. */
  cut(input: { peers: number[] }): null
  /** They come back at random moments within `jitterMs` and sync; what the last load sent to their chat must be there, once. */
  comeBack(input: { peers: number[]; jitterMs: number; withinMs: number; pids: Pids }): {
    /** From the first one's return until the last one held everything. */
    ms: number
    /** Of each, from its own return. */
    each: Percentiles
    caughtUp: number
    missing: number
    duplicates: number
    shares: Shares
  }
  /** Sockets open now, and the codes by which others were closed. */
  state(input: null): { open: number; closes: Record<number, number> }
}

export type CallName = keyof Calls
export type Input<K extends CallName> = Parameters<Calls[K]>[0]
export type Output<K extends CallName> = ReturnType<Calls[K]>

export interface Request {
  id: number
  name: CallName
  input: unknown
}

/** Once a second during `load`, for plots. */
export interface Progress {
  seconds: number
  sent: number
  /** Deliveries that are still to come. */
  outstanding: number
  p95: number
}

export type Answer = { id: number; output: unknown } | { id: number; error: string } | { progress: Progress }
