import bcrypt from 'bcrypt'
import { afterAll, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import { briefs, createBriefCache, publicUsers } from '../src/modules/users/index.ts'
import { type Queryable, sql } from '../src/platform/db/db.ts'
import { Me, type RelationKind, UserFound, UserPublic } from '../src/protocol/resources.ts'
import { type Body, type Harness, startHarness } from './support/harness-auth.ts'

// What the modules above answer.
const relations = new Map<string, RelationKind>()
const online = new Set<string>()
const deleted: string[] = []

let h: Harness
let viewer: Body
beforeAll(async () => {
  h = await startHarness({
    users: {
      relations: async (_q, _viewer, ids) =>
        new Map(
          [...relations].filter(([id]) => ids.includes(id)).map(([id, relation]) => [id, { relation, blocks_viewer: false }]),
        ),
      online: async (ids) => new Set(ids.filter((id) => online.has(id))),
      onDeleted: async (userId) => {
        deleted.push(userId)
      },
    },
  })
  viewer = await h.person('viewer')
})
afterAll(() => h.stop())
beforeEach(() => {
  relations.clear()
  online.clear()
})

const get = async (path: string, token: string = viewer.token) => (await h.call('GET', path, undefined, token)).json()
const search = async (q: string): Promise<Body[]> => (await get(`/users/search?q=${encodeURIComponent(q)}`)).users
const found = async (q: string) => (await search(q)).map(({ username, display_name }) => username ?? display_name)

test('a change of the profile is answered, counted, announced and told to my own devices', async () => {
  const { token, user, user_id } = await h.person('changer')
  h.news.length = 0
  h.told.length = 0
  const patch = { username: 'Changed', display_name: '  New name ', bio: 'b', status: 'away', privacy: { last_seen: 'contacts' } }
  const answer = await h.call('PATCH', '/users/me', patch, token)
  expect(answer.statusCode).toBe(200)
  const me = Me.strict().parse(answer.json())
  expect(me).toEqual({ ...user, ...patch, display_name: 'New name', privacy: { last_seen: 'contacts', dm: 'everyone' } })
  expect(await get('/users/me', token)).toEqual(me)
  expect(h.news).toEqual([{ user_changed: user_id }])
  expect(h.told).toEqual([{ userId: user_id, stamped: { version: 1, prev: 0, event: { type: 'me_updated', me } } }])

  // One field of two, and the empty patch, which is no change.
  expect((await h.call('PATCH', '/users/me', { privacy: { dm: 'contacts' } }, token)).json().privacy).toEqual({
    last_seen: 'contacts',
    dm: 'contacts',
  })
  expect((await h.call('PATCH', '/users/me', { privacy: {} }, token)).statusCode).toBe(200)
  expect((await h.call('PATCH', '/users/me', undefined, token)).statusCode).toBe(200)
  expect(h.told.map(({ stamped }) => stamped.version)).toEqual([1, 2])
})

test('changes at once take versions without a gap', async () => {
  const { token, user_id } = await h.person('many_changes')
  await Promise.all(Array.from({ length: 10 }, (_, i) => h.call('PATCH', '/users/me', { bio: `${i}` }, token)))
  const mine = h.told.filter(({ userId }) => userId === user_id).map(({ stamped }) => [stamped.prev, stamped.version])
  expect(mine.sort(([a], [b]) => a! - b!)).toEqual(Array.from({ length: 10 }, (_, i) => [i, i + 1]))
})

test('a taken username is 409, my own in another case is not', async () => {
  const { token } = await h.person('owner_of_name')
  await h.person('taken_name')
  const taken = await h.call('PATCH', '/users/me', { username: 'TAKEN_name', bio: 'not kept' }, token)
  expect([taken.statusCode, taken.json().code]).toEqual([409, 'username_taken'])
  expect((await get('/users/me', token)).bio).toBe('')
  expect((await h.call('PATCH', '/users/me', { username: 'Owner_Of_Name' }, token)).statusCode).toBe(200)
})

test.each([
  [{ username: 'a b' }, 'username'],
  [{ display_name: '   ' }, 'display_name'],
  [{ display_name: 'x'.repeat(101) }, 'display_name'],
  [{ bio: 'x'.repeat(501) }, 'bio'],
  [{ bio: 'nul \0' }, 'bio'],
  [{ bio: 'lone \ud800' }, 'bio'],
  [{ status: 'busy' }, 'status'],
  [{ privacy: { last_seen: 'friends' } }, 'privacy.last_seen'],
  [{ privacy: { calls: 'nobody' } }, 'privacy.calls'],
  [{ is_premium: true }, 'is_premium'],
  [{ phone: '+4915112345678' }, 'phone'],
])('%j is refused and names %s', async (patch, field) => {
  const answer = await h.call('PATCH', '/users/me', patch, viewer.token)
  expect(answer.statusCode).toBe(400)
  expect(Object.keys(answer.json().details)).toEqual([field])
})

test('a bio of 500 code points may be 1000 units long, and comes back as it was sent', async () => {
  const bio = '🙂'.repeat(500)
  expect((await h.call('PATCH', '/users/me', { bio }, viewer.token)).json().bio).toBe(bio)
})

test('last_seen is shown to whom its owner wants', async () => {
  const at = '2026-01-15T10:05:00.123Z'
  const people: Record<string, string> = {}
  for (const who of ['everyone', 'contacts', 'nobody']) {
    const { token, user_id } = await h.person(`seen_by_${who}`)
    await h.call('PATCH', '/users/me', { privacy: { last_seen: who } }, token)
    people[who] = user_id
  }
  await h.db.query(sql`UPDATE users SET last_seen = ${at} WHERE id = ANY(${Object.values(people)}::uuid[])`)
  const lastSeen = async () => {
    const seen = await publicUsers(h.users, viewer.user_id, Object.values(people))
    return ['everyone', 'contacts', 'nobody'].map((who) => seen.get(people[who]!)?.last_seen)
  }
  expect(await lastSeen()).toEqual([at, null, null])
  for (const id of Object.values(people)) relations.set(id, 'contact')
  expect(await lastSeen()).toEqual([at, at, null])
  expect((await publicUsers(h.users, people.nobody!, [people.nobody!])).get(people.nobody!)?.last_seen).toBe(at)
})

test('online is shown, but not of who is invisible', async () => {
  const { token, user_id } = await h.person('here_i_am')
  const seen = async () => UserPublic.strict().parse(await get(`/users/${user_id}`)).is_online
  expect(await seen()).toBe(false)
  online.add(user_id)
  expect(await seen()).toBe(true)
  await h.call('PATCH', '/users/me', { status: 'invisible' }, token)
  expect(await seen()).toBe(false)
  expect((await get(`/users/${user_id}`, token)).is_online).toBe(true)
})

test('an unknown user is 404, what is no UUID is 400', async () => {
  const unknown = await h.call('GET', '/users/018f0000-0000-7000-8000-000000000000', undefined, viewer.token)
  expect([unknown.statusCode, unknown.json().code]).toEqual([404, 'user_not_found'])
  expect((await h.call('GET', '/users/nobody', undefined, viewer.token)).statusCode).toBe(400)
})

test('search: partial, any case, the closest first, with relation', async () => {
  await h.person('zz_marmot', { display_name: 'Anna Grün' })
  await h.person('marmot')
  const { user_id } = await h.person('marmotta')
  await h.person('unlike', { display_name: 'Old MARMOT' })
  expect(await found('MARMOT')).toEqual(['marmot', 'marmotta', 'unlike', 'zz_marmot'])
  expect(await found('rün')).toEqual(['zz_marmot'])
  expect(await found('nothing like this')).toEqual([])
  relations.set(user_id, 'requested')
  const users = await search('marmotta')
  expect(UserFound.strict().parse(users[0])).toMatchObject({ id: user_id, relation: 'requested', is_online: false })
})

test('search: one or two characters find beginnings, in letters of any script', async () => {
  await h.person('qx_first', { display_name: '明日' })
  await h.person('later_qx')
  expect(await found('qX')).toEqual(['qx_first'])
  expect(await found('明')).toEqual(['qx_first'])
})

test('search: % and _ and \\ mean themselves', async () => {
  await h.person('under_score', { display_name: '100% \\o/' })
  await h.person('underXscore')
  expect(await found('under_s')).toEqual(['under_score'])
  expect(await found('00%')).toEqual(['under_score'])
  expect(await found('\\o/')).toEqual(['under_score'])
  expect(await found('%')).toEqual([])
  expect(await found("';--")).toEqual([])
})

test('search: at most twenty; an empty, blank or over-long q is 400', async () => {
  await Promise.all(Array.from({ length: 25 }, (_, i) => h.person(`crowd_${i}`)))
  expect(await found('crowd')).toHaveLength(20)
  for (const query of ['', '?q=', '?q=%20', `?q=${'x'.repeat(51)}`, '?q=a&limit=3', '?q=a&q=b', '?q=%00']) {
    expect((await h.call('GET', `/users/search${query}`, undefined, viewer.token)).statusCode, query).toBe(400)
  }
})

test('search has an index to use, for short queries too', async () => {
  // With so few people reading all of them is cheaper, so the planner is told not to.
  await h.db.transaction(async (tx) => {
    await tx.query(sql`SET LOCAL enable_seqscan = off`)
    for (const pattern of ['%marm%', 'qx%']) {
      const plan = await tx.query<{ 'QUERY PLAN': string }>(sql`
        EXPLAIN SELECT id FROM users
        WHERE deleted_at IS NULL AND (lower(username) LIKE lower(${pattern}::text) OR lower(display_name) LIKE lower(${pattern}::text)) LIMIT 500`)
      expect(plan.map((row) => row['QUERY PLAN']).join('\n'), pattern).toContain('users_search')
    }
  })
})

test('briefs are kept, and forgotten when somebody changes', async () => {
  const { user_id, token } = await h.person('brief_one')
  const name = async () => (await briefs(h.users, [user_id, user_id])).get(user_id)?.display_name
  expect(await name()).toBe('brief_one')
  await h.db.query(sql`UPDATE users SET display_name = 'behind the back' WHERE id = ${user_id}`)
  expect(await name()).toBe('brief_one')
  await h.call('PATCH', '/users/me', { bio: 'x' }, token)
  expect(await name()).toBe('behind the back')
  expect((await briefs(h.users, ['018f0000-0000-7000-8000-000000000000'])).size).toBe(0)
})

test('a brief that changes while it is being read is not kept', async () => {
  const { user_id } = await h.person('brief_two')
  // The database as it is; the change is heard of before its answer has come.
  const db = {
    query: async (statement: Parameters<Queryable['query']>[0]) => {
      const rows = await h.db.query(statement)
      await h.db.query(sql`UPDATE users SET display_name = 'newer' WHERE id = ${user_id}`)
      h.control.announce({ user_changed: user_id })
      return rows
    },
  } as Queryable
  const cache = createBriefCache(h.control)
  const name = async (from: Queryable) => (await cache.load(from, [user_id])).get(user_id)?.display_name
  expect(await name(db)).toBe('brief_two')
  expect(await name(h.db)).toBe('newer')
})

test('deleting an account needs the password, blanks it, frees its names and ends its sessions', async () => {
  const { token, refresh_token, user_id } = await h.person('leaver', { email: 'leaver@example.org', display_name: 'Lea Ver' })
  const wrong = await h.call('DELETE', '/users/me', { password: 'Wr0ngpass' }, token)
  expect([wrong.statusCode, wrong.json().code]).toEqual([403, 'wrong_password'])
  expect((await h.call('DELETE', '/users/me', undefined, token)).statusCode).toBe(400)
  expect(deleted).toEqual([])
  h.news.length = 0
  expect((await h.call('DELETE', '/users/me', { password: 'Passw0rd' }, token)).statusCode).toBe(200)
  expect(deleted).toEqual([user_id])
  expect(h.news).toEqual([{ user_changed: user_id, sessions_ended: [h.keys.verify(token).sid] }])
  expect((await h.call('GET', '/users/me', undefined, token)).statusCode).toBe(401)
  expect((await h.call('POST', '/auth/refresh', { refresh_token })).statusCode).toBe(401)

  online.add(user_id)
  expect(UserPublic.strict().parse(await get(`/users/${user_id}`))).toEqual({
    id: user_id,
    username: null,
    display_name: 'Deleted account',
    avatar_url: null,
    bio: '',
    is_premium: false,
    is_online: false,
    last_seen: null,
  })
  expect(await found('Deleted acc')).toEqual([])
  expect(await found('Lea Ver')).toEqual([])
  await h.person('leaver', { email: 'leaver@example.org' })
})

test('guessing the password of an open session is limited', async () => {
  const { token } = await h.person('guessed_at')
  const guesses = await Promise.all(
    Array.from({ length: 8 }, () => h.call('DELETE', '/users/me', { password: 'Wr0ngpass' }, token)),
  )
  expect(guesses.map((a) => a.statusCode).sort()).toEqual([...Array(5).fill(403), ...Array(3).fill(429)])
})

test('the right password takes the guesses back', async () => {
  const { token } = await h.person('forgetful')
  const change = async (old_password: string) =>
    (await h.call('PATCH', '/users/me/password', { old_password, new_password: 'Passw0rd' }, token)).statusCode
  for (let round = 0; round < 2; round += 1) {
    for (let n = 0; n < 4; n += 1) expect(await change('Wr0ngpass')).toBe(403)
    expect(await change('Passw0rd')).toBe(200)
  }
})

test('of two changes from one password, the one that comes second is refused', async () => {
  const { token, user } = await h.person('twice_at_once')
  const change = (new_password: string) =>
    h.call('PATCH', '/users/me/password', { old_password: 'Passw0rd', new_password }, token)
  // The first has compared the old password, and not yet set the new one.
  const compare = bcrypt.compare.bind(bcrypt) as (a: string, b: string) => Promise<boolean>
  const held = vi.spyOn(bcrypt, 'compare').mockImplementationOnce(async (password: string | Buffer, hash: string) => {
    const equal = await compare(String(password), hash)
    expect((await change('Overtak3n')).statusCode).toBe(200)
    return equal
  })
  const first = await change('Overtak1ng')
  held.mockRestore()
  expect([first.statusCode, first.json().code]).toEqual([403, 'wrong_password'])
  const login = await h.call('POST', '/auth/login', { login: user.username, password: 'Overtak3n' })
  expect(login.statusCode).toBe(200)
})
