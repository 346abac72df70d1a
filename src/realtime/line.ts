/** What a connection needs of what it speaks over. A WebSocket is such a line as it is; an event stream does as if it were one. */
export interface Line {
  on(event: 'message', listener: (data: Buffer, isBinary: boolean) => void): unknown
  on(event: 'ping' | 'pong' | 'error' | 'close', listener: () => void): unknown
  ping(): void
  pause(): void
  resume(): void
  /** Says why and ends once that is written. */
  close(code: number, reason: string): void
  /** Ends at once. */
  terminate(): void
}

/** Where an outbox writes ready-made frames to: a socket, mostly. */
export interface Sink {
  readonly writable: boolean
  /** Bytes that were written and that the kernel has not taken yet. */
  readonly writableLength: number
  write(frames: Buffer): unknown
}
