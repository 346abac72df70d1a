import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { connectRedis, type RedisLink, type RedisLinkOptions, type RedisLog, within } from './redis.ts'
import { slotOf } from './slot.ts'

/**
 * Where the slots of a Redis Cluster are. Whoever talks to it keeps an ordinary connection to each master (`connectRedis`, with
 * all that it promises) and asks here which one: ioredis's own cluster client lets commands wait for a node that hangs, and does
 * not tell when its sharded subscriptions hold again.
 *
 * Invariant: a slot that once had an owner has one, if an old one: what is sent there fails, and counts as lost.
 */
export interface Cluster {
  /** The node that it was found by. */
  readonly url: string
  /** The master that has this key or shard channel; undefined before any is known. */
  ownerOf(key: string): string | undefined
  /** URLs of all masters that have slots. */
  readonly masters: ReadonlySet<string>
  /** Looks again, soon: something was not where it was thought to be. Never rejects. */
  refresh(): Promise<void>
  /** Called after slots have moved, or masters have come or gone. */
  onChange(listener: () => void): void
  close(): void
}

const refreshEveryMs = 5_000
/** However many ask for it. */
const refreshAtMostEveryMs = 200
const patienceMs = 1_000

/** A short-lived connection; rejects when the node does not answer in time. */
async function ask<T>(url: string, question: (node: Redis) => Promise<T>): Promise<T> {
  const node = new Redis(url, {
    connectionName: 'parley-cluster',
    lazyConnect: true,
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    retryStrategy: () => null,
    connectTimeout: patienceMs,
    disconnectTimeout: 50,
    disableClientInfo: true,
  })
  node.on('error', () => {})
  try {
    return await within(
      patienceMs,
      node.connect().then(() => question(node)),
    )
  } finally {
    node.disconnect()
  }
}

/** Whether a cluster is what answers here; undefined where nothing does. */
export async function isCluster(url: string): Promise<boolean | undefined> {
  try {
    return (await ask(url, (node) => node.info('cluster'))).includes('cluster_enabled:1')
  } catch {
    return undefined
  }
}

type Slots = [from: number, to: number, master: [host: string | null, port: number, ...unknown[]], ...unknown[]][]

/** Credentials, protocol and options are those of the node that we were told of. */
function urlOf(base: string, host: string, port: number): string {
  const url = new URL(base)
  url.hostname = host.includes(':') ? `[${host}]` : host
  url.port = String(port)
  return url.href
}

/** Resolves when the slots are known, or no node has told of them. */
export async function openCluster(url: string, log?: RedisLog): Promise<Cluster> {
  const owners: (string | undefined)[] = Array(16_384)
  let masters: ReadonlySet<string> = new Set()
  const listeners: (() => void)[] = []
  let closed = false
  let refreshing: Promise<void> | undefined
  let refreshedAt = Number.NEGATIVE_INFINITY
  let told = false

  /** The slots as a node sees them, and whether it sees the cluster whole: one that is cut off from the others knows old news. */
  const slotsBy = (node: string) =>
    ask(node, async (redis) => {
      const [info, slots] = await Promise.all([redis.cluster('INFO'), redis.cluster('SLOTS') as Promise<unknown>])
      return { at: node, isWhole: String(info).includes('cluster_state:ok'), slots: slots as Slots }
    })

  async function look(): Promise<void> {
    const known = [...new Set([...masters, url])].sort(() => Math.random() - 0.5)
    let best: Awaited<ReturnType<typeof slotsBy>> | undefined
    for (const node of known) {
      if (closed) return
      try {
        const found = await slotsBy(node)
        if (best === undefined || found.isWhole) best = found
        if (found.isWhole) break
      } catch {
        // The next one may know.
      }
    }
    if (closed) return
    if (best) apply(best.at, best.slots)
    if (told !== (best === undefined)) {
      told = best === undefined
      if (told) log?.warn({ redis: 'cluster' }, 'no node of the Redis Cluster answers')
      else log?.info({ redis: 'cluster' }, 'the Redis Cluster answers again')
    }
  }

  function apply(at: string, slots: Slots): void {
    let changed = false
    for (const [from, to, [host, port]] of slots) {
      // A node that does not know its own address is where we asked it.
      const owner = urlOf(url, host === null || host === '' || host === '?' ? new URL(at).hostname : host, port)
      for (let slot = from; slot <= to; slot += 1) {
        if (owners[slot] !== owner) changed = true
        owners[slot] = owner
      }
    }
    if (!changed) return
    masters = new Set(owners.filter((owner) => owner !== undefined))
    log?.info({ redis: 'cluster', masters: masters.size }, 'the slots of the Redis Cluster were found')
    for (const listener of listeners) listener()
  }

  function refresh(): Promise<void> {
    if (closed) return Promise.resolve()
    refreshing ??= sleep(Math.max(0, refreshedAt + refreshAtMostEveryMs - performance.now()))
      .then(look)
      .finally(() => {
        refreshedAt = performance.now()
        refreshing = undefined
      })
    return refreshing
  }

  const ticker = setInterval(() => void refresh(), refreshEveryMs)
  ticker.unref()
  await refresh()
  return {
    url,
    ownerOf: (key) => owners[slotOf(key)],
    get masters() {
      return masters
    },
    refresh,
    onChange: (listener) => void listeners.push(listener),
    close() {
      closed = true
      clearInterval(ticker)
    },
  }
}

/** An error that says that the key is elsewhere, or nowhere for the time being. */
export function isMisplaced(error: unknown): boolean {
  return error instanceof Error && /^(MOVED|ASK|CLUSTERDOWN|TRYAGAIN) ?/.test(error.message)
}

/** One connection that follows a key to wherever its slot goes. */
export function connectToOwner(
  cluster: Cluster,
  key: string,
  log: RedisLog | undefined,
  options: Omit<RedisLinkOptions, 'locate'>,
): RedisLink {
  let at: string | undefined
  const locate = async () => {
    await cluster.refresh()
    at = cluster.ownerOf(key) ?? cluster.url
    return at
  }
  const link = connectRedis(cluster.url, log, { ...options, locate })
  cluster.onChange(() => {
    if (cluster.ownerOf(key) !== at) link.reset()
  })
  return link
}
