import { setTimeout as sleep } from 'node:timers/promises'
import { isMisplaced } from '../cluster.ts'
import { connectRedis, type RedisOptions } from '../redis.ts'
import type { Bus } from './bus.ts'
import { createCompany } from './company.ts'
import { createSubscriptions } from './subscriptions.ts'

export interface RedisBusOptions extends RedisOptions {
  subscribeTimeoutMs?: number
  /** Bytes published and not yet taken by Redis; what goes beyond is dropped, and everybody is told of a gap. */
  maxOutstandingBytes?: number
}

/** A bus over one node, begun and perhaps not connected yet. */
export interface RedisLine extends Bus {
  /** Resolves once connected, or after two seconds without. */
  readonly ready: Promise<void>
  /** Tells all others, as soon as that is possible, that they may have missed something. */
  announceGap(): void
}

export interface RedisLineOptions extends RedisBusOptions {
  /** The node is one of a cluster: channels are sharded, and one may turn out to be another node's. */
  sharded?: {
    onMisplaced(): void
    /** Its channels were heard elsewhere before: from there to here there is a gap. */
    isSuccessor: boolean
  }
}

// Every instance listens here for what the others say of themselves.
const companyChannel = '~company'
// What a publication takes beside its payload and channel name, about.
const overhead = 64

/** Resolves once connected, or after two seconds without. */
export async function createRedisBus(options: RedisBusOptions): Promise<Bus> {
  const line = openLine(options)
  await line.ready
  return line
}

/** So long a start waits at most for its subscriptions, and for the others' answers. */
const greetingMs = 1_500

/** In a cluster that takes nothing for a while, so long between two tries to subscribe, and between two announcements. */
const misplacedMs = 1_000

/**
 * Publish and subscribe over one Redis, on a connection each.
 *
 * A publication counts as lost when Redis did not answer for it. Losing any, by an outage of this instance's own
 * connection or by its bound, leaves a gap at every other instance, which cannot know: so it is announced to them.
 */
export function openLine(options: RedisLineOptions): RedisLine {
  const { url, prefix = 'parley:', log, subscribeTimeoutMs = 2_000, maxOutstandingBytes = 64 * 2 ** 20, sharded } = options
  // Of many nodes the log is to say which.
  const at = sharded ? `-${new URL(url).host}` : ''
  const publisher = connectRedis(url, log, { name: `publish${at}`, prefix })
  const subscriber = connectRedis(url, log, { name: `subscribe${at}`, prefix })
  const inner = (channel: string) => prefix + channel

  let onMessage: (channel: string, payload: Buffer) => void = () => {}
  let onGap: () => void = () => {}
  let closed = false
  let everHeld = sharded?.isSuccessor === true
  let resetDue = false
  let holds = false
  let gapDue = false
  // Others have a gap to be told of, and until this is confirmed we tell it again.
  let announceDue = false
  let announcing = false
  let dropped = 0
  let batch: { channel: string; payload: Buffer }[] = []
  let outstanding = 0
  let inFlight: Promise<unknown> = Promise.resolve()

  const subscriptions = createSubscriptions(
    {
      subscribe: (channels) =>
        sharded ? Promise.all(channels.map(subscribeSharded)) : subscriber.client.subscribe(...channels.map(inner)),
      unsubscribe: (channels) =>
        sharded ? Promise.all(channels.map(unsubscribeSharded)) : subscriber.client.unsubscribe(...channels.map(inner)),
      failed(error) {
        if (sharded && isMisplaced(error)) {
          misplaced()
          return
        }
        log?.warn({ redis: 'subscribe', err: error }, 'a subscription failed, connecting again')
        subscriber.reset()
      },
    },
    subscribeTimeoutMs,
  )
  void subscriptions.want([companyChannel])
  const company = createCompany({
    say: (payload) => publisher.client.publish(inner(companyChannel), payload),
    announceGap,
    // Of several nodes each has a line of its own: there it is not worth its while.
    always: sharded !== undefined,
  })

  // Channels of a shard lie in slots of their own, and one command may touch one slot. News of gaps concern everybody: their
  // channel is an ordinary one, which a cluster passes on to all of its nodes.
  function subscribeSharded(channel: string): Promise<unknown> {
    return channel === companyChannel ? subscriber.client.subscribe(inner(channel)) : subscriber.client.ssubscribe(inner(channel))
  }

  /** What is not here any more is looked for elsewhere, and what still is, is asked for anew. */
  function misplaced(): void {
    sharded?.onMisplaced()
    if (resetDue) return
    resetDue = true
    setTimeout(() => {
      resetDue = false
      if (!closed) subscriber.reset()
    }, misplacedMs).unref()
  }

  async function unsubscribeSharded(channel: string): Promise<void> {
    await subscriber.client.sunsubscribe(inner(channel)).catch((error: unknown) => {
      // It is another node's by now, and this one has given the subscription up by itself.
      if (!isMisplaced(error)) throw error
    })
  }

  const { promise: greeted, resolve: onGreeted } = Promise.withResolvers<void>()
  function greet() {
    if (holds && publisher.up && !closed) void company.listening().then((answered) => answered && onGreeted())
  }

  subscriber.onUp(() => {
    void subscriptions.restore().then((held) => {
      if (!held || closed) return
      // The first connection misses nothing: whatever was subscribed before it was not said to hold.
      if (everHeld) gapDue = true
      everHeld = true
      holds = true
      greet()
      settle()
    })
  })
  subscriber.onDown(() => {
    holds = false
    company.deaf()
    subscriptions.lost()
  })
  const received = (name: Buffer, payload: Buffer) => {
    const channel = name.toString().slice(prefix.length)
    if (!subscriptions.isWanted(channel)) return
    if (channel !== companyChannel) return onMessage(channel, payload)
    if (!company.heard(payload)) return
    gapDue = true
    settle()
  }
  subscriber.client.on('messageBuffer', received)
  if (sharded) {
    subscriber.client.on('smessageBuffer', received)
    // The node gave subscriptions up by itself, and does not say which: it does so also for a slot that it keeps in the end.
    subscriber.client.on('moved', misplaced)
  }
  publisher.onUp(() => {
    greet()
    settle()
  })

  /** Tells the gaps that are due, as soon as news pass again. */
  function settle() {
    if (closed || !holds || !publisher.up) return
    if (announceDue && !announcing) void announce()
    if (!gapDue) return
    gapDue = false
    onGap()
  }

  function announceGap() {
    announceDue = true
    settle()
  }

  async function announce() {
    announcing = true
    announceDue = false
    try {
      await publisher.client.publish(inner(companyChannel), company.gap)
    } catch {
      // The next connection brings the next try.
      announceDue = true
    }
    if (sharded) await sleep(misplacedMs, undefined, { ref: false })
    announcing = false
    if (sharded && announceDue) settle()
  }

  function lose(count: number) {
    dropped += count
    gapDue = true
    announceDue = true
  }

  function flush() {
    const sending = batch
    batch = []
    const bytes = sending.reduce((sum, { payload }) => sum + payload.length + overhead, 0)
    // One pipeline per turn: one write, and no promise for each.
    const pipeline = publisher.client.pipeline()
    if (sharded) for (const { channel, payload } of sending) pipeline.spublish(inner(channel), payload)
    else for (const { channel, payload } of sending) pipeline.publish(inner(channel), payload)
    inFlight = pipeline
      .exec()
      .then((results) => {
        if (results === null) return sending.length
        const failed = results.filter(([error]) => error !== null)
        if (failed.some(([error]) => isMisplaced(error))) sharded?.onMisplaced()
        return failed.length
      })
      .catch(() => sending.length)
      .then((lost) => {
        outstanding -= bytes
        if (lost > 0) lose(lost)
        // Not while more waits than half of what may: the announcement is to follow the rush, not to fall into it.
        if (gapDue && outstanding < maxOutstandingBytes / 2) settle()
      })
  }

  return {
    ready: Promise.all([publisher.ready, subscriber.ready]).then(async () => {
      // Whoever serves is to be known to the others: what they say from then on is published.
      if (publisher.up && subscriber.up) await Promise.race([greeted, sleep(greetingMs, undefined, { ref: false })])
    }),
    announceGap,
    subscribe: (channels) => subscriptions.want(channels),
    unsubscribe: (channels) => subscriptions.unwant(channels),
    publish(channel, payload) {
      if (closed) return
      if (company.isAlone) return company.kept()
      const bytes = payload.length + overhead
      if (!publisher.up || outstanding + bytes > maxOutstandingBytes) return lose(1)
      outstanding += bytes
      batch.push({ channel, payload: Buffer.from(payload) })
      if (batch.length === 1) queueMicrotask(flush)
    },
    onMessage(listener) {
      onMessage = listener
    },
    onGap(listener) {
      onGap = listener
    },
    get connected() {
      return publisher.up && subscriber.up && !closed
    },
    get dropped() {
      return dropped
    },
    async close() {
      if (closed) return
      closed = true
      // A turn later what was published in this one is on its way.
      await Promise.resolve()
      const patience = new AbortController()
      await Promise.race([inFlight, sleep(500, undefined, { signal: patience.signal }).catch(() => {})])
      patience.abort()
      subscriptions.close()
      await Promise.all([publisher.close(), subscriber.close()])
    },
  }
}
