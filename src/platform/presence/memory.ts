import { maxOpenUsers, type PresenceStore } from './presence.ts'

/** What stands for the Redis server: stores over one hub know each other's users. */
export interface MemoryPresenceHub {
  /** The instance of `store` dies, or stalls, without a word; its lease ends `leaseMs` later. */
  kill(store: PresenceStore): void
  /** It was only a stall: the instance goes on, and registers again if its lease has ended. */
  revive(store: PresenceStore): void
}

interface Instance {
  /** Renews its lease. */
  live: boolean
  /** Its lease holds. */
  leased: boolean
  users: Set<string>
  /** chat -> users */
  open: Map<string, Set<string>>
  lease?: NodeJS.Timeout | undefined
  leaseEnded(userIds: string[]): void
  instanceGone(): void
  returned(userIds: string[]): void
}

interface Hub extends MemoryPresenceHub {
  instances: Map<PresenceStore, Instance>
}

export function createMemoryPresenceHub({ leaseMs = 1_500 } = {}): MemoryPresenceHub {
  const hub: Hub = {
    instances: new Map(),
    kill(store) {
      const dead = hub.instances.get(store)
      if (!dead?.live) return
      dead.live = false
      dead.lease = setTimeout(() => endLease(hub, dead), leaseMs)
      dead.lease.unref()
    },
    revive(store) {
      const back = hub.instances.get(store)
      if (!back || back.live) return
      clearTimeout(back.lease)
      back.live = true
      if (back.leased) return
      back.leased = true
      back.returned([...back.users])
    },
  }
  return hub
}

function endLease(hub: Hub, dead: Instance) {
  dead.leased = false
  const others = [...hub.instances.values()].filter((instance) => instance.live)
  const gone = [...dead.users].filter((user) => !others.some((other) => other.users.has(user)))
  others[0]?.leaseEnded(gone)
  for (const other of others) other.instanceGone()
}

/** The store of a single instance; tests run several over one hub. Answers come a turn of the event loop later. */
export function createMemoryPresence(over: MemoryPresenceHub = createMemoryPresenceHub()): PresenceStore {
  const hub = over as Hub
  const mine: Instance = {
    live: true,
    leased: true,
    users: new Set(),
    open: new Map(),
    leaseEnded() {},
    instanceGone() {},
    returned() {},
  }
  const turn = () => new Promise<void>((resolve) => setImmediate(resolve))
  // One's own users are known to oneself, whatever has become of the lease.
  const visible = () => [...hub.instances.values()].filter((instance) => instance.leased || instance === mine)

  const store: PresenceStore = {
    async add(userIds) {
      await turn()
      for (const user of userIds) mine.users.add(user)
    },
    async remove(userIds) {
      await turn()
      for (const user of userIds) mine.users.delete(user)
    },
    async online(userIds) {
      await turn()
      const instances = visible()
      return new Set(userIds.filter((user) => instances.some((instance) => instance.users.has(user))))
    },
    async openChat(chatId, userId) {
      await turn()
      const users = mine.open.get(chatId)
      if (users) users.add(userId)
      else mine.open.set(chatId, new Set([userId]))
    },
    async closeChat(chatId, userId) {
      await turn()
      const users = mine.open.get(chatId)
      if (users?.delete(userId) && users.size === 0) mine.open.delete(chatId)
    },
    async openUsers(chatId) {
      await turn()
      const users = new Set<string>()
      for (const instance of visible()) {
        for (const user of instance.open.get(chatId) ?? []) {
          if (users.size === maxOpenUsers) return [...users]
          users.add(user)
        }
      }
      return [...users]
    },
    onLeaseEnded(listener) {
      mine.leaseEnded = listener
    },
    onInstanceGone(listener) {
      mine.instanceGone = listener
    },
    onReturned(listener) {
      mine.returned = listener
    },
    async close() {
      clearTimeout(mine.lease)
      if (!hub.instances.delete(store)) return
      await turn()
      for (const other of hub.instances.values()) if (other.live) other.instanceGone()
    },
  }
  hub.instances.set(store, mine)
  return store
}
