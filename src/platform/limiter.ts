import { AppError } from './errors.ts'

/** Runs at most so many at once; the others wait in line. */
export type Limiter = <T>(work: () => Promise<T>) => Promise<T>

/** More than `maxWaiting` in line are refused with `overloaded`. */
export function createLimiter(most: number, maxWaiting = 10_000): Limiter {
  let running = 0
  const waiting: (() => void)[] = []
  return async (work) => {
    if (running >= most) {
      if (waiting.length >= maxWaiting) throw new AppError('overloaded', { retryAfter: 1 })
      await new Promise<void>((resolve) => waiting.push(resolve))
    } else running += 1
    try {
      return await work()
    } finally {
      // The place is handed over, or given back.
      const next = waiting.shift()
      if (next) next()
      else running -= 1
    }
  }
}
