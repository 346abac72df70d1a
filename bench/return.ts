import { setTimeout as sleep } from 'node:timers/promises'
import type { Input, Output } from './calls.ts'
import { chats, open, waitsForAck } from './crowd.ts'
import { meter } from './proc.ts'
import { newHistogram, percentiles, record } from './tally.ts'
import type { Peer } from './wire.ts'

/** Clients that were away, and catch up as real ones do: connect, wait for `ready`, `sync` from where they stood. */

const positions = new Map<Peer, { version: number; user_version: number }>()

interface SyncAck {
  chats: { chat: { id: string }; version: number; messages: { content: string }[] }[]
  user_version: number
  has_more: boolean
}

function sync(peer: Peer, chats: Record<string, number>, user_version: number): Promise<SyncAck> {
  return new Promise((resolve) => {
    waitsForAck.set(peer, (text) => {
      waitsForAck.delete(peer)
      resolve(JSON.parse(text) as SyncAck)
    })
    peer.send(JSON.stringify({ type: 'sync', id: 'sync', chats, user_version }))
  })
}

/** A few at a time: it is not what is measured. */
export async function position(peers: Peer[]): Promise<null> {
  let at = 0
  await Promise.all(
    Array.from({ length: 8 }, async () => {
      for (let peer = peers[at++]; peer !== undefined; peer = peers[at++]) {
        const answer = await sync(peer, {}, 0)
        const mine = answer.chats.find(({ chat }) => chat.id === chats[peer!.chat])
        positions.set(peer, { version: mine?.version ?? 0, user_version: answer.user_version })
      }
    }),
  )
  return null
}

export async function comeBack(
  peers: Peer[],
  { jitterMs, withinMs, pids }: Input<'comeBack'>,
  marksOf: (chat: number) => number[],
): Promise<Output<'comeBack'>> {
  const each = newHistogram()
  const shares = meter({ generator: [process.pid], ...pids })
  const began = performance.now()
  let caughtUp = 0
  let missing = 0
  let duplicates = 0

  async function one(peer: Peer): Promise<void> {
    const chat = chats[peer.chat]!
    const at = { ...positions.get(peer)! }
    const wanted = new Set(marksOf(peer.chat))
    await sleep(Math.random() * jitterMs)
    const from = performance.now()
    while (!(await open(peer))) {
      if (performance.now() - began > withinMs) return
      await sleep(100)
    }
    for (let more = true; more; ) {
      const answer = await sync(peer, { [chat]: at.version }, at.user_version)
      for (const entry of answer.chats) {
        if (entry.chat.id !== chat) continue
        at.version = entry.version
        for (const { content } of entry.messages) {
          const mark = Number(/^~(\d+)~/.exec(content)?.[1] ?? Number.NaN)
          if (!wanted.delete(mark)) duplicates += 1
        }
      }
      at.user_version = answer.user_version
      more = answer.has_more
    }
    missing += wanted.size
    if (wanted.size > 0) return
    caughtUp += 1
    record(each, performance.now() - from)
  }

  await Promise.race([Promise.all(peers.map(one)), sleep(withinMs + jitterMs)])
  return { ms: performance.now() - began, each: percentiles(each), caughtUp, missing, duplicates, shares: shares() }
}
