import bcrypt from 'bcrypt'
import { expect, test, vi } from 'vitest'
import { sql } from '../src/platform/db/db.ts'
import { newName, useHarness } from './support/harness-auth.ts'

/** Signing in by password, and guessing. */

const h = useHarness()
const name = newName()

test('login by username, phone and email, under each of the field names', async () => {
  const username = name()
  await h.person(username, { phone: '+4915100000002', email: 'by@example.org' })
  for (const fields of [
    { login: username.toUpperCase() },
    { login: '+4915100000002' },
    { phone: '+4915100000002' },
    { email: 'BY@example.org' },
    { username },
    { phone_or_email: 'by@example.org' },
  ]) {
    const answer = await h.call('POST', '/auth/login', { ...fields, password: 'Passw0rd' })
    expect(answer.statusCode, JSON.stringify(fields)).toBe(200)
    expect(answer.json().user.username).toBe(username)
  }
  expect((await h.call('POST', '/auth/login', { login: username, email: 'a@b.cd', password: 'x' })).statusCode).toBe(400)
})

test('unknown account, wrong password, no password and deleted account are one answer, after one comparison', async () => {
  const username = name()
  await h.person(username)
  const without = name()
  await h.person(without)
  await h.db.query(sql`UPDATE users SET password_hash = NULL WHERE username = ${without}`)
  const gone = name()
  const { token } = await h.person(gone)
  await h.call('DELETE', '/users/me', { password: 'Passw0rd' }, token)

  const compare = vi.spyOn(bcrypt, 'compare')
  const answers = []
  for (const login of [username, 'nobody_here', without, gone]) {
    compare.mockClear()
    const answer = await h.call('POST', '/auth/login', { login, password: 'Wr0ngpass' })
    expect(compare, login).toHaveBeenCalledTimes(1)
    // The rounds are what takes time.
    expect(String(compare.mock.calls[0]![1])).toMatch(/^\$2b\$04\$/)
    const { request_id: _, ...body } = answer.json()
    answers.push([answer.statusCode, body])
  }
  expect(answers).toEqual(Array(4).fill([401, { error: expect.any(String), code: 'invalid_credentials' }]))
})

test('a hundred wrong passwords at once: five are compared, the others are 429', async () => {
  const username = name()
  await h.person(username)
  const compare = vi.spyOn(bcrypt, 'compare')
  const answers = await Promise.all(
    Array.from({ length: 100 }, () =>
      h.call('POST', '/auth/login', { login: username, password: 'Wr0ngpass' }, undefined, '10.0.0.1'),
    ),
  )
  expect(compare).toHaveBeenCalledTimes(5)
  expect(answers.filter((a) => a.statusCode === 401)).toHaveLength(5)
  const refused = answers.filter((a) => a.statusCode === 429)
  expect(refused).toHaveLength(95)
  expect(Number(refused[0]!.headers['retry-after'])).toBeGreaterThan(800)
  expect(refused[0]!.json()).toMatchObject({ code: 'rate_limited', retry_after: expect.any(Number) })
  // The right one as well, from there; from elsewhere it works.
  const right = { login: username, password: 'Passw0rd' }
  expect((await h.call('POST', '/auth/login', right, undefined, '10.0.0.1')).statusCode).toBe(429)
  expect((await h.call('POST', '/auth/login', right, undefined, '10.0.0.2')).statusCode).toBe(200)
})

test('a login that the database failed is no guess: it does not count', async () => {
  const username = name()
  const { user_id } = await h.person(username)
  const login = () => h.call('POST', '/auth/login', { login: username, password: 'Passw0rd' })
  await h.db.query(sql`CREATE FUNCTION go_away() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    RAISE EXCEPTION 'gone' USING ERRCODE = '57P01'; END $$`)
  await h.db.query(sql`CREATE TRIGGER t BEFORE INSERT ON sessions FOR EACH ROW EXECUTE FUNCTION go_away()`)
  for (let i = 0; i < 7; i++) expect((await login()).statusCode).toBe(503)
  await h.db.query(sql`DROP FUNCTION go_away CASCADE`)
  expect((await login()).json()).toMatchObject({ user_id })
})

test('failures count per account over all addresses, for unknown accounts alike', async () => {
  const compare = vi.spyOn(bcrypt, 'compare')
  const answers = await Promise.all(
    Array.from({ length: 80 }, (_, i) =>
      h.call('POST', '/auth/login', { login: 'no_such_person', password: 'Wr0ngpass' }, undefined, `10.1.0.${i}`),
    ),
  )
  expect(compare).toHaveBeenCalledTimes(50)
  expect(answers.filter((a) => a.statusCode === 429)).toHaveLength(30)
})

test('one person has one count, however the name is spelt: PostgreSQL has letters that it takes for those of a name', async () => {
  const username = `${name()}_ikik`
  await h.person(username)
  const wrong = (login: string) => h.call('POST', '/auth/login', { login, password: 'Wr0ngpass' }, undefined, '10.0.0.3')
  for (let i = 0; i < 5; i++) expect((await wrong(i % 2 ? username : username.toUpperCase())).statusCode).toBe(401)
  expect((await wrong(username)).statusCode).toBe(429)
  // A dotted capital I, and the sign of Kelvin.
  for (const login of [username.replace('i', '\u0130'), username.replace('k', '\u212a')]) {
    const right = await h.call('POST', '/auth/login', { login, password: 'Passw0rd' }, undefined, '10.0.0.3')
    expect(right.statusCode, login).not.toBe(200)
  }
})

test('a success takes the failures back, and twenty devices may sign in at once', async () => {
  const username = name()
  await h.person(username)
  const wrong = () => h.call('POST', '/auth/login', { login: username, password: 'Wr0ngpass' })
  const right = () => h.call('POST', '/auth/login', { login: username, password: 'Passw0rd' })
  for (let i = 0; i < 4; i++) expect((await wrong()).statusCode).toBe(401)
  expect((await right()).statusCode).toBe(200)
  for (let i = 0; i < 4; i++) expect((await wrong()).statusCode).toBe(401)
  expect((await right()).statusCode).toBe(200)
  const many = await Promise.all(Array.from({ length: 20 }, right))
  expect(many.map((a) => a.statusCode)).toEqual(Array(20).fill(200))
})

test('a password longer than bcrypt reads is not guessed by its beginning', async () => {
  const username = name()
  const password = `Aa1${'x'.repeat(69)}`
  await h.person(username, { password })
  expect((await h.call('POST', '/auth/login', { login: username, password: `${password}y` })).statusCode).toBe(401)
  expect((await h.call('POST', '/auth/login', { login: username, password })).statusCode).toBe(200)
})
