import { LRUCache } from 'lru-cache'
import type { Bus } from '../../platform/bus/bus.ts'
import type { Control } from '../../platform/control.ts'
import type { Queryable } from '../../platform/db/db.ts'
import { AppError } from '../../platform/errors.ts'
import type { Authenticate } from '../../platform/identity.ts'
import type { Keys } from './keys.ts'
import * as store from './store.ts'

/**
 * Who is behind an access token. Invariant: what is told of a session is never older than the last news of its end that
 * reached this instance, and at most a minute old; while news do not pass, at most two seconds.
 */
export interface Authenticator {
  authenticate: Authenticate
  /** Forgets all sessions: after a gap in the news. */
  clear(): void
  /** Writes down which sessions were used, then stops. */
  close(): Promise<void>
}

export interface AuthenticatorOptions {
  db: Queryable
  keys: Keys
  bus: Pick<Bus, 'connected'>
  control: Control
  /** Told of what concerns no caller. */
  onError: (error: unknown) => void
}

interface Entry {
  row: store.SignedInRow
  loadedAt: number
  /** The newest generation that needs no confirmation any more. */
  confirmed: number
  touchedAt: number
}

const maxSessions = 50_000
const freshMs = 60_000
const freshWithoutNewsMs = 2_000
const touchEveryMs = 60_000
const flushEveryMs = 5_000

export function createAuthenticator({ db, keys, bus, control, onError }: AuthenticatorOptions): Authenticator {
  const cache = new LRUCache<string, Entry>({ max: maxSessions })
  // A session that is being read is read once for all who ask; news that come meanwhile keep the result out of the cache.
  const reading = new Map<string, Promise<Entry>>()
  const used = new Set<string>()

  function forget(sessionId: string): void {
    cache.delete(sessionId)
    reading.delete(sessionId)
  }

  function clear(): void {
    cache.clear()
    reading.clear()
  }

  control.on(({ sessions_ended, user_changed }) => {
    sessions_ended?.forEach(forget)
    if (user_changed === undefined) return
    // Rare beside requests, so that an index by user is not worth keeping.
    for (const [id, { row }] of cache.entries()) if (row.user_id === user_changed) cache.delete(id)
    reading.clear()
  })

  async function read(sessionId: string): Promise<Entry> {
    const loadedAt = Date.now()
    const row = await store.selectSignedIn(db, sessionId)
    if (!row) throw new AppError('session_ended')
    return { row, loadedAt, confirmed: row.confirmed_generation, touchedAt: 0 }
  }

  function session(sessionId: string): Promise<Entry> {
    const known = cache.get(sessionId)
    if (known && Date.now() - known.loadedAt < (bus.connected ? freshMs : freshWithoutNewsMs)) return Promise.resolve(known)
    const pending = reading.get(sessionId)
    if (pending) return pending
    const mine = read(sessionId).then(
      (entry) => {
        if (reading.get(sessionId) === mine) {
          reading.delete(sessionId)
          cache.set(sessionId, { ...entry, touchedAt: known?.touchedAt ?? 0 })
        }
        return cache.peek(sessionId) ?? entry
      },
      (error: unknown) => {
        if (reading.get(sessionId) === mine) reading.delete(sessionId)
        cache.delete(sessionId)
        throw error
      },
    )
    reading.set(sessionId, mine)
    return mine
  }

  async function flush(): Promise<void> {
    if (used.size === 0) return
    const ids = [...used]
    used.clear()
    // Lost marks do no harm: the next use makes new ones.
    await store.touchSessions(db, ids).catch(onError)
  }
  const timer = setInterval(() => void flush(), flushEveryMs).unref()

  return {
    async authenticate(token) {
      const claims = keys.verify(token)
      const entry = await session(claims.sid)
      const { row } = entry
      if (row.user_id !== claims.sub) throw new AppError('invalid_token')
      if (claims.gen > entry.confirmed) {
        // Before the answer: once it is sent, the refresh token before this one must not work any more.
        await store.confirmGeneration(db, claims.sid, claims.gen)
        entry.confirmed = Math.max(entry.confirmed, claims.gen)
      }
      const now = Date.now()
      if (now - entry.touchedAt >= touchEveryMs) {
        entry.touchedAt = now
        used.add(claims.sid)
      }
      return {
        user_id: row.user_id,
        session_id: claims.sid,
        is_premium: row.is_premium,
        user: { id: row.user_id, username: row.username, display_name: row.display_name, avatar_url: row.avatar_url },
        expires_at: claims.exp,
      }
    },
    clear,
    async close() {
      clearInterval(timer)
      await flush()
    },
  }
}
