import type { Bus } from './bus.ts'
import { createSubscriptions } from './subscriptions.ts'

/**
 * The bus of a single process, and the twin of the Redis one in tests. It must not be kinder than Redis: bytes
 * are copied, subscribing and delivering take turns of the event loop, queues are bounded, and a test can make it
 * drop, double, delay, reorder and disconnect.
 */

/** Chances from 0 to 1, drawn for each delivery to each bus. The same draws give the same mishaps. */
export interface Unkind {
  random: () => number
  drop?: number
  double?: number
  /** Held back until the next publication for that bus has passed it (or 10 ms have). */
  reorder?: number
  /** Every delivery is late by up to this many milliseconds. */
  delayMs?: number
}

/** What stands for the Redis server: buses over one exchange hear each other. */
export interface MemoryExchange {
  /** Set it, or unset it, at any time. */
  unkind: Unkind | undefined
  /** Every bus loses its connection, and what was under way is lost. */
  outage(): void
  /** The connections are back; every bus subscribes again and then tells a gap. */
  restore(): void
  /** The same for one bus alone. */
  disconnect(bus: Bus): void
  reconnect(bus: Bus): void
}

/** A connection, as the exchange sees it. */
interface Peer {
  up: boolean
  channels: Set<string>
  receive(channel: string, payload: Buffer): void
  lost(): void
  back(): void
}

interface Exchange extends MemoryExchange {
  up: boolean
  peers: Map<Bus, Peer>
  /** As a server does its clients' commands: later, in order, and not at all when it is gone by then. */
  run(command: () => void): void
  route(channel: string, payload: Buffer): void
}

export function createMemoryExchange(unkind?: Unkind): MemoryExchange {
  let epoch = 0
  const exchange: Exchange = {
    unkind,
    up: true,
    peers: new Map(),
    run(command) {
      const sent = epoch
      setImmediate(() => {
        if (sent === epoch && exchange.up) command()
      })
    },
    route(channel, payload) {
      for (const peer of exchange.peers.values()) if (peer.up && peer.channels.has(channel)) peer.receive(channel, payload)
    },
    outage() {
      exchange.up = false
      epoch++
      for (const peer of exchange.peers.values()) peer.lost()
    },
    restore() {
      exchange.up = true
      for (const peer of exchange.peers.values()) peer.back()
    },
    disconnect: (bus) => exchange.peers.get(bus)?.lost(),
    reconnect: (bus) => exchange.peers.get(bus)?.back(),
  }
  return exchange
}

export interface MemoryBusOptions {
  subscribeTimeoutMs?: number
  /** Publications that wait for this instance to read them; more are dropped, and a gap is told. */
  maxQueued?: number
}

export function createMemoryBus(
  over: MemoryExchange = createMemoryExchange(),
  { subscribeTimeoutMs = 2_000, maxQueued = 100_000 }: MemoryBusOptions = {},
): Bus {
  const exchange = over as Exchange
  let onMessage: (channel: string, payload: Buffer) => void = () => {}
  let onGap: () => void = () => {}
  let dropped = 0
  let closed = false
  // Counts connections, so that what one of them still had under way does not arrive over the next.
  let connection = 0
  let gapDue = false
  let inbox: { channel: string; payload: Buffer }[] = []
  let draining = false
  let held: { channel: string; payload: Buffer } | undefined
  const timers = new Set<NodeJS.Timeout>()

  const later = (ms: number, work: () => void) => {
    const timer = setTimeout(() => {
      timers.delete(timer)
      work()
    }, ms)
    timers.add(timer)
  }

  // One turn more than a publication takes: who does not wait for a subscription misses what is published then.
  const command = (work: () => void) =>
    new Promise<void>((resolve, reject) => {
      const sent = connection
      exchange.run(() =>
        exchange.run(() => {
          if (sent !== connection) return reject(new Error('The connection was lost.'))
          work()
          setImmediate(resolve)
        }),
      )
    })

  const subscriptions = createSubscriptions(
    {
      subscribe: (channels) => command(() => channels.forEach((channel) => void peer.channels.add(channel))),
      unsubscribe: (channels) => command(() => channels.forEach((channel) => void peer.channels.delete(channel))),
      failed: () => {},
    },
    subscribeTimeoutMs,
  )

  function enqueue(channel: string, payload: Buffer) {
    if (inbox.length >= maxQueued) {
      gapDue = true
      return
    }
    inbox.push({ channel, payload: Buffer.from(payload) })
    if (draining) return
    draining = true
    setImmediate(drain)
  }

  function drain() {
    draining = false
    const batch = inbox
    inbox = []
    for (const { channel, payload } of batch) {
      if (closed) return
      if (subscriptions.isWanted(channel)) onMessage(channel, payload)
    }
    if (gapDue && peer.up) tellGap()
  }

  function tellGap() {
    gapDue = false
    setImmediate(() => {
      if (!closed) onGap()
    })
  }

  function arrive(channel: string, payload: Buffer) {
    const { random, reorder = 0 } = exchange.unkind ?? { random: () => 1 }
    if (held === undefined && reorder > 0 && random() < reorder) {
      const mine = { channel, payload }
      held = mine
      const sent = connection
      later(10, () => {
        if (held !== mine) return
        held = undefined
        if (sent === connection) enqueue(channel, payload)
      })
      return
    }
    enqueue(channel, payload)
    if (held === undefined) return
    const overtaken = held
    held = undefined
    enqueue(overtaken.channel, overtaken.payload)
  }

  const peer: Peer = {
    up: exchange.up,
    channels: new Set(),
    receive(channel, payload) {
      const { random, drop = 0, double = 0, delayMs = 0 } = exchange.unkind ?? { random: () => 1 }
      if (drop > 0 && random() < drop) return
      const copies = double > 0 && random() < double ? 2 : 1
      for (let i = 0; i < copies; i++) {
        if (delayMs === 0) {
          arrive(channel, payload)
          continue
        }
        const sent = connection
        later(Math.floor(random() * (delayMs + 1)), () => {
          if (sent === connection) arrive(channel, payload)
        })
      }
    },
    lost() {
      if (!peer.up) return
      peer.up = false
      connection++
      held = undefined
      peer.channels.clear()
      subscriptions.lost()
    },
    back() {
      if (peer.up || !exchange.up || closed) return
      peer.up = true
      void subscriptions.restore().then((holds) => holds && tellGap())
    },
  }

  const bus: Bus = {
    subscribe: (channels) => subscriptions.want(channels),
    unsubscribe: (channels) => subscriptions.unwant(channels),
    publish(channel, payload) {
      if (closed || !peer.up) {
        dropped++
        return
      }
      if (exchange.peers.size === 1) return
      const sent = connection
      const bytes = Buffer.from(payload)
      exchange.run(() => {
        if (sent === connection) exchange.route(channel, bytes)
      })
    },
    onMessage(listener) {
      onMessage = listener
    },
    onGap(listener) {
      onGap = listener
    },
    get connected() {
      return peer.up && !closed
    },
    get dropped() {
      return dropped
    },
    async close() {
      if (closed) return
      // What was published in this turn still reaches the others.
      await new Promise<void>((resolve) => setImmediate(resolve))
      closed = true
      connection++
      for (const timer of timers) clearTimeout(timer)
      subscriptions.close()
      exchange.peers.delete(bus)
    },
  }
  exchange.peers.set(bus, peer)
  if (peer.up) void subscriptions.restore()
  return bus
}
