import { expect, test, vi } from 'vitest'
import { createAuthenticator } from '../src/modules/auth/index.ts'
import { createTurns } from '../src/modules/auth/turns.ts'
import { type Queryable, sql } from '../src/platform/db/db.ts'
import { newName, useHarness } from './support/harness-auth.ts'

/** How many sessions there are, and what is remembered of them. */

const h = useHarness()
const name = newName()
const sidOf = (token: string) => h.keys.verify(token).sid
const isSignedIn = async (token: string) => (await h.call('GET', '/auth/verify', undefined, token)).statusCode === 200

test('fifty sessions are kept, those used last; the others hear that they have ended', async () => {
  const username = name()
  const first = await h.person(username)
  const login = async () => (await h.call('POST', '/auth/login', { login: username, password: 'Passw0rd' })).json()
  const second = await login()
  for (let i = 0; i < 48; i++) await login()
  // Remembered as good, for a minute, unless there is news.
  expect(await isSignedIn(first.token)).toBe(true)
  await h.db.query(sql`UPDATE sessions SET last_used_at = now() - interval '1 hour' WHERE id = ${sidOf(first.token)}`)
  h.news.length = 0
  await login()
  expect(h.news).toEqual([{ sessions_ended: [sidOf(first.token)] }])
  expect(await isSignedIn(first.token)).toBe(false)
  expect(await isSignedIn(second.token)).toBe(true)
  expect((await h.call('GET', '/auth/sessions', undefined, second.token)).json().sessions).toHaveLength(50)
})

test('what is stored of a session is no token, in whatever spelling; no two are given the same', async () => {
  const username = name()
  const first = await h.person(username)
  const login = async () => (await h.call('POST', '/auth/login', { login: username, password: 'Passw0rd' })).json()
  const given = [first, ...(await Promise.all(Array.from({ length: 8 }, login)))]
  const next = (await h.call('POST', '/auth/refresh', { refresh_token: first.refresh_token })).json()
  const tokens = [...given, next].flatMap(({ token, refresh_token }) => [token, refresh_token] as string[])
  expect(new Set(tokens).size).toBe(20)
  const rows = await h.db.query<{ stored: string }>(
    sql`SELECT to_jsonb(s)::text AS stored FROM sessions s WHERE user_id = ${first.user_id}`,
  )
  expect(rows).toHaveLength(9)
  const stored = rows.map((row) => row.stored).join()
  for (const token of tokens) {
    for (const spelling of [Buffer.from(token), Buffer.from(token, 'base64url')]) {
      expect(stored).not.toContain(spelling.toString('hex'))
      expect(stored).not.toContain(spelling.toString('base64'))
    }
    expect(stored).not.toContain(token)
  }
})

test('a session is read once for many requests at once, and again after news of its user', async () => {
  const { token, user_id } = await h.person(name())
  h.authenticator.clear()
  const query = vi.spyOn(h.db, 'query')
  await Promise.all(Array.from({ length: 20 }, () => h.authenticator.authenticate(token)))
  await h.authenticator.authenticate(token)
  expect(query).toHaveBeenCalledTimes(1)
  await h.db.query(sql`UPDATE users SET is_premium = true WHERE id = ${user_id}`)
  h.control.announce({ user_changed: user_id })
  expect((await h.authenticator.authenticate(token)).is_premium).toBe(true)
})

test('without news a session is believed for two seconds only', async () => {
  const { token } = await h.person(name())
  await h.authenticator.authenticate(token)
  vi.spyOn(h.bus, 'connected', 'get').mockReturnValue(false)
  // Ended by another instance, of which nothing is heard here.
  await h.db.query(sql`UPDATE sessions SET ended_at = now() WHERE id = ${h.keys.verify(token).sid}`)
  const now = Date.now()
  vi.spyOn(Date, 'now').mockImplementation(() => now + 2_001)
  await expect(h.authenticator.authenticate(token)).rejects.toMatchObject({ code: 'session_ended' })
})

test('a session that ends while it is being read is not remembered as good', async () => {
  const { token, user_id } = await h.person(name())
  const { sid } = h.keys.verify(token)
  for (const ended of [{ sessions_ended: [sid] }, { user_changed: user_id }]) {
    await h.db.query(sql`UPDATE sessions SET ended_at = NULL WHERE id = ${sid}`)
    const { promise: released, resolve: release } = Promise.withResolvers<void>()
    const { promise: wasRead, resolve: isRead } = Promise.withResolvers<void>()
    // The database as it is, whose answers take their time.
    const slow = {
      query: async (statement: Parameters<Queryable['query']>[0]) => {
        const rows = await h.db.query(statement)
        isRead()
        await released
        return rows
      },
    } as Queryable
    const slowly = createAuthenticator({ db: slow, keys: h.keys, bus: h.bus, control: h.control, onError: () => {} })
    const first = slowly.authenticate(token)
    await wasRead
    await h.db.query(sql`UPDATE sessions SET ended_at = now() WHERE id = ${sid}`)
    h.control.announce(ended)
    release()
    await first
    await expect(slowly.authenticate(token), JSON.stringify(ended)).rejects.toMatchObject({ code: 'session_ended' })
    await slowly.close()
  }
})

test('turns of one key come one after another, so many wait and no more; other keys do not wait', async () => {
  const turns = createTurns(3)
  const { promise: released, resolve: release } = Promise.withResolvers<void>()
  const order: string[] = []
  const turn = (key: string, what: string, work?: Promise<void>) =>
    turns(key, async () => {
      await work
      order.push(what)
    })
  const waiting = [turn('a', 'first', released), turn('a', 'second'), turn('a', 'third')]
  await expect(turn('a', 'too many')).rejects.toMatchObject({ code: 'overloaded', status: 503 })
  await turn('b', 'another')
  release()
  await Promise.all(waiting)
  await turn('a', 'later')
  expect(order).toEqual(['another', 'first', 'second', 'third', 'later'])
})
