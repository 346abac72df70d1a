/**
 * What a bus is to be subscribed to, and what it really is: the bookkeeping both buses share.
 *
 * Invariant: commands of one connection take effect in the order they are sent. So a wish only has to compare
 * with the last command sent for its channel, and an entry that was given up is never taken up again: a new wish
 * makes a new entry, which an old confirmation cannot mark as held.
 */
export interface SubscriptionTransport {
  /** Resolves once the server confirmed all of these channels. Called in order, at most `chunkSize` channels each. */
  subscribe(channels: string[]): Promise<unknown>
  unsubscribe(channels: string[]): Promise<unknown>
  /** The server refused or lost a command: what holds is unknown, the connection has to be made anew. */
  failed(error: unknown): void
}

interface Waiter {
  left: number
  settle(held: boolean): void
}

interface Entry {
  wanted: boolean
  state: 'none' | 'asked' | 'held'
  waiters: Waiter[]
}

// Redis answers every channel of a command by itself; a command this long keeps both its own pauses and the
// number of commands small.
const chunkSize = 1_000

export interface Subscriptions {
  want(channels: readonly string[]): Promise<boolean>
  unwant(channels: readonly string[]): void
  isWanted(channel: string): boolean
  /** The connection is there. Resolves true once everything wanted so far holds, false when the connection went first. */
  restore(): Promise<boolean>
  /** The connection is gone, and with it every subscription. */
  lost(): void
  close(): void
}

export function createSubscriptions(transport: SubscriptionTransport, timeoutMs = 2_000): Subscriptions {
  const entries = new Map<string, Entry>()
  let dirty = new Set<string>()
  const waiting = new Set<Waiter>()
  let flushing = false
  let closed = false
  let online = false
  // Tells the confirmations of one connection from those of the one before.
  let epoch = 0

  function schedule() {
    if (flushing || !online) return
    flushing = true
    // Wishes of one turn go out together, and those that cancel each other not at all.
    queueMicrotask(() => {
      flushing = false
      if (online) void flush()
    })
  }

  async function flush(): Promise<boolean> {
    const ask: string[] = []
    const leave: string[] = []
    for (const channel of dirty) {
      const entry = entries.get(channel)
      if (!entry) continue
      if (entry.wanted && entry.state === 'none') {
        entry.state = 'asked'
        ask.push(channel)
      } else if (!entry.wanted) {
        if (entry.state !== 'none') leave.push(channel)
        entries.delete(channel)
      }
    }
    dirty = new Set()
    const sent = epoch
    const results: Promise<boolean>[] = []
    for (let i = 0; i < leave.length; i += chunkSize)
      results.push(send(sent, () => transport.unsubscribe(leave.slice(i, i + chunkSize))))
    for (let i = 0; i < ask.length; i += chunkSize) results.push(sendAsk(sent, ask.slice(i, i + chunkSize)))
    return (await Promise.all(results)).every(Boolean)
  }

  async function send(sent: number, command: () => Promise<unknown>): Promise<boolean> {
    try {
      await command()
      return sent === epoch
    } catch (error) {
      if (sent === epoch && !closed) transport.failed(error)
      return false
    }
  }

  async function sendAsk(sent: number, channels: string[]): Promise<boolean> {
    const asked = channels.map((channel) => entries.get(channel)!)
    if (!(await send(sent, () => transport.subscribe(channels)))) return false
    for (const entry of asked) {
      entry.state = 'held'
      for (const waiter of entry.waiters.splice(0)) if (--waiter.left === 0) waiter.settle(true)
    }
    return true
  }

  return {
    want(channels) {
      if (closed) return Promise.resolve(false)
      const waitFor = new Set<Entry>()
      for (const channel of channels) {
        let entry = entries.get(channel)
        if (!entry) {
          entry = { wanted: true, state: 'none', waiters: [] }
          entries.set(channel, entry)
        }
        entry.wanted = true
        if (entry.state === 'none') dirty.add(channel)
        if (entry.state !== 'held') waitFor.add(entry)
      }
      schedule()
      if (waitFor.size === 0) return Promise.resolve(true)
      return new Promise((resolve) => {
        const waiter: Waiter = {
          left: waitFor.size,
          settle(held) {
            clearTimeout(timer)
            waiting.delete(waiter)
            resolve(held)
          },
        }
        const timer = setTimeout(() => {
          for (const entry of waitFor) entry.waiters = entry.waiters.filter((other) => other !== waiter)
          waiter.settle(false)
        }, timeoutMs)
        waiting.add(waiter)
        for (const entry of waitFor) entry.waiters.push(waiter)
      })
    },
    unwant(channels) {
      for (const channel of channels) {
        const entry = entries.get(channel)
        if (!entry?.wanted) continue
        entry.wanted = false
        for (const waiter of entry.waiters.splice(0)) waiter.settle(false)
        dirty.add(channel)
      }
      if (online) schedule()
      // Away, nothing is sent: what nobody wants is simply forgotten.
      else for (const channel of channels) entries.delete(channel)
    },
    isWanted: (channel) => entries.get(channel)?.wanted === true,
    restore() {
      online = true
      return flush()
    },
    lost() {
      online = false
      epoch++
      dirty = new Set()
      for (const [channel, entry] of entries) {
        if (!entry.wanted) {
          entries.delete(channel)
          continue
        }
        entry.state = 'none'
        dirty.add(channel)
      }
    },
    close() {
      closed = true
      online = false
      epoch++
      for (const waiter of [...waiting]) waiter.settle(false)
      entries.clear()
      dirty.clear()
    },
  }
}
