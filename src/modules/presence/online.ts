import type { Db } from '../../platform/db/db.ts'
import type { News } from '../../platform/news.ts'
import type { PresenceStore } from '../../platform/presence/presence.ts'
import { frame } from '../../protocol/events.ts'
import { seen, shown, watchersOf } from './store.ts'

/**
 * Who is online. Somebody is while any of their devices is connected to any instance; going is told after a second of
 * quiet, so that a reconnect is not news. Told to those whom it concerns, if they are there themselves; best effort.
 */

/** A device that comes back within this was never gone. */
const quietMs = 1_000
/** Comings and goings of so long are told together. */
const gatherMs = 200

export interface OnlineDeps {
  db: Db
  news: News
  store: PresenceStore
  onError: (error: unknown, what: string) => void
}

export interface Online {
  /** This instance's first connection of the user came, or its last one went. */
  moved(userId: string, isHere: boolean): void
  /** Tells how these stand now: somebody whose status changed. */
  announce(userIds: readonly string[]): void
  /** Everybody here goes at once. */
  close(): Promise<void>
}

export function createOnline({ db, news, store, onError }: OnlineDeps): Online {
  const here = new Set<string>()
  const leaving = new Map<string, NodeJS.Timeout>()
  /** Whose standing is to be told; `true` where it is told of somebody invisible, too. */
  const due = new Map<string, boolean>()
  let timer: NodeJS.Timeout | undefined

  function announce(userIds: readonly string[]): void {
    for (const id of userIds) due.set(id, true)
    timer ??= setTimeout(() => void tell(), gatherMs)
  }

  /** Their connections came or went, which is nobody's business while they are invisible. */
  function announceMoves(userIds: readonly string[]): void {
    for (const id of userIds) due.set(id, due.get(id) ?? false)
    timer ??= setTimeout(() => void tell(), gatherMs)
  }

  async function tell(): Promise<void> {
    clearTimeout(timer)
    timer = undefined
    const changed = new Map(due)
    const ids = [...changed.keys()]
    due.clear()
    if (ids.length === 0) return
    try {
      const online = await store.online(ids)
      const gone = ids.filter((id) => !online.has(id))
      if (gone.length > 0) await seen(db, gone)
      const watchers = await watchersOf(db, ids)
      const awake = await store.online([...new Set([...watchers.values()].flat())])
      for (const user of await shown(db, ids)) {
        if (user.status === 'invisible' && !changed.get(user.id)) continue
        const to = (watchers.get(user.id) ?? []).filter((id) => awake.has(id))
        const is_online = online.has(user.id) && user.status !== 'invisible'
        const timestamp = Math.floor(Date.now() / 1_000)
        const status = user.status === 'invisible' ? 'online' : user.status
        news.passTo(
          to,
          frame({ type: 'online_status', user_id: user.id, is_online, status, last_seen: user.last_seen, timestamp }),
        )
      }
    } catch (error) {
      onError(error, 'presence could not be told')
    }
  }

  async function gone(userId: string): Promise<void> {
    leaving.delete(userId)
    here.delete(userId)
    await store.remove([userId])
    announceMoves([userId])
  }

  store.onLeaseEnded(announceMoves)
  store.onReturned(announceMoves)

  return {
    moved(userId, isHere) {
      clearTimeout(leaving.get(userId))
      leaving.delete(userId)
      if (!isHere)
        leaving.set(
          userId,
          setTimeout(() => void gone(userId), quietMs),
        )
      else if (!here.has(userId)) {
        here.add(userId)
        void store.add([userId]).then(() => announceMoves([userId]))
      }
    },
    announce,
    async close() {
      for (const wait of leaving.values()) clearTimeout(wait)
      leaving.clear()
      const users = [...here]
      here.clear()
      await store.remove(users)
      for (const id of users) due.set(id, due.get(id) ?? false)
      await tell()
    },
  }
}
