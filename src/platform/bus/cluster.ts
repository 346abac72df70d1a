import type { Cluster } from '../cluster.ts'
import type { Bus } from './bus.ts'
import { openLine, type RedisBusOptions, type RedisLine } from './redis.ts'

/**
 * A bus over a Redis Cluster: a line to each master, and every channel on that of the master that has its slot (sharded publish
 * and subscribe, Redis 7), so that a publication costs the nodes nothing that have no subscriber.
 *
 * Every line keeps its own promises: what it lost is announced to all, and its gap is told once its subscriptions hold again.
 * When slots move, channels move with them; then everybody has a gap, for each instance learns of it at another time.
 */

/** A cluster that is half there makes gap after gap; catching up takes its time. */
const gapEveryMs = 1_000
/** While a line is away, its master may have a successor. */
const lookEveryMs = 1_000

export interface ClusterBusOptions extends Omit<RedisBusOptions, 'url'> {
  cluster: Cluster
}

export async function createClusterBus({ cluster, prefix = 'parley:', ...options }: ClusterBusOptions): Promise<Bus> {
  const lines = new Map<string, RedisLine>()
  /** Wanted channels, and the line that was asked for each. */
  const wanted = new Map<string, RedisLine | undefined>()
  let onMessage: (channel: string, payload: Buffer) => void = () => {}
  let onGap: () => void = () => {}
  let closed = false
  let gapTimer: NodeJS.Timeout | undefined
  let gapAt = Number.NEGATIVE_INFINITY
  // Of lines that are closed, and of channels that nobody had.
  let dropped = 0

  function tellGap(): void {
    if (gapTimer || closed) return
    gapTimer = setTimeout(
      () => {
        gapTimer = undefined
        gapAt = performance.now()
        if (!closed) onGap()
      },
      Math.max(20, gapAt + gapEveryMs - performance.now()),
    )
  }

  function lineTo(url: string, isSuccessor: boolean): RedisLine {
    const line = openLine({ ...options, prefix, url, sharded: { onMisplaced: () => void cluster.refresh(), isSuccessor } })
    line.onMessage((channel, payload) => {
      // Moved, it may still be heard on the line that it came from.
      if (wanted.get(channel) === line) onMessage(channel, payload)
    })
    line.onGap(tellGap)
    return line
  }

  function lineOf(channel: string): RedisLine | undefined {
    const owner = cluster.ownerOf(prefix + channel)
    return owner === undefined ? undefined : lines.get(owner)
  }

  /** Makes lines for new masters, moves what has moved, closes what nobody needs any more. */
  async function rearrange(): Promise<void> {
    for (const master of cluster.masters) if (!lines.has(master)) lines.set(master, lineTo(master, true))
    const moved = new Map<RedisLine, string[]>()
    for (const [channel, from] of wanted) {
      const to = lineOf(channel)
      if (to === from) continue
      from?.unsubscribe([channel])
      wanted.set(channel, to)
      if (to) moved.set(to, [...(moved.get(to) ?? []), channel])
    }
    const old = [...lines].filter(([url]) => !cluster.masters.has(url))
    for (const [url] of old) lines.delete(url)
    await Promise.all(Array.from(moved, ([line, channels]) => line.subscribe(channels)))
    for (const [, line] of old) {
      dropped += line.dropped
      await line.close()
    }
    tellGap()
    // What an old line could not tell any more, or was lost on it unnoticed.
    const [any] = [...lines.values()].sort((a, b) => Number(b.connected) - Number(a.connected))
    any?.announceGap()
  }

  for (const master of cluster.masters) lines.set(master, lineTo(master, false))
  let arranging: Promise<void> = Promise.resolve()
  cluster.onChange(() => {
    if (!closed) arranging = arranging.then(rearrange)
  })
  const isConnected = () => lines.size > 0 && [...lines.values()].every((line) => line.connected)
  const looker = setInterval(() => {
    if (!isConnected()) void cluster.refresh()
  }, lookEveryMs)
  looker.unref()
  await Promise.all(Array.from(lines.values(), (line) => line.ready))

  return {
    async subscribe(channels) {
      const groups = new Map<RedisLine | undefined, string[]>()
      for (const channel of channels) {
        const line = wanted.get(channel) ?? lineOf(channel)
        wanted.set(channel, line)
        groups.set(line, [...(groups.get(line) ?? []), channel])
      }
      const held = await Promise.all(Array.from(groups, ([line, group]) => line?.subscribe(group) ?? false))
      return held.every(Boolean)
    },
    unsubscribe(channels) {
      for (const channel of channels) {
        wanted.get(channel)?.unsubscribe([channel])
        wanted.delete(channel)
      }
    },
    publish(channel, payload) {
      const line = lineOf(channel)
      if (line) line.publish(channel, payload)
      else if (!closed) dropped += 1
    },
    onMessage(listener) {
      onMessage = listener
    },
    onGap(listener) {
      onGap = listener
    },
    get connected() {
      return isConnected() && !closed
    },
    get dropped() {
      return [...lines.values()].reduce((sum, line) => sum + line.dropped, dropped)
    },
    async close() {
      if (closed) return
      closed = true
      clearInterval(looker)
      clearTimeout(gapTimer)
      await Promise.all(Array.from(lines.values(), (line) => line.close()))
    },
  }
}
