import { randomFillSync } from 'node:crypto'
import { v7 } from 'uuid'

// One call for many ids: asking the system for 16 bytes at a time costs more than all the rest of making an id.
const pool = new Uint8Array(16 * 256)
let at = pool.length

function rng(): Uint8Array {
  if (at === pool.length) {
    randomFillSync(pool)
    at = 0
  }
  at += 16
  return pool.subarray(at - 16, at)
}

/** A UUIDv7 (RFC 9562): ids made later sort later, so that indexes grow at their right edge. */
export const newId = (): string => v7({ rng })
