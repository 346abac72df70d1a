import { randomUUID } from 'node:crypto'
import { type Cluster, connectToOwner, isMisplaced } from '../cluster.ts'
import { connectRedis, type RedisOptions, within } from '../redis.ts'
import { holdLease } from './lease.ts'
import { maxOpenUsers, type PresenceStore } from './presence.ts'
import { definePresenceScripts, presenceKeys, presenceTag } from './scripts.ts'

const leaseMs = 1_500
const renewMs = 500
const pollMs = 400
const maxStallMs = 15_000
// No caller waits for Redis longer than this.
const patienceMs = 500
// What an instance leaves behind when no other is alive to clear up.
const usersTtlMs = 600_000
const openTtlMs = 3_600_000
const chunkSize = 1_000

export interface RedisPresenceOptions extends RedisOptions {
  /** Where `url` names a node of a cluster: all of presence lies on the node that has its slot, wherever that goes. */
  cluster?: Cluster | undefined
}

/**
 * Presence over Redis. Invariant: the local sets are the truth about this instance, and Redis holds a copy: whenever
 * a command failed, or the copy is found missing, it is written anew as a whole. Resolves once registered, or after
 * two seconds without Redis.
 */
export async function createRedisPresence({
  url,
  prefix = 'parley:',
  log,
  cluster,
}: RedisPresenceOptions): Promise<PresenceStore> {
  const instance = randomUUID()
  const keys = presenceKeys(prefix)
  const myUsers = keys.users + instance
  const options = { name: 'presence', prefix }
  const link = cluster ? connectToOwner(cluster, presenceTag(prefix), log, options) : connectRedis(url, log, options)
  const redis = definePresenceScripts(link.client)
  const lease = holdLease({ url, prefix, instance, leaseMs, renewMs, maxStallMs, isCluster: cluster !== undefined }, log)

  const users = new Set<string>()
  /** chat -> users */
  const open = new Map<string, Set<string>>()
  let onLeaseEnded: (userIds: string[]) => void = () => {}
  let onInstanceGone: () => void = () => {}
  let onReturned: (userIds: string[]) => void = () => {}
  let closed = false
  // False when the copy in Redis may differ from the local sets.
  let copied = false
  const others = new Set<string>()
  // Not on the first registration: nobody can have taken these users for gone.
  let tellReturn = false
  let openRefreshedAt = performance.now()
  let timer: NodeJS.Timeout | undefined
  let polling: Promise<void> | undefined

  /** Runs commands, for as long as a caller may wait. What fails is mended by the next poll. */
  async function write(command: () => Promise<unknown>): Promise<void> {
    if (closed || !link.up) {
      copied = false
      return
    }
    try {
      await within(patienceMs, command())
    } catch {
      copied = false
    }
  }

  /** Rejects when any of the commands failed. */
  async function exec(commands: ReturnType<typeof redis.pipeline>) {
    const results = await commands.exec()
    const failed = results === null ? new Error('The transaction was discarded.') : results.find(([error]) => error)?.[0]
    if (failed) throw failed
  }

  async function copy() {
    // Changes made from here on are sent after this, on the same connection; their failure unsets it again.
    copied = true
    try {
      const mine = redis.multi().del(myUsers)
      const ids = [...users]
      for (let i = 0; i < ids.length; i += chunkSize) mine.hset(myUsers, ...ones(ids.slice(i, i + chunkSize)))
      const written = exec(mine.hset(myUsers, '', 1).pexpire(myUsers, usersTtlMs))
      const chats = redis.pipeline()
      for (const [chatId, viewers] of open) {
        chats.hset(keys.open(chatId), ...ones([...viewers].map((user) => `${instance}:${user}`)))
        chats.pexpire(keys.open(chatId), openTtlMs)
      }
      openRefreshedAt = performance.now()
      await Promise.all([written, open.size > 0 && exec(chats)])
    } catch (error) {
      copied = false
      throw error
    }
  }

  async function poll() {
    lease.beat()
    if (!link.up) return
    try {
      const args = [keys.instances, keys.polled, keys.quiet, instance, leaseMs, keys.users, usersTtlMs]
      const [complete, quiet, live, ended] = await redis.presencePoll(...args)
      if (closed) return
      noticeOthers(live, quiet === 1)
      if (ended.length > 0) {
        const elsewhere = await store.online(ended)
        tell(() => onLeaseEnded(ended.filter((user) => !elsewhere.has(user))))
      }
      if (complete && copied) return await refreshOpen()
      await copy()
      if (!complete && tellReturn) tell(() => onReturned([...users]))
    } catch (error) {
      // Redis went away, which the link tells the log; the next poll begins anew.
      if (isMisplaced(error)) link.reset()
    }
  }

  async function refreshOpen() {
    const now = performance.now()
    if (now - openRefreshedAt < openTtlMs / 3) return
    openRefreshedAt = now
    const chats = redis.pipeline()
    for (const chatId of open.keys()) chats.pexpire(keys.open(chatId), openTtlMs)
    await exec(chats)
  }

  function noticeOthers(live: string[], quiet: boolean) {
    const now = new Set(live)
    now.delete(instance)
    // While others may just not have renewed yet, nobody is given up.
    const gone = quiet ? [] : [...others].filter((other) => !now.has(other))
    for (const other of gone) others.delete(other)
    for (const other of now) others.add(other)
    if (gone.length > 0) tell(() => onInstanceGone())
  }

  /** In a turn of its own: what a listener throws is not an error of Redis. */
  function tell(listener: () => void) {
    setImmediate(() => {
      if (!closed) listener()
    })
  }

  function schedule() {
    if (closed) return
    timer = setTimeout(run, pollMs)
    timer.unref()
  }

  function run(): Promise<void> {
    clearTimeout(timer)
    polling ??= poll().finally(() => {
      polling = undefined
      schedule()
    })
    return polling
  }

  const store: PresenceStore = {
    add(userIds) {
      for (const user of userIds) users.add(user)
      return write(() => inChunks(userIds, (chunk) => redis.hset(myUsers, ...ones(chunk))))
    },
    remove(userIds) {
      for (const user of userIds) users.delete(user)
      return write(() => inChunks(userIds, (chunk) => redis.hdel(myUsers, ...chunk)))
    },
    async online(userIds) {
      const found = new Set(userIds.filter((user) => users.has(user)))
      const rest = userIds.filter((user) => !found.has(user))
      if (rest.length === 0 || closed || !link.up) return found
      try {
        await within(
          patienceMs,
          inChunks(rest, async (chunk) => {
            for (const user of await redis.presenceOnline(keys.instances, keys.users, ...chunk)) found.add(user)
          }),
        )
      } catch {
        // Then one's own are all that is known.
      }
      return found
    },
    openChat(chatId, userId) {
      const viewers = open.get(chatId)
      if (viewers) viewers.add(userId)
      else open.set(chatId, new Set([userId]))
      const key = keys.open(chatId)
      return write(() => exec(redis.pipeline().hset(key, `${instance}:${userId}`, 1).pexpire(key, openTtlMs)))
    },
    async closeChat(chatId, userId) {
      const viewers = open.get(chatId)
      if (!viewers?.delete(userId)) return
      if (viewers.size === 0) open.delete(chatId)
      await write(() => redis.hdel(keys.open(chatId), `${instance}:${userId}`))
    },
    async openUsers(chatId) {
      const found = new Set(open.get(chatId))
      if (!closed && link.up && found.size < maxOpenUsers) {
        try {
          const query = redis.presenceOpenUsers(keys.instances, keys.open(chatId), keys.users, maxOpenUsers)
          for (const user of await within(patienceMs, query)) found.add(user)
        } catch {
          // Then one's own are all that is known.
        }
      }
      return [...found].slice(0, maxOpenUsers)
    },
    onLeaseEnded(listener) {
      onLeaseEnded = listener
    },
    onInstanceGone(listener) {
      onInstanceGone = listener
    },
    onReturned(listener) {
      onReturned = listener
    },
    async close() {
      if (closed) return
      closed = true
      clearTimeout(timer)
      await lease.stop()
      if (link.up) {
        const chats = redis.pipeline()
        for (const [chatId, viewers] of open) {
          chats.hdel(keys.open(chatId), ...[...viewers].map((user) => `${instance}:${user}`))
        }
        const released = redis.presenceRelease(keys.instances, instance, keys.users)
        await within(patienceMs, Promise.all([released, chats.exec()])).catch(() => {})
      }
      await link.close()
    },
  }

  await link.ready
  await run()
  tellReturn = true
  link.onUp(() => void run())
  return store
}

const ones = (fields: readonly string[]) => fields.flatMap((field) => [field, 1])

async function inChunks(ids: readonly string[], work: (chunk: string[]) => Promise<unknown>) {
  const all: Promise<unknown>[] = []
  for (let i = 0; i < ids.length; i += chunkSize) all.push(work(ids.slice(i, i + chunkSize)))
  await Promise.all(all)
}
