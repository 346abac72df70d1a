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

/** Words of 32 bits that a segment's messages take. */
const wordsOfSet = segmentSize / 32

/** Adds the set that stands in `bytes` from `at` to `end` to the set that begins at `from` in `sets`. */
function add(sets: Uint32Array, from: number, bytes: Buffer, at: number, end: number): void {
  if (end - at === bitmapBytes) {
    for (let n = 0; n < wordsOfSet; n += 1) sets[from + n]! |= bytes.readUInt32LE(at + 4 * n)
    return
  }
  for (let n = at; n < end; n += 2) {
    const offset = bytes.readUInt16BE(n)
    sets[from + (offset >> 5)]! |= 1 << (offset & 31)
  }
}

/**
 * Sets by place of the segment (`k`) and of what was asked (`n`), one after the other and ordered by `k`: each with four bytes
 * before it, two of `k`, one of `n`, one of its length. As one value they cost less to read than as a thousand rows.
 */
export function packedSets(bytes: Buffer) {
  let at = 0
  return {
    /** Adds the sets of segment `k` to those in `sets`, by `n`; to be called in the order of `k`. */
    take(k: number, sets: Uint32Array): void {
      while (at < bytes.length && bytes.readUInt16BE(at) === k) {
        const end = at + 4 + bytes[at + 3]!
        add(sets, bytes[at + 2]! * wordsOfSet, bytes, at + 4, end)
        at = end
      }
    },
  }
}

export const emptySets = (count: number) => new Uint32Array(count * wordsOfSet)

/** Offsets that are in all sets, the highest first. */
export function inAll(sets: Uint32Array): number[] {
  const offsets: number[] = []
  for (let word = wordsOfSet - 1; word >= 0; word -= 1) {
    let bits = 0xffff_ffff
    for (let n = word; n < sets.length; n += wordsOfSet) bits &= sets[n]!
    while (bits !== 0) {
      const bit = 31 - Math.clz32(bits)
      offsets.push(word * 32 + bit)
      bits &= ~(1 << bit)
    }
  }
  return offsets
}

/** Offsets of one stored set, in their order. */
export function decode(bytes: Buffer): number[] {
  const set = emptySets(1)
  add(set, 0, bytes, 0, bytes.length)
  return inAll(set).reverse()
}
