/** Rate limits, counted where all instances see them. */
export interface Limits {
  /**
   * Counts `cost` against `key` in a fixed window of `rule`. A rule that is off always allows.
   * Never rejects: when the shared store is away, counting goes on locally (and shows in the metrics).
   */
  hit(name: string, key: string, rule: LimitRule, cost?: number): Promise<LimitState>
  /** Forgets what was counted for `key`. */
  reset(name: string, key: string): Promise<void>
  close(): Promise<void>
}

/** `points` per `windowMs`; `null` is off. */
export type LimitRule = { readonly points: number; readonly windowMs: number } | null

export interface LimitState {
  allowed: boolean
  limit: number
  remaining: number
  /** Milliseconds until the window starts anew. */
  resetMs: number
}
