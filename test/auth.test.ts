import { generateKeyPairSync } from 'node:crypto'
import bcrypt from 'bcrypt'
import { expect, test, vi } from 'vitest'
import { liveSessions, sweepAuth } from '../src/modules/auth/index.ts'
import { sql } from '../src/platform/db/db.ts'
import { Me, Session } from '../src/protocol/resources.ts'
import { type Body, newName, startHarness, useHarness } from './support/harness-auth.ts'

const h = useHarness()
const name = newName()
const code = (answer: { json(): Body }) => answer.json().code

test('registering signs in, tells expires_in and keeps phone and email private', async () => {
  const answer = await h.call('POST', '/auth/register', { phone: '+4915112345678', password: 'Passw0rd' })
  expect(answer.statusCode).toBe(201)
  const { user_id, token, refresh_token, expires_in, user } = answer.json()
  expect(expires_in).toBe(3_600)
  expect(refresh_token).toMatch(/^[\w-]{70}$/)
  expect(Me.strict().parse(user)).toMatchObject({ id: user_id, username: null, display_name: 'User', phone: '+4915112345678' })
  expect((await h.call('GET', '/users/me', undefined, token)).json()).toEqual(user)
  const other = await h.person(name())
  const seen = (await h.call('GET', `/users/${user_id}`, undefined, other.token)).json()
  expect(seen).not.toHaveProperty('phone')
  expect(seen).not.toHaveProperty('email')
})

test.each([
  ['no name at all', { password: 'Passw0rd' }, 'username'],
  ['a short username', { username: 'ab', password: 'Passw0rd' }, 'username'],
  ['a password without digit', { username: 'abc', password: 'Password' }, 'password'],
  ['a password of 73 bytes', { username: 'abc', password: `Aa1${'x'.repeat(70)}` }, 'password'],
  ['a phone that is not E.164', { phone: '0151 123', password: 'Passw0rd' }, 'phone'],
  ['a bad email', { email: 'a@', password: 'Passw0rd' }, 'email'],
  ['an unknown field', { username: 'abc', password: 'Passw0rd', is_premium: true }, 'is_premium'],
])('registering with %s is 400 and names the field', async (_what, body, field) => {
  const answer = await h.call('POST', '/auth/register', body)
  expect(answer.statusCode).toBe(400)
  expect(Object.keys(answer.json().details)).toContain(field)
})

test('names are unique without regard to case, each with a code of its own', async () => {
  await h.person('Twin', { phone: '+4915100000001', email: 'Twin@Example.org' })
  const tries = [
    { username: 'tWIN' },
    { username: name(), phone: '+4915100000001' },
    { username: name(), email: 'twin@example.ORG' },
  ].map((fields) => h.call('POST', '/auth/register', { ...fields, password: 'Passw0rd' }))
  expect((await Promise.all(tries)).map((a) => [a.statusCode, code(a)])).toEqual([
    [409, 'username_taken'],
    [409, 'phone_taken'],
    [409, 'email_taken'],
  ])
})

test('of two registrations of one username at once, one is 201 and one is 409', async () => {
  const username = name()
  const both = await Promise.all([0, 1].map(() => h.call('POST', '/auth/register', { username, password: 'Passw0rd' })))
  expect(both.map((a) => a.statusCode).sort()).toEqual([201, 409])
})

const refresh = (refresh_token: string) => h.call('POST', '/auth/refresh', { refresh_token })
const isSignedIn = async (token: string) => (await h.call('GET', '/auth/verify', undefined, token)).statusCode === 200

test('two refreshes at once get the same token; after the new access token is used, the old one ends the session', async () => {
  const first = await h.person(name())
  const both = await Promise.all([refresh(first.refresh_token), refresh(first.refresh_token)])
  expect(both.map((a) => a.statusCode)).toEqual([200, 200])
  const [a, b] = both.map((answer) => answer.json())
  expect(a.refresh_token).toBe(b.refresh_token)
  expect(a.refresh_token).not.toBe(first.refresh_token)
  expect(a.token).not.toBe(b.token)
  // The answer may be lost for long: the old access token in use proves nothing.
  expect(await isSignedIn(first.token)).toBe(true)
  expect((await refresh(first.refresh_token)).json().refresh_token).toBe(a.refresh_token)

  expect(await isSignedIn(a.token)).toBe(true)
  h.news.length = 0
  const reused = await refresh(first.refresh_token)
  expect([reused.statusCode, code(reused)]).toEqual([401, 'refresh_token_reused'])
  expect(h.news).toEqual([{ sessions_ended: [h.keys.verify(a.token).sid] }])
  const after = await h.call('GET', '/auth/verify', undefined, a.token)
  expect([after.statusCode, code(after)]).toEqual([401, 'session_ended'])
  expect(code(await refresh(a.refresh_token))).toBe('session_ended')
})

test('using the newest refresh token confirms it as well', async () => {
  const first = await h.person(name())
  const second = (await refresh(first.refresh_token)).json()
  const third = (await refresh(second.refresh_token)).json()
  expect(code(await refresh(first.refresh_token))).toBe('refresh_token_reused')
  expect(await isSignedIn(third.token)).toBe(false)
})

test('a forged refresh token ends nothing', async () => {
  const { token, refresh_token } = await h.person(name())
  const bytes = Buffer.from(refresh_token, 'base64url')
  bytes[51] = bytes[51]! ^ 1
  const tampered = bytes.toString('base64url')
  bytes.writeUInt32BE(0, 16)
  const older = bytes.toString('base64url')
  // The last character of 70 has two bits to spare.
  const respelled = refresh_token.slice(0, -1) + String.fromCharCode(refresh_token.charCodeAt(69) + 1)
  for (const forged of [tampered, older, respelled, 'x'.repeat(70), 'short', '\0'.repeat(70)]) {
    const answer = await refresh(forged)
    expect([answer.statusCode, code(answer)], forged).toEqual([401, 'invalid_refresh_token'])
  }
  expect(await isSignedIn(token)).toBe(true)
  expect((await refresh(refresh_token)).statusCode).toBe(200)
})

test('logout ends this session at once, logout-all ends all', async () => {
  const username = name()
  const one = await h.person(username)
  const login = async () => (await h.call('POST', '/auth/login', { login: username, password: 'Passw0rd' })).json()
  const two = await login()
  const three = await login()
  expect((await h.call('POST', '/auth/logout', undefined, one.token)).json()).toEqual({ message: expect.any(String) })
  expect(await Promise.all([one, two, three].map(({ token }) => isSignedIn(token)))).toEqual([false, true, true])
  expect(code(await refresh(one.refresh_token))).toBe('session_ended')
  await h.call('POST', '/auth/logout-all', {}, two.token)
  expect(await Promise.all([two, three].map(({ token }) => isSignedIn(token)))).toEqual([false, false])
})

test('devices are listed, and ended by their owner alone', async () => {
  const username = name()
  const mine = await h.person(username)
  const login = await h.app.inject({
    method: 'POST',
    url: '/api/v1/auth/login',
    payload: { login: username, password: 'Passw0rd' },
    headers: { 'user-agent': `Phone\u0001 ${'x'.repeat(300)}` },
  })
  const { sessions } = (await h.call('GET', '/auth/sessions', undefined, mine.token)).json()
  expect(sessions.map((s: Body) => Session.strict().parse(s).current)).toEqual([false, true])
  expect(sessions[0].device).toHaveLength(200)
  expect(sessions[0].device).toMatch(/^Phone x/)
  const other = await h.person(name())
  const notMine = await h.call('DELETE', `/auth/sessions/${sessions[0].id}`, undefined, other.token)
  expect([notMine.statusCode, code(notMine)]).toEqual([404, 'session_not_found'])
  expect((await h.call('DELETE', `/auth/sessions/${sessions[0].id}`, undefined, mine.token)).statusCode).toBe(200)
  expect(await isSignedIn(login.json().token)).toBe(false)
  expect((await h.call('DELETE', `/auth/sessions/${sessions[0].id}`, undefined, mine.token)).statusCode).toBe(404)
})

test('a change of password ends every other session', async () => {
  const username = name()
  const one = await h.person(username)
  const two = (await h.call('POST', '/auth/login', { login: username, password: 'Passw0rd' })).json()
  const change = (old_password: string) =>
    h.call('PATCH', '/users/me/password', { old_password, new_password: 'N3wpassword' }, one.token)
  const wrong = await change('Wr0ngpass')
  expect([wrong.statusCode, code(wrong)]).toEqual([403, 'wrong_password'])
  expect(await isSignedIn(two.token)).toBe(true)
  h.news.length = 0
  expect((await change('Passw0rd')).statusCode).toBe(200)
  expect(h.news).toEqual([{ sessions_ended: [h.keys.verify(two.token).sid] }])
  expect(await isSignedIn(one.token)).toBe(true)
  expect(await isSignedIn(two.token)).toBe(false)
  expect(code(await h.call('POST', '/auth/login', { login: username, password: 'Passw0rd' }))).toBe('invalid_credentials')
  expect((await h.call('POST', '/auth/login', { login: username, password: 'N3wpassword' })).statusCode).toBe(200)
})

test('a login that was under way while the password changed does not leave a session behind', async () => {
  const username = name()
  const { token } = await h.person(username)
  // The comparison with the old password is over, the session is not yet made.
  const compare = bcrypt.compare.bind(bcrypt) as (a: string, b: string) => Promise<boolean>
  vi.spyOn(bcrypt, 'compare').mockImplementationOnce(async (password: string | Buffer, hash: string) => {
    const equal = await compare(String(password), hash)
    const changed = await h.call('PATCH', '/users/me/password', { old_password: 'Passw0rd', new_password: 'N3wpassword' }, token)
    expect(changed.statusCode).toBe(200)
    return equal
  })
  const answer = await h.call('POST', '/auth/login', { login: username, password: 'Passw0rd' })
  expect([answer.statusCode, code(answer)]).toEqual([401, 'invalid_credentials'])
})

test('bad tokens are 401 with a challenge, expired ones say so', async () => {
  const { user_id, token } = await h.person(name())
  const [head, , signature] = token.split('.')
  const none = `${Buffer.from('{"alg":"none","typ":"JWT"}').toString('base64url')}.${token.split('.')[1]}.`
  const forged = `${head}.${Buffer.from(JSON.stringify({ sub: user_id, sid: user_id, gen: 1, exp: 9e9 })).toString('base64url')}.${signature}`
  for (const bad of ['x', 'a.b.c', none, forged, `${token}x`]) {
    const answer = await h.call('GET', '/auth/verify', undefined, bad)
    expect([answer.statusCode, code(answer)], bad).toEqual([401, 'invalid_token'])
    expect(answer.headers['www-authenticate']).toContain('error="invalid_token"')
  }
  const missing = await h.call('GET', '/auth/verify')
  expect([missing.statusCode, code(missing), missing.headers['www-authenticate']]).toEqual([
    401,
    'unauthorized',
    'Bearer realm="parley"',
  ])
  const { exp } = h.keys.verify(token)
  vi.spyOn(Date, 'now').mockReturnValue(exp * 1000 + 3_000)
  const late = await h.call('GET', '/auth/verify', undefined, token)
  expect([late.statusCode, code(late)]).toEqual([401, 'token_expired'])
})

test('live sessions in bulk, and the sweep of what is over', async () => {
  const [a, b] = [await h.person(name()), await h.person(name())].map(({ token }) => h.keys.verify(token).sid)
  await h.db.query(sql`UPDATE sessions SET expires_at = now() - interval '2 days' WHERE id = ${a}`)
  expect(await liveSessions(h.db, [a!, b!, '018f0000-0000-7000-8000-000000000000'])).toEqual(new Set([b]))
  await h.db.query(sql`INSERT INTO login_failures VALUES ('old', 3, 1), ('new', 3, 99999999999999)`)
  await h.db.query(sql`
    INSERT INTO phone_codes (phone, id, hash, expires_at)
    SELECT phone, ${a}::uuid, ''::bytea, now() + wait FROM (VALUES ('+49150001', interval '-1 s'), ('+49150002', interval '1 min')) AS t(phone, wait)`)
  const insert = sql`INSERT INTO server_invites (code, expires_at, max_uses, revoked_at)`
  await h.db.query(sql`
    ${insert} SELECT code, now() + expires, 1, now() + revoked FROM (VALUES
      ('expired', interval '-31 days', NULL), ('revoked', '1 day', interval '-31 days'),
      ('expired lately', '-29 days', NULL), ('revoked lately', '1 day', '-29 days'), ('good', '1 day', NULL)) AS t(code, expires, revoked)`)
  await sweepAuth(h.db)
  const invites = await h.db.query<{ code: string }>(sql`SELECT code FROM server_invites ORDER BY code`)
  expect(invites.map((invite) => invite.code)).toEqual(['expired lately', 'good', 'revoked lately'])
  expect(await h.db.query(sql`SELECT phone FROM phone_codes`)).toEqual([{ phone: '+49150002' }])
  expect(await h.db.query(sql`SELECT id FROM sessions WHERE id = ANY(${[a, b]}::uuid[])`)).toEqual([{ id: b }])
  expect(await h.db.query(sql`SELECT key FROM login_failures WHERE key IN ('old', 'new')`)).toEqual([{ key: 'new' }])
})

test('registration: closed, and limited per address', async () => {
  const closed = await startHarness({ auth: { registration: 'closed' } })
  const refused = await closed.call('POST', '/auth/register', { username: name(), password: 'Passw0rd' })
  expect([refused.statusCode, code(refused)]).toEqual([403, 'registration_closed'])
  await closed.stop()

  const limits = { login: null, loginAccount: null, register: { points: 2, windowMs: 3_600_000 }, otp: null, otpAddress: null }
  const limited = await startHarness({ auth: { limits } })
  const register = (ip: string, password = 'Passw0rd') =>
    limited.call('POST', '/auth/register', { username: name(), password }, undefined, ip)
  // What is not valid does not count; addresses of one IPv6 network count together.
  const statuses = []
  for (const [ip, password] of [
    ['2001:db8::1', 'weak'],
    ['2001:db8::1'],
    ['2001:db8:0:0:ffff::2'],
    ['2001:db8::3'],
    ['2001:db8:0:1::3'],
  ] as const) {
    statuses.push((await register(ip, password)).statusCode)
  }
  expect(statuses).toEqual([400, 201, 201, 429, 201])
  await limited.stop()
})

test('with a private key tokens are RS256, and the public key is there for others', async () => {
  const { privateKey } = generateKeyPairSync('rsa', {
    modulusLength: 2048,
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
    publicKeyEncoding: { type: 'spki', format: 'pem' },
  })
  const rsa = await startHarness({ privateKey })
  const { token, refresh_token } = await rsa.person(name())
  const { keys } = (await rsa.app.inject('/.well-known/jwks.json')).json()
  expect(keys).toEqual([{ kty: 'RSA', n: expect.any(String), e: 'AQAB', kid: expect.any(String), alg: 'RS256', use: 'sig' }])
  expect(JSON.parse(Buffer.from(token.split('.')[0], 'base64url').toString())).toMatchObject({ alg: 'RS256', kid: keys[0].kid })
  expect((await rsa.call('GET', '/auth/verify', undefined, token)).statusCode).toBe(200)
  expect((await rsa.call('POST', '/auth/refresh', { refresh_token })).statusCode).toBe(200)
  // A token of the other kind, signed with what is public, is none.
  const { createSigner } = await import('fast-jwt')
  const claims = rsa.keys.verify(token)
  const confused = createSigner({ key: JSON.stringify(keys[0]), algorithm: 'HS256' })({ ...claims })
  expect(code(await rsa.call('GET', '/auth/verify', undefined, confused))).toBe('invalid_token')
  await rsa.stop()
})
