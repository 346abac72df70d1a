import type { Input, Output } from './calls.ts'
import { newHistogram, percentiles, record } from './tally.ts'
import { Peer } from './wire.ts'

/** The sockets of the load generator, and what they hear. */

export const peers: Peer[] = []
export const those = (indexes: readonly number[]): Peer[] => indexes.map((index) => peers[index]!)
/** Ids, by the indexes that peers know their chat by. */
export let chats: string[] = []
/** Sockets in each chat that count. */
export const sizes: number[] = []
export let closes: Record<number, number> = {}
/** Acks that are no message's. */
export const waitsForAck = new Map<Peer, (text: string) => void>()

/** Who wants to know of messages and of answers to sends, by the mark in them. */
export interface Listener {
  heard(peer: Peer, mark: number, inOrder: boolean, now: number): void
  answered(peer: Peer, mark: number, refused: boolean, now: number): void
}
let listener: Listener | undefined
export function listen(to: Listener): void {
  listener = to
  closes = {}
}

const waitsForReady = new Map<Peer, (ok: boolean) => void>()

// Every frame starts with `{"type":"`, and a few letters tell which it is.
const typeAt = 9
const versionAt = '{"type":"new_message","chat_id":"","version":'.length + 36
const ackIdAt = '{"type":"ack","id":"'.length
const errorIdAt = '{"type":"error","id":"'.length
const versionMark = Buffer.from('"version":')
const textMark = Buffer.from('"content":"~')
const code = (letter: string): number => letter.charCodeAt(0)
const [a, c, d, e, m, n, r, colon] = ['a', 'c', 'd', 'e', 'm', 'n', 'r', ':'].map(code)

/** The digits from `at` on; -1 where there are none. */
function number(bytes: Buffer, at: number): number {
  let value = -1
  for (let place = at; ; place += 1) {
    const digit = bytes[place]! - 48
    if (!(digit >= 0 && digit <= 9)) return value
    value = (value < 0 ? 0 : value * 10) + digit
  }
}

const handler = {
  text(peer: Peer, bytes: Buffer, start: number, end: number, now: number): void {
    const letter = (place: number) => bytes[start + typeAt + place]
    if (letter(0) === n && letter(4) === m) newMessage(peer, bytes, start, end, now)
    else if (letter(0) === a && letter(1) === c) answer(peer, bytes, start, end, start + ackIdAt, false, now)
    else if (letter(0) === e && letter(1) === r) answer(peer, bytes, start, end, start + errorIdAt, true, now)
    else if (letter(0) === r && letter(3) === d) {
      peer.isOpen = true
      if (peer.chat >= 0 && peer.counts) sizes[peer.chat]! += 1
      settleReady(peer, true)
    }
  },
  closed(peer: Peer, code: number): void {
    closes[code] = (closes[code] ?? 0) + 1
    settleReady(peer, false)
  },
}

function settleReady(peer: Peer, ok: boolean): void {
  const settle = waitsForReady.get(peer)
  waitsForReady.delete(peer)
  settle?.(ok)
}

function newMessage(peer: Peer, bytes: Buffer, start: number, end: number, now: number): void {
  let at = start + versionAt
  // Where it usually is; should the fields have another order one day, it is looked for.
  if (bytes[at - 1] !== colon) at = bytes.indexOf(versionMark, start) + versionMark.length
  const version = number(bytes, at)
  const inOrder = peer.version < 0 || version === peer.version + 1
  peer.version = version
  const text = bytes.indexOf(textMark, at)
  if (text >= 0 && text < end) listener?.heard(peer, number(bytes, text + textMark.length), inOrder, now)
}

function answer(peer: Peer, bytes: Buffer, start: number, end: number, idAt: number, refused: boolean, now: number): void {
  const mark = number(bytes, idAt)
  if (mark >= 0) listener?.answered(peer, mark, refused, now)
  else waitsForAck.get(peer)?.(bytes.toString('utf8', start, end))
}

/** Connects and waits for `ready`; false when it was refused or lost. */
export function open(peer: Peer): Promise<boolean> {
  return new Promise((resolve) => {
    waitsForReady.set(peer, resolve)
    peer.connect()
  })
}

/** What is sent from here on is not expected at this peer. */
export function leaveOut(peer: Peer): void {
  if (peer.isOpen && peer.counts && peer.chat >= 0) sizes[peer.chat]! -= 1
}

/** Sockets of the largest chat, open or not. */
export const widest = (): number =>
  Math.max(1, ...chats.map((_, chat) => peers.reduce((sum, peer) => sum + Number(peer.chat === chat), 0)))

export async function connect({ peers: specs, chats: ids, atOnce }: Input<'connect'>): Promise<Output<'connect'>> {
  chats = ids
  const slots: number[] = ids.map(() => 0)
  for (const { chat } of peers) if (chat >= 0) slots[chat]! += 1
  while (sizes.length < ids.length) sizes.push(0)
  let at = peers.length
  for (const spec of specs) {
    const slot = spec.chat < 0 ? 0 : slots[spec.chat]!
    if (spec.chat >= 0) slots[spec.chat] = slot + 1
    peers.push(new Peer(spec, slot, handler))
  }
  const ready = newHistogram()
  const began = performance.now()
  let failed = 0
  const worker = async () => {
    for (let peer = peers[at++]; peer !== undefined; peer = peers[at++]) {
      const from = performance.now()
      if (await open(peer)) record(ready, performance.now() - from)
      else failed += 1
    }
  }
  await Promise.all(Array.from({ length: Math.min(atOnce, specs.length) }, worker))
  return { ms: performance.now() - began, failed, ready: percentiles(ready) }
}
