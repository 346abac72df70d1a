import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { connectRedis, type RedisOptions } from '../redis.ts'
import type { Bus } from './bus.ts'
import { createSubscriptions } from './subscriptions.ts'

export interface RedisBusOptions extends RedisOptions {
  subscribeTimeoutMs?: number
  /** Bytes published and not yet taken by Redis; what goes beyond is dropped, and everybody is told of a gap. */
  maxOutstandingBytes?: number
}

// Every instance listens here for "I have lost publications": the payload names who says so.
const gapChannel = '~gap'
// What a publication takes beside its payload and channel name, about.
const overhead = 64

/**
 * Publish and subscribe over Redis, on a connection each. Resolves once connected, or after two seconds without.
 *
 * A publication counts as lost when Redis did not answer for it. Losing any, by an outage of this instance's own
 * connection or by its bound, leaves a gap at every other instance, which cannot know: so it is announced to them.
 */
export async function createRedisBus(options: RedisBusOptions): Promise<Bus> {
  const { url, prefix = 'parley:', log, subscribeTimeoutMs = 2_000, maxOutstandingBytes = 64 * 2 ** 20 } = options
  const id = Buffer.from(randomUUID())
  const publisher = connectRedis(url, log, { name: 'publish', prefix })
  const subscriber = connectRedis(url, log, { name: 'subscribe', prefix })
  const inner = (channel: string) => prefix + channel

  let onMessage: (channel: string, payload: Buffer) => void = () => {}
  let onGap: () => void = () => {}
  let closed = false
  let everHeld = false
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
      subscribe: (channels) => subscriber.client.subscribe(...channels.map(inner)),
      unsubscribe: (channels) => subscriber.client.unsubscribe(...channels.map(inner)),
      failed(error) {
        log?.warn({ redis: 'subscribe', err: error }, 'a subscription failed, connecting again')
        subscriber.reset()
      },
    },
    subscribeTimeoutMs,
  )
  void subscriptions.want([gapChannel])

  subscriber.onUp(() => {
    void subscriptions.restore().then((held) => {
      if (!held || closed) return
      // The first connection misses nothing: whatever was subscribed before it was not said to hold.
      if (everHeld) gapDue = true
      everHeld = true
      holds = true
      settle()
    })
  })
  subscriber.onDown(() => {
    holds = false
    subscriptions.lost()
  })
  subscriber.client.on('messageBuffer', (name: Buffer, payload: Buffer) => {
    const channel = name.toString().slice(prefix.length)
    if (!subscriptions.isWanted(channel)) return
    if (channel !== gapChannel) return onMessage(channel, payload)
    if (payload.equals(id)) return
    gapDue = true
    settle()
  })
  publisher.onUp(settle)

  /** Tells the gaps that are due, as soon as news pass again. */
  function settle() {
    if (closed || !holds || !publisher.up) return
    if (announceDue && !announcing) void announce()
    if (!gapDue) return
    gapDue = false
    onGap()
  }

  async function announce() {
    announcing = true
    announceDue = false
    try {
      await publisher.client.publish(inner(gapChannel), id)
    } catch {
      // The next connection brings the next try.
      announceDue = true
    }
    announcing = false
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
    for (const { channel, payload } of sending) pipeline.publish(inner(channel), payload)
    inFlight = pipeline
      .exec()
      .then((results) => results?.filter(([error]) => error !== null).length ?? sending.length)
      .catch(() => sending.length)
      .then((lost) => {
        outstanding -= bytes
        if (lost > 0) lose(lost)
        // Not while more waits than half of what may: the announcement is to follow the rush, not to fall into it.
        if (gapDue && outstanding < maxOutstandingBytes / 2) settle()
      })
  }

  await Promise.all([publisher.ready, subscriber.ready])
  return {
    subscribe: (channels) => subscriptions.want(channels),
    unsubscribe: (channels) => subscriptions.unwant(channels),
    publish(channel, payload) {
      if (closed) return
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
