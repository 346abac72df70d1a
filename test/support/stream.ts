import { setTimeout as sleep } from 'node:timers/promises'
import { eventsOf, type StreamEvent } from '../client/events-link.ts'
import type { Frame } from './wire.ts'

/** An event stream as bare as it comes: everything that arrived is kept in its order. */
export class Stream {
  /** Everything, comments and `retry` too. */
  readonly all: StreamEvent[] = []
  readonly headers: Headers
  ended = false
  readonly #cut: AbortController

  private constructor(response: Response, cut: AbortController) {
    this.headers = response.headers
    this.#cut = cut
    void this.#read(response.body!).catch(() => {
      this.ended = true
    })
  }

  /** Rejects with `401 session_ended` and the like where no stream is given. */
  static async open(url: string, token: string, headers: Record<string, string> = {}): Promise<Stream> {
    const cut = new AbortController()
    const response = await fetch(`${url}/api/v1/events?token=${token}`, { headers, signal: cut.signal })
    if (response.ok) return new Stream(response, cut)
    throw new Error(`${response.status} ${((await response.json()) as { code: string }).code}`)
  }

  async #read(body: ReadableStream<Uint8Array>): Promise<void> {
    for await (const event of eventsOf(body)) this.all.push(event)
    this.ended = true
  }

  /** Without comments, which may come at any time: the heartbeat is one. */
  get events(): StreamEvent[] {
    return this.all.filter(({ comment }) => comment === undefined)
  }

  /** What a WebSocket would have had, as text. */
  get texts(): string[] {
    return this.all.flatMap(({ event, data }) => (event === undefined && data !== undefined ? [data] : []))
  }

  get frames(): Frame[] {
    return this.texts.map((text) => JSON.parse(text) as Frame)
  }

  /** Of the last event, where that is `close`. */
  get closedWith(): number | undefined {
    const last = this.events.at(-1)
    return last?.event === 'close' ? (JSON.parse(last.data!) as { code: number }).code : undefined
  }

  async next(test: (frame: Frame) => boolean, ms = 8_000): Promise<Frame> {
    for (const until = Date.now() + ms; ; await sleep(5)) {
      const found = this.frames.find(test)
      if (found) return found
      if (Date.now() > until || this.ended) throw new Error(`it did not come: ${JSON.stringify(this.all).slice(0, 2_000)}`)
    }
  }

  type(type: string): Promise<Frame> {
    return this.next((frame) => frame.type === type)
  }

  /** Resolves with the close code once the stream has ended. */
  async closed(ms = 10_000): Promise<number | undefined> {
    for (const until = Date.now() + ms; !this.ended; await sleep(5)) {
      if (Date.now() > until) throw new Error('the stream did not end')
    }
    return this.closedWith
  }

  end(): void {
    this.#cut.abort()
  }
}
