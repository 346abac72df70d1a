/**
 * Which messages of a segment have a word: at most 63 numbers of two bytes each, or, from there on, a bit for each of
 * the 1,024. The length says which of the two it is.
 */

export const segmentSize = 1_024
const bitmapBytes = segmentSize / 8

export const segmentOf = (seq: number): number => Math.floor(seq / segmentSize)
/** A message's number within its segment. */
export const offsetOf = (seq: number): number => seq % segmentSize

/** As hexadecimal digits, for `decode(…, 'hex')`. */
export function encode(offsets: Iterable<number>): string {
  const sorted = [...new Set(offsets)].sort((a, b) => a - b)
  if (sorted.length * 2 < bitmapBytes) {
    const bytes = Buffer.alloc(sorted.length * 2)
    for (const [n, offset] of sorted.entries()) bytes.writeUInt16BE(offset, n * 2)
    return bytes.toString('hex')
  }
  const bits = Buffer.alloc(bitmapBytes)
  // As get_bit of PostgreSQL counts them.
  for (const offset of sorted) bits[offset >> 3]! |= 1 << (offset & 7)
  return bits.toString('hex')
}

export function decode(bytes: Uint8Array): number[] {
  const offsets: number[] = []
  if (bytes.length === bitmapBytes) {
    for (let n = 0; n < segmentSize; n += 1) if (bytes[n >> 3]! & (1 << (n & 7))) offsets.push(n)
  } else for (let n = 0; n < bytes.length; n += 2) offsets.push((bytes[n]! << 8) | bytes[n + 1]!)
  return offsets
}

/** Sets `bit` in `marks` at the place of each message of the set. */
export function mark(bytes: Uint8Array, marks: Uint32Array, bit: number): void {
  if (bytes.length !== bitmapBytes) {
    for (let n = 0; n < bytes.length; n += 2) marks[(bytes[n]! << 8) | bytes[n + 1]!]! |= bit
    return
  }
  for (const [n, byte] of bytes.entries()) {
    if (byte === 0) continue
    for (let k = 0; k < 8; k += 1) if (byte & (1 << k)) marks[n * 8 + k]! |= bit
  }
}
