import type { LoadResult } from './calls.ts'
import type { Generator } from './generator.ts'
import { percent, type Row } from './report.ts'
import type { Stack } from './stack.ts'

/** One rate after the other, until the server does not keep up. */

/** A step is kept when all arrived, once and in order, and 95 of 100 deliveries took no longer than this. */
export const keptMs = 100
const deliveredShare = 0.9999

export interface Step {
  rate: number
  result: LoadResult
  kept: boolean
  /** Why it was not. */
  why: string
  deliveriesPerSecond: number
  p95: number
}

export interface StepOptions {
  senders: number[]
  seconds: number
  bytes?: number
}

/** Text in a message: a sentence or two. */
export const usualBytes = 100

export async function step(generator: Generator, stack: Pick<Stack, 'pids'>, rate: number, options: StepOptions): Promise<Step> {
  const { senders, seconds, bytes = usualBytes } = options
  const result = await generator.ask('load', { seconds, streams: [{ name: 'all', rate, senders, bytes }], pids: stack.pids })
  const stream = result.streams[0]!
  const { expected, delivered, refused, duplicates, stray, delivery } = stream
  const closes = Object.entries(result.closes).map(([code, count]) => `${count} closed with ${code}`)
  const reasons = [
    delivered < expected * deliveredShare && `${expected - delivered} lost`,
    stream.acked + refused < stream.sent && `${stream.sent - stream.acked - refused} unanswered`,
    refused > 0 && `${refused} refused`,
    duplicates > 0 && `${duplicates} twice`,
    stray > 0 && `${stray} astray`,
    result.unordered > 0 && `${result.unordered} out of order`,
    result.late > 0 && `${result.late} from before`,
    ...closes,
    delivery.p95 > keptMs && 'slow',
  ].filter((reason) => typeof reason === 'string')
  return {
    rate,
    result,
    kept: reasons.length === 0,
    why: reasons.join(', '),
    deliveriesPerSecond: stream.deliveriesPerSecond,
    p95: delivery.p95,
  }
}

export function stepRow(step: Step): Row {
  const { result, rate } = step
  const stream = result.streams[0]!
  return {
    'msg/s': rate,
    sent: stream.sent,
    delivered:
      stream.expected === 0
        ? '–'
        : `${((100 * stream.delivered) / stream.expected).toFixed(stream.delivered === stream.expected ? 0 : 3)} %`,
    'deliveries/s': Math.round(step.deliveriesPerSecond),
    'p50 ms': stream.delivery.p50,
    'p95 ms': stream.delivery.p95,
    'p99 ms': stream.delivery.p99,
    'max ms': stream.delivery.max,
    'ack p95': stream.ack.p95,
    ...shareCells(result),
    'lag p99': result.lagP99,
    kept: step.kept ? 'yes' : `no: ${step.why}`,
  }
}

/** Shares of one processor. */
export const shareCells = ({ shares }: Pick<LoadResult, 'shares'>): Row => ({
  generator: percent(shares.generator ?? Number.NaN),
  server: percent(shares.server ?? Number.NaN),
  postgres: percent(shares.postgres ?? Number.NaN),
  redis: percent(shares.redis ?? Number.NaN),
  other: percent(shares.other ?? Number.NaN),
})

export interface Climb {
  from: number
  /** Nobody is asked for more than this. */
  most?: number
  /** Steps between the last kept rate and the first that was not. */
  refine?: number
}

/**
 * Doubles the rate until a step is not kept, then halves the distance a few times. All steps, in the order they were
 * made. A step that is not kept is made once more: on a machine with other work, one bad moment says little.
 */
export async function climb({ from, most = 51_200, refine = 2 }: Climb, one: (rate: number) => Promise<Step>): Promise<Step[]> {
  const steps: Step[] = []
  const isKept = async (rate: number) => {
    for (let tries = 0; tries < 2; tries += 1) {
      const made = await one(rate)
      steps.push(made)
      if (made.kept) return true
    }
    return false
  }
  let low = 0
  let high = 0
  for (let rate = from; rate <= most && high === 0; rate *= 2) {
    if (await isKept(rate)) low = rate
    else high = rate
  }
  // Even the first was too much.
  for (let rate = from / 2; low === 0 && rate >= 1 && rate >= from / 8; rate /= 2) {
    if (await isKept(rate)) low = rate
    else high = rate
  }
  for (let n = 0; n < refine && high > 0 && low > 0; n += 1) {
    const rate = Math.round((low + high) / 2)
    if (await isKept(rate)) low = rate
    else high = rate
  }
  return steps
}

export const best = (steps: readonly Step[]): Step | undefined =>
  steps.filter(({ kept }) => kept).reduce<Step | undefined>((top, made) => (top && top.rate > made.rate ? top : made), undefined)
