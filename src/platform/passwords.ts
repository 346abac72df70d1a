import bcrypt from 'bcrypt'
import { createLimiter } from './limiter.ts'

/** Hashing of passwords: slow on purpose, so it happens in the thread pool and only so much of it at once. */
export interface Passwords {
  /** Throws `overloaded` when too many wait already. */
  hash(password: string): Promise<string>
  /**
   * Takes as long for a hash that is missing (an unknown account, one without a password) as for a real one.
   * Throws `overloaded` when too many wait already.
   */
  matches(password: string, hash: string | null | undefined): Promise<boolean>
}

export interface PasswordsOptions {
  /** bcrypt's cost, log2 of its rounds. */
  cost: number
  /** Hashes computed at once. libuv has four threads, and files and DNS need some of them. */
  workers?: number
  /** Callers that may wait: with two workers and 0.4 s a hash the last one waits 40 s. */
  maxWaiting?: number
}

// bcrypt reads no more, so what is longer could be guessed by its beginning.
const maxBytes = 72

export function createPasswords({ cost, workers = 2, maxWaiting = 200 }: PasswordsOptions): Passwords {
  // No password has this hash; comparing with it takes its time all the same.
  const nobody = `$2b$${String(cost).padStart(2, '0')}$${'.'.repeat(22)}${'.'.repeat(31)}`
  const inTurn = createLimiter(workers, maxWaiting)

  return {
    hash: (password) => inTurn(() => bcrypt.hash(password, cost)),
    async matches(password, hash) {
      const equal = await inTurn(() => bcrypt.compare(password, hash ?? nobody))
      return equal && hash != null && !password.includes('\0') && Buffer.byteLength(password) <= maxBytes
    },
  }
}
