import { randomBytes } from 'node:crypto'
import type { Queryable } from '../../platform/db/db.ts'
import { AppError } from '../../platform/errors.ts'
import type { Identity } from '../../platform/identity.ts'
import { newId } from '../../platform/ids.ts'
import { sweepCodes } from './codes.ts'
import { sweepHits } from './counts.ts'
import type { AuthDeps, Client } from './deps.ts'
import { sweepInvites } from './invites.ts'
import { hashOf, makeRefreshToken, readRefreshToken } from './refresh-token.ts'
import type { Tokens } from './schema.ts'
import * as store from './store.ts'

/** More devices than anybody has; the one unused for longest makes room. */
const maxSessions = 50

export interface OpenedSession {
  id: string
  refresh_token: string
}

/** Makes a session with its first refresh token. */
export async function openSession(tx: Queryable, deps: AuthDeps, userId: string, client: Client): Promise<OpenedSession> {
  const id = newId()
  const salt = randomBytes(16)
  const refresh_token = makeRefreshToken(deps.keys.refreshKey, id, 1, salt)
  await store.insertSession(tx, {
    id,
    user_id: userId,
    refresh_hash: hashOf(refresh_token),
    salt,
    ...client,
    ttlMs: deps.config.refreshTokenTtlMs,
  })
  return { id, refresh_token }
}

/** Ends what is too much before another session is opened; answers which, to be announced after the commit. */
export function makeRoom(tx: Queryable, userId: string): Promise<string[]> {
  return store.endOldestSessions(tx, userId, maxSessions - 1)
}

export function tokensOf(deps: AuthDeps, sub: string, sid: string, gen: number, refresh_token: string): Tokens {
  return { token: deps.keys.sign({ sub, sid, gen }), refresh_token, expires_in: Math.floor(deps.config.accessTokenTtlMs / 1000) }
}

type Outcome = Tokens | 'forged' | 'disabled' | 'ended' | 'reused'

/**
 * The next pair of tokens. The newest refresh token works once; the one before it gives the same answer again until its
 * successor has been seen in use, for a client that lost the answer. Any older one has been copied, and ends the session.
 * Rejects with `invalid_refresh_token`, `account_disabled`, `session_ended` or `refresh_token_reused`.
 */
export async function refresh(deps: AuthDeps, token: string, client: Client): Promise<Tokens> {
  const claimed = readRefreshToken(token)
  if (!claimed) throw new AppError('invalid_refresh_token')
  const { sessionId, generation } = claimed
  const { refreshKey } = deps.keys

  const outcome = await deps.db.transaction(async (tx): Promise<Outcome> => {
    const session = await store.lockSession(tx, sessionId)
    if (!session || !claimed.isGenuine(refreshKey, session.salt)) return 'forged'
    if (session.is_disabled) return 'disabled'
    if (!session.is_live) return 'ended'
    const { user_id, salt } = session
    const current = session.generation
    if (generation === current && hashOf(token).equals(session.refresh_hash)) {
      const next = makeRefreshToken(refreshKey, sessionId, current + 1, salt)
      await store.rotate(tx, sessionId, current + 1, hashOf(next), deps.config.refreshTokenTtlMs, client.ip)
      return tokensOf(deps, user_id, sessionId, current + 1, next)
    }
    if (generation === current - 1 && session.confirmed_generation < current) {
      return tokensOf(deps, user_id, sessionId, current, makeRefreshToken(refreshKey, sessionId, current, salt))
    }
    // Newer than the newest: the database is older than the token, restored from a backup. Nobody has copied anything.
    if (generation >= current) return 'forged'
    await store.endSessions(tx, user_id, [sessionId])
    return 'reused'
  })

  if (outcome === 'forged') throw new AppError('invalid_refresh_token')
  if (outcome === 'disabled') throw new AppError('account_disabled')
  if (outcome === 'ended') throw new AppError('session_ended')
  if (outcome === 'reused') {
    deps.control.announce({ sessions_ended: [sessionId] })
    throw new AppError('refresh_token_reused')
  }
  return outcome
}

export async function logout(deps: AuthDeps, { user_id, session_id }: Identity): Promise<void> {
  const ended = await store.endSessions(deps.db, user_id, [session_id])
  deps.control.announce({ sessions_ended: ended })
}

export async function logoutAll(deps: AuthDeps, { user_id }: Identity): Promise<void> {
  const ended = await store.endSessionsOf(deps.db, user_id)
  deps.control.announce({ sessions_ended: ended })
}

export async function listSessions(deps: AuthDeps, { user_id, session_id }: Identity) {
  const rows = await store.selectSessions(deps.db, user_id)
  return rows.map((row) => ({ ...row, current: row.id === session_id }))
}

/** Ends one of my own sessions, this one too. Rejects with `session_not_found`. */
export async function endSession(deps: AuthDeps, { user_id }: Identity, id: string): Promise<void> {
  const ended = await store.endSessions(deps.db, user_id, [id])
  if (ended.length === 0) throw new AppError('session_not_found')
  deps.control.announce({ sessions_ended: ended })
}

/** Removes sessions, failed logins, codes and server invites that are over; to be called now and then. */
export async function sweepAuth(db: Queryable): Promise<void> {
  await store.deleteExpired(db)
  await sweepHits(db)
  await sweepCodes(db)
  await sweepInvites(db)
}
