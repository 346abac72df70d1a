/** Rate limits, counted where all instances see them. */
export interface Limits {
  /**
   * Counts `cost` (a whole number, 1 unless told; 0 only looks) against `key` in a fixed window of `rule`, which the
   * first hit opens. A refused hit counts too, but never prolongs the window. A rule that is off always allows.
   * Two rules under one name and key share a count, so that a change of rule does not start anew.
   * Never rejects: when the shared store is away, counting goes on locally (and shows in the metrics).
   */
  hit(name: string, key: string, rule: LimitRule, cost?: number): Promise<LimitState>
  /** Forgets what was counted for `key` under any rule. Never rejects; while the shared store is away, only locally. */
  reset(name: string, key: string): Promise<void>
  close(): Promise<void>
}

/** `points` per `windowMs`; `null` is off. */
export type LimitRule = { readonly points: number; readonly windowMs: number } | null

export interface LimitState {
  allowed: boolean
  /** Points of the rule; Infinity when it is off. */
  limit: number
  /** Points left in this window; Infinity when the rule is off. */
  remaining: number
  /** Milliseconds until the window starts anew. */
  resetMs: number
}

/** What a rule that is off answers. */
export const unlimited: LimitState = Object.freeze({ allowed: true, limit: Infinity, remaining: Infinity, resetMs: 0 })

/** What `rule` says to `consumed` points, in a window that has `resetMs` left. */
export function stateOf(rule: NonNullable<LimitRule>, consumed: number, resetMs: number): LimitState {
  return {
    allowed: consumed <= rule.points,
    limit: rule.points,
    remaining: Math.max(0, rule.points - consumed),
    resetMs: Math.max(0, Math.ceil(resetMs)),
  }
}
