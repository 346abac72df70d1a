import { createHistogram, type RecordableHistogram } from 'node:perf_hooks'

/** What is counted of a stream of messages: each delivery of each message to each socket, once and in order. */

/** Milliseconds. */
export interface Percentiles {
  count: number
  p50: number
  p95: number
  p99: number
  max: number
}

/** High dynamic range, three digits, microseconds up to ten minutes. */
export const newHistogram = (): RecordableHistogram => createHistogram({ lowest: 1, highest: 600_000_000, figures: 3 })

export const record = (histogram: RecordableHistogram, ms: number): void => histogram.record(Math.max(1, Math.round(ms * 1_000)))

export function percentiles(histogram: RecordableHistogram): Percentiles {
  const at = (percent: number) => (histogram.count === 0 ? Number.NaN : histogram.percentile(percent) / 1_000)
  return {
    count: histogram.count,
    p50: at(50),
    p95: at(95),
    p99: at(99),
    max: histogram.count === 0 ? Number.NaN : histogram.max / 1_000,
  }
}

export interface StreamSpec {
  name: string
  /** Messages a second, all senders together, on a schedule that waits for nobody. */
  rate: number
  /** Indexes of peers, in whose order the messages are sent. Each writes to its own chat. */
  senders: number[]
  /** Of text in a message. */
  bytes: number
}

export interface StreamResult {
  name: string
  rate: number
  sent: number
  acked: number
  refused: number
  /** Deliveries that there must be, and those that there were, each message and socket counted once. */
  expected: number
  delivered: number
  duplicates: number
  /** Arrived where they do not belong. */
  stray: number
  /** Arrived while messages were still being sent, per second. */
  deliveriesPerSecond: number
  /** From the moment a message was due to its arrival at each socket. */
  delivery: Percentiles
  /** From the moment it was due to its sender's ack. */
  ack: Percentiles
}

/** One stream of messages, numbered from `first`; the number is the mark in the text. */
export class Tally {
  readonly spec: StreamSpec
  readonly first: number
  readonly planned: number
  /** When each message was due. */
  readonly due: Float64Array
  readonly delivery = newHistogram()
  readonly ack = newHistogram()
  sent = 0
  expected = 0
  delivered = 0
  deliveredInTime = 0
  duplicates = 0
  stray = 0
  refused = 0
  readonly #chatOf: (n: number) => number
  readonly #width: number
  readonly #seen: Uint8Array
  readonly #answered: Uint8Array

  /** `width`: sockets of the largest chat. */
  constructor(spec: StreamSpec, first: number, planned: number, width: number, chatOf: (n: number) => number) {
    this.spec = spec
    this.first = first
    this.planned = planned
    this.due = new Float64Array(planned)
    this.#width = width
    this.#chatOf = chatOf
    this.#seen = new Uint8Array(Math.ceil((planned * width) / 8))
    this.#answered = new Uint8Array(planned)
  }

  has(mark: number): boolean {
    return mark >= this.first && mark < this.first + this.sent
  }

  /** Answers how long it took, ms. */
  heard(mark: number, chat: number, slot: number, now: number, inTime: boolean): number {
    const n = mark - this.first
    const took = now - this.due[n]!
    if (this.#chatOf(n) !== chat) {
      this.stray += 1
      return took
    }
    const place = n * this.#width + slot
    const bit = 1 << (place & 7)
    if (this.#seen[place >> 3]! & bit) {
      this.duplicates += 1
      return took
    }
    this.#seen[place >> 3]! |= bit
    this.delivered += 1
    if (inTime) this.deliveredInTime += 1
    record(this.delivery, took)
    return took
  }

  answered(mark: number, now: number, refused: boolean): void {
    const n = mark - this.first
    if (this.#answered[n]) this.duplicates += 1
    this.#answered[n] = 1
    if (refused) {
      this.refused += 1
      return
    }
    record(this.ack, now - this.due[n]!)
  }

  get isComplete(): boolean {
    return this.sent === this.planned && this.ack.count + this.refused >= this.sent && this.delivered >= this.expected
  }

  result(seconds: number): StreamResult {
    const { spec, sent, refused, expected, delivered, duplicates, stray } = this
    return {
      name: spec.name,
      rate: spec.rate,
      sent,
      acked: this.ack.count,
      refused,
      expected,
      delivered,
      duplicates,
      stray,
      deliveriesPerSecond: this.deliveredInTime / seconds,
      delivery: percentiles(this.delivery),
      ack: percentiles(this.ack),
    }
  }
}
