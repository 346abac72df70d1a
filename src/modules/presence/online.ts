import type { Db } from '../../platform/db/db.ts'
import type { News } from '../../platform/news.ts'
import type { PresenceStore } from '../../platform/presence/presence.ts'
import { frame } from '../../protocol/events.ts'
import type { UserStatus } from '../../protocol/resources.ts'
import { type Shown, seen, shown, type Watcher, watchersOf } from './store.ts'

/**
 * Who is online. Somebody is while any of their devices is connected to any instance; going is told after a second of
 * quiet, so that a reconnect is not news. Told to those whom it concerns, if they are there themselves; best effort.
 */

/** A device that comes back within this was never gone. */
const quietMs = 1_000
/** Comings and goings of so long are told together. */
const gatherMs = 200
/** What was on its way elsewhere when two people's sight of each other changed has arrived by then, and is put right. */
const settleMs = 1_000

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
  /** Two people became contacts, or one blocks the other, or no longer does: each is told how the other stands. */
  sightChanged(userId: string, otherId: string): void
  /** Everybody here goes at once. */
  close(): Promise<void>
}

export function createOnline({ db, news, store, onError }: OnlineDeps): Online {
  const here = new Set<string>()
  const leaving = new Map<string, NodeJS.Timeout>()
  /** Whose standing is to be told; `true` where it is told of somebody invisible, too. */
  const due = new Map<string, boolean>()
  let timer: NodeJS.Timeout | undefined
  const settling = new Set<NodeJS.Timeout>()

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
      const people = (await shown(db, ids)).filter((user) => user.status !== 'invisible' || changed.get(user.id))
      // As late as can be: who is blocked from here on is told of it after what is told now.
      const watchers = await watchersOf(db, ids)
      for (const user of people) {
        const to = (watchers.get(user.id) ?? []).filter((watcher) => !watcher.is_blocked)
        tellOf(user, online.has(user.id), to)
      }
    } catch (error) {
      onError(error, 'presence could not be told')
    }
  }

  /** At most two different frames: one for those who may know when this person was here last, one for the others. */
  function tellOf(user: Shown, isHere: boolean, to: readonly Watcher[]): void {
    const mayKnow = ({ is_contact }: Watcher) =>
      user.privacy_last_seen === 'everyone' || (user.privacy_last_seen === 'contacts' && is_contact)
    const is_online = isHere && user.status !== 'invisible'
    const idsOf = (watchers: readonly Watcher[]) => watchers.map((watcher) => watcher.watcher_id)
    news.passTo(idsOf(to.filter(mayKnow)), statusFrame(user.id, is_online, user.status, user.last_seen))
    news.passTo(idsOf(to.filter((watcher) => !mayKnow(watcher))), statusFrame(user.id, is_online, user.status, null))
  }

  /** How each of these stands, to the other. Nothing where they are nothing to each other. */
  async function tellEachOther(userId: string, otherId: string): Promise<void> {
    const ids = [userId, otherId]
    try {
      const online = await store.online(ids)
      const people = await shown(db, ids)
      const watchers = await watchersOf(db, ids)
      for (const user of people) {
        const [watcher] = (watchers.get(user.id) ?? []).filter((each) => ids.includes(each.watcher_id))
        if (!watcher) continue
        const isHere = online.has(user.id)
        if (!watcher.is_blocked) tellOf(user, isHere, [watcher])
        // Who was shown as offline before stays as they were.
        else if (isHere && user.status !== 'invisible')
          news.passTo([watcher.watcher_id], statusFrame(user.id, false, 'online', null))
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
    sightChanged(userId, otherId) {
      void tellEachOther(userId, otherId)
      const later = setTimeout(() => {
        settling.delete(later)
        void tellEachOther(userId, otherId)
      }, settleMs)
      settling.add(later)
    },
    async close() {
      for (const later of settling) clearTimeout(later)
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

/** Who is invisible is shown as somebody who is away from all devices, not as what they chose. */
function statusFrame(user_id: string, is_online: boolean, status: UserStatus, last_seen: string | null): string {
  const timestamp = Math.floor(Date.now() / 1_000)
  return frame({
    type: 'online_status',
    user_id,
    is_online,
    status: status === 'invisible' ? 'online' : status,
    last_seen,
    timestamp,
  })
}
