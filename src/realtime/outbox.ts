import type { Socket } from 'node:net'

/**
 * What waits to be written to one socket. Frames of one turn of the event loop leave in one write: a system call costs
 * more than the bytes. The bound is on everything not yet taken by the kernel.
 */

/** Bytes that may wait for a peer that does not read. */
export const maxQueuedBytes = 1_048_576

let dirty: Outbox[] = []
let scheduled = false

function flushAll(): void {
  scheduled = false
  const boxes = dirty
  dirty = []
  for (const box of boxes) box.flush()
}

export class Outbox {
  #first: Buffer | undefined
  /** Made only when a second frame joins the first within one turn. */
  #rest: Buffer[] | undefined
  #bytes = 0
  readonly #socket: Socket
  readonly #onFull: () => void

  constructor(socket: Socket, onFull: () => void) {
    this.#socket = socket
    this.#onFull = onFull
  }

  /** Bytes waiting here and in the socket. */
  get queuedBytes(): number {
    return this.#bytes + this.#socket.writableLength
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
      if (!scheduled) {
        scheduled = true
        setImmediate(flushAll)
      }
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
    if (this.#socket.writable) this.#socket.write(rest === undefined ? first : Buffer.concat([first, ...rest]))
  }

  discard(): void {
    this.#first = undefined
    this.#rest = undefined
    this.#bytes = 0
  }
}
