import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Answer, CallName, Input, LoadSpec, Output, Progress, Request } from './calls.ts'
import { chats, closes, connect, leaveOut, listen, peers, sizes, those, widest } from './crowd.ts'
import { meter } from './proc.ts'
import { comeBack, position } from './return.ts'
import { newHistogram, percentiles, record, Tally } from './tally.ts'
import { messageFrame } from './wire.ts'

/**
 * The load generator. Open-loop: what is due is sent, whatever was answered so far, and times count from when it was due,
 * so that a stall of the server shows in full instead of slowing down the one who measures it.
 */

let tallies: Tally[] = []
let nextMark = 0
/** Between the first and the last message of a load. */
let sending = false
let unordered = 0
let late = 0
/** Of the second that is under way. */
let recent = newHistogram()

const tallyOf = (mark: number): Tally | undefined => tallies.find((tally) => tally.has(mark))

const listener: Parameters<typeof listen>[0] = {
  heard(peer, mark, inOrder, now) {
    if (!peer.counts) return
    if (!inOrder) unordered += 1
    const tally = tallyOf(mark)
    if (!tally) late += 1
    else record(recent, tally.heard(mark, peer.chat, peer.slot, now, sending))
  },
  answered(peer, mark, refused, now) {
    const tally = tallyOf(mark)
    tally?.answered(mark, now, refused)
    // What was refused is owed to nobody.
    if (tally && refused) tally.expected -= sizes[peer.chat] ?? 0
  },
}

const senderOf = (tally: Tally, index: number) => peers[tally.spec.senders[index % tally.spec.senders.length]!]!

function send(tally: Tally, index: number, text: string): void {
  const peer = senderOf(tally, index)
  const mark = tally.first + index
  tally.sent = index + 1
  tally.expected += sizes[peer.chat]!
  const id = `"id":"${mark}","chat_id":"${chats[peer.chat]}","client_id":"${randomUUID()}"`
  peer.write(messageFrame(`{"type":"message",${id},"content":"~${mark}~ ${text}"}`))
}

/** Text of about this length after the mark. */
const filler = (bytes: number): string =>
  'The quick brown fox jumps over the lazy dog. '.repeat(Math.ceil(bytes / 45)).slice(0, bytes)

async function load({ seconds, streams, pids, drainMs = 10_000 }: LoadSpec): Promise<Output<'load'>> {
  const width = widest()
  unordered = 0
  late = 0
  tallies = streams.map((spec) => {
    const planned = Math.max(1, Math.floor(spec.rate * seconds))
    const tally: Tally = new Tally(spec, nextMark, planned, width, (index) => senderOf(tally, index).chat)
    nextMark += planned
    return tally
  })
  listen(listener)
  const texts = streams.map((spec) => filler(spec.bytes))
  const lag = newHistogram()
  const shares = meter({ generator: [process.pid], ...pids })
  sending = true
  const began = performance.now()
  let nextReport = began + 1_000
  while (tallies.some((tally) => tally.sent < tally.planned)) {
    for (const [s, tally] of tallies.entries()) {
      const gap = 1_000 / tally.spec.rate
      for (let k = tally.sent; k < tally.planned; k += 1) {
        const due = began + k * gap
        const now = performance.now()
        if (due > now) break
        tally.due[k] = due
        record(lag, now - due)
        send(tally, k, texts[s]!)
      }
    }
    if (performance.now() >= nextReport) {
      report((performance.now() - began) / 1_000)
      nextReport += 1_000
    }
    await sleep(1)
  }
  const took = (performance.now() - began) / 1_000
  const used = shares()
  sending = false
  const last = performance.now()
  while (tallies.some((tally) => !tally.isComplete) && performance.now() - last < drainMs) await sleep(5)
  return {
    streams: tallies.map((tally) => tally.result(took)),
    shares: used,
    drainMs: performance.now() - last,
    unordered,
    late,
    closes,
    lagP99: percentiles(lag).p99,
  }
}

function report(seconds: number): void {
  const progress: Progress = {
    seconds,
    sent: tallies.reduce((sum, tally) => sum + tally.sent, 0),
    outstanding: tallies.reduce((sum, tally) => sum + tally.expected - tally.delivered, 0),
    p95: percentiles(recent).p95,
  }
  recent = newHistogram()
  process.send?.({ progress } satisfies Answer)
}

/** What the last load sent into a chat. */
function marksOf(chat: number): number[] {
  const marks: number[] = []
  for (const tally of tallies)
    for (let index = 0; index < tally.sent; index += 1) if (senderOf(tally, index).chat === chat) marks.push(tally.first + index)
  return marks
}

const calls: { [K in CallName]: (input: Input<K>) => Output<K> | Promise<Output<K>> } = {
  connect,
  load,
  pause({ peers: indexes }) {
    for (const peer of those(indexes)) {
      leaveOut(peer)
      peer.counts = false
      peer.pause()
    }
    return null
  },
  resume({ peers: indexes }) {
    for (const peer of those(indexes)) peer.resume()
    return null
  },
  position: ({ peers: indexes }) => position(those(indexes)),
  cut({ peers: indexes }) {
    for (const peer of those(indexes)) {
      leaveOut(peer)
      peer.cut()
    }
    return null
  },
  comeBack: (input) => comeBack(those(input.peers), input, marksOf),
  state: () => ({ open: peers.filter((peer) => peer.isOpen).length, closes }),
}

process.on('message', ({ id, name, input }: Request) => {
  const call = calls[name] as (input: unknown) => unknown
  void Promise.resolve()
    .then(() => call(input))
    .then(
      (output) => process.send!({ id, output } satisfies Answer),
      (error: unknown) => process.send!({ id, error: String((error as Error)?.stack ?? error) } satisfies Answer),
    )
})
// Without the benchmark there is nobody to measure for.
process.on('disconnect', () => process.exit())
console.log('ready')
