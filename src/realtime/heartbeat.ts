/**
 * One timer for all connections: each sits in one of `slots` and is looked at once a turn. A timer of its own would cost
 * every idle connection more memory than the rest of it.
 */
export interface Heartbeat<T> {
  add(item: T): void
  remove(item: T): void
  stop(): void
}

/** Calls `visit` on every item once per `intervalMs`, spread evenly. */
export function createHeartbeat<T>(intervalMs: number, visit: (item: T) => void, slots = 25): Heartbeat<T> {
  const wheel = Array.from({ length: slots }, () => new Set<T>())
  const place = new Map<T, Set<T>>()
  let at = 0
  let next = 0
  const timer = setInterval(() => {
    at = (at + 1) % slots
    for (const item of wheel[at]!) visit(item)
  }, intervalMs / slots)
  timer.unref()
  return {
    add(item) {
      next = (next + 1) % slots
      const slot = wheel[next]!
      slot.add(item)
      place.set(item, slot)
    },
    remove(item) {
      place.get(item)?.delete(item)
      place.delete(item)
    },
    stop: () => clearInterval(timer),
  }
}
