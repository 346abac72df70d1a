import { AppError } from '../../platform/errors.ts'

/** Runs what shares a key one after another; different keys do not wait for each other. */
export type Turns = <T>(key: string, work: () => Promise<T>) => Promise<T>

/** More than `maxWaiting` on one key are refused with `overloaded`. */
export function createTurns(maxWaiting = 200): Turns {
  const queues = new Map<string, { last: Promise<unknown>; length: number }>()

  return async (key, work) => {
    const queue = queues.get(key) ?? { last: Promise.resolve(), length: 0 }
    if (queue.length >= maxWaiting) throw new AppError('overloaded', { retryAfter: 5 })
    queue.length += 1
    queues.set(key, queue)
    const mine = queue.last.then(work)
    queue.last = mine.catch(() => {})
    try {
      return await mine
    } finally {
      queue.length -= 1
      if (queue.length === 0) queues.delete(key)
    }
  }
}
