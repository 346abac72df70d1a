import type { Sink } from './line.ts'

/**
 * What waits to be written to one socket. Frames of one turn of the event loop (or, under load, a few) leave in one write: a system call costs
 * more than the bytes. The bound is on everything not yet taken by the kernel.
 */

/** Bytes that may wait for a peer that does not read. */
export const maxQueuedBytes = 1_048_576

/** However much there is to write, it waits no longer than this to be written together with what follows. */
const maxRestMs = 10

let dirty: Outbox[] = []
let scheduled = false
/** The frames joined last, and the result: a room's members mostly wait for the very same frames. */
let lastFrames: readonly Buffer[] = []
let lastJoined: Buffer = Buffer.alloc(0)
/** Not before this (performance.now): see `flushAll`. */
let restUntil = 0

function schedule(): void {
  scheduled = true
  const rest = restUntil - performance.now()
  if (rest > 0) setTimeout(flushAll, rest)
  else setImmediate(flushAll)
}

/**
 * Writing must leave time for everything else. After a round that took long the next one waits twice as long, so that it
 * finds more frames per socket: under load the number of writes stays bounded, on an idle server nothing waits.
 */
function flushAll(): void {
  scheduled = false
  const boxes = dirty
  dirty = []
  const start = performance.now()
  for (const box of boxes) box.flush()
  const end = performance.now()
  restUntil = end + Math.min(maxRestMs, 2 * (end - start))
  lastFrames = []
}

function join(frames: readonly Buffer[]): Buffer {
  if (frames.length !== lastFrames.length || frames.some((frame, n) => frame !== lastFrames[n])) {
    lastFrames = frames
    lastJoined = Buffer.concat(frames)
  }
  return lastJoined
}

export class Outbox {
  #first: Buffer | undefined
  /** Made only when a second frame joins the first within one turn. */
  #rest: Buffer[] | undefined
  #bytes = 0
  readonly #socket: Sink
  readonly #onFull: () => void

  constructor(socket: Sink, onFull: () => void) {
    this.#socket = socket
    this.#onFull = onFull
  }

  push(frame: Buffer): void {
    if (this.#bytes + frame.length + this.#socket.writableLength > maxQueuedBytes) {
      // A great deal in one turn is no sign of a slow peer: what the kernel takes now does not wait.
      this.flush()
      if (frame.length + this.#socket.writableLength > maxQueuedBytes) {
        this.#onFull()
        return
      }
    }
    this.#bytes += frame.length
    if (this.#first === undefined) {
      this.#first = frame
      dirty.push(this)
      if (!scheduled) schedule()
    } else if (this.#rest === undefined) this.#rest = [frame]
    else this.#rest.push(frame)
  }

  flush(): void {
    const first = this.#first
    if (first === undefined) return
    const rest = this.#rest
    this.#first = undefined
    this.#rest = undefined
    this.#bytes = 0
    if (this.#socket.writable) this.#socket.write(rest === undefined ? first : join([first, ...rest]))
  }

  discard(): void {
    this.#first = undefined
    this.#rest = undefined
    this.#bytes = 0
  }
}
