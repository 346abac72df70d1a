import { Writable } from 'node:stream'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { CodeSent, SignedIn } from '../src/modules/auth/schema.ts'
import { sql } from '../src/platform/db/db.ts'
import { Done } from '../src/platform/http/answers.ts'
import { createLog } from '../src/platform/log.ts'
import { Me } from '../src/protocol/resources.ts'
import { connect, ok, refusal, rest } from './support/check.ts'
import { type Account, type Answer, startServers, type TestServers } from './support/server.ts'
import { type Sms, startSms } from './support/sms.ts'

/** Signing in without a password: codes sent to phones, on two instances. */

let servers: TestServers
let sms: Sms
const off = { RATE_LIMIT_OTP: 'off', RATE_LIMIT_OTP_ADDRESS: 'off' }
beforeAll(async () => {
  sms = await startSms()
  servers = await startServers({ instances: 2, env: { ...sms.env, ...off } })
})
afterAll(async () => {
  await servers.close()
  await sms.close()
})

const { get, patch } = rest(() => servers)
const db = () => servers.instances[0]!.context.db
let count = 0
const newPhone = () => `+49151600${String(++count).padStart(5, '0')}`
const request = (phone: string, at = 0) => servers.call('POST', '/auth/otp/request', { body: { phone }, at })
const verify = (body: { phone: string; code: string; display_name?: string }, at = 0) =>
  servers.call('POST', '/auth/otp/verify', { body, at })
const wrong = (code: string) => (code === '000000' ? '000001' : '000000')

async function codeFor(phone: string, at = 0): Promise<string> {
  await ok(request(phone, at), CodeSent, 202)
  return sms.codeOf(phone)
}
const accountOf = (answer: SignedIn): Account => ({
  id: answer.user_id,
  username: '',
  token: answer.token,
  refresh_token: answer.refresh_token,
})
/** Signed up by phone: without a password, without a username. */
async function byPhone(phone = newPhone(), at = 0): Promise<Account> {
  return accountOf(await ok(verify({ phone, code: await codeFor(phone) }, at), SignedIn, 201))
}

test('a code makes an account the first time, and signs in to it after that', async () => {
  const phone = newPhone()
  const first = await ok(verify({ phone, code: await codeFor(phone), display_name: ' Anna ' }, 1), SignedIn, 201)
  expect(first.user).toMatchObject({ phone, phone_verified: true, has_password: false, username: null, display_name: 'Anna' })
  expect(sms.messages.at(-1)).toEqual({
    phone,
    code: expect.stringMatching(/^\d{6}$/),
    expires_in: 300,
    authorization: 'Bearer a token for tests',
  })
  const again = await ok(verify({ phone, code: await codeFor(phone, 1), display_name: 'Not Anna' }), SignedIn)
  expect(again.user).toEqual(first.user)
  expect(again.token).not.toBe(first.token)
})

test('what is asked and answered is the same for a phone that is known and one that is not', async () => {
  const known = newPhone()
  await byPhone(known)
  const answers = []
  for (const phone of [known, newPhone()]) {
    const { status, body } = await request(phone)
    const guess = await verify({ phone, code: wrong(sms.codeOf(phone)) })
    answers.push([status, body, guess.status, guess.body.code])
  }
  const nothingAsked = await verify({ phone: newPhone(), code: '123456' })
  expect(answers[0]).toEqual(answers[1])
  expect(answers[0]!.slice(2)).toEqual([401, 'invalid_code'])
  expect([nothingAsked.status, nothingAsked.body.code]).toEqual([401, 'invalid_code'])
})

test('a code is gone once it is used, replaced by the next one, and good for five minutes', async () => {
  const phone = newPhone()
  const first = await codeFor(phone)
  let second = await codeFor(phone)
  while (second === first) second = await codeFor(phone)
  expect(await refusal(verify({ phone, code: first }))).toBe('401 invalid_code')
  expect((await verify({ phone, code: second })).status).toBe(201)
  expect(await refusal(verify({ phone, code: second }, 1))).toBe('401 invalid_code')
  const third = await codeFor(phone)
  await db().query(sql`UPDATE phone_codes SET expires_at = expires_at - interval '301 s' WHERE phone = ${phone}`)
  expect(await refusal(verify({ phone, code: third }))).toBe('401 invalid_code')
})

test('five tries a code are counted across instances, at once too: the right one comes too late', async () => {
  const phone = newPhone()
  const code = await codeFor(phone)
  const guesses = await Promise.all(Array.from({ length: 20 }, (_, n) => verify({ phone, code: wrong(code) }, n % 2)))
  expect(guesses.map(({ status }) => status)).toEqual(Array(20).fill(401))
  expect(await db().query(sql`SELECT tries FROM phone_codes WHERE phone = ${phone}`)).toEqual([{ tries: 5 }])
  for (const at of [0, 1]) expect(await refusal(verify({ phone, code }, at))).toBe('401 invalid_code')
  // Four wrong ones, on both instances, leave one.
  const next = await codeFor(phone, 1)
  for (const at of [0, 1, 0, 1]) expect(await refusal(verify({ phone, code: wrong(next) }, at))).toBe('401 invalid_code')
  expect((await verify({ phone, code: next })).status).toBe(201)
})

test('two verifications of one code at once: one wins, and there is one account', async () => {
  for (let round = 0; round < 10; round += 1) {
    const phone = newPhone()
    const code = await codeFor(phone)
    const answers = await Promise.all([0, 1].map((at) => verify({ phone, code }, at)))
    expect(answers.map(({ status }) => status).sort()).toEqual([201, 401])
    const back = await codeFor(phone)
    const again = await Promise.all([0, 1].map((at) => verify({ phone, code: back }, at)))
    expect(again.map(({ status }) => status).sort()).toEqual([200, 401])
    expect(await db().query(sql`SELECT id FROM users WHERE phone = ${phone}`)).toHaveLength(1)
  }
})

test('a phone that nobody has verified goes to who verifies it, and its account hears that', async () => {
  const phone = newPhone()
  const squatter = await servers.register('squatter')
  await db().query(sql`UPDATE users SET phone = ${phone} WHERE id = ${squatter.id}`)
  const live = await connect(servers, squatter, { at: 1 })
  const owner = await ok(verify({ phone, code: await codeFor(phone) }), SignedIn, 201)
  expect(owner.user_id).not.toBe(squatter.id)
  await vi.waitFor(() => {
    const told = live.events.findLast((event) => event.type === 'me_updated')
    expect(told).toMatchObject({ user_prev: expect.any(Number), me: { id: squatter.id, phone: null, phone_verified: false } })
  }, 5_000)
  expect((await ok(get(squatter, '/users/me'), Me)).phone).toBeNull()
  // What was verified stays: neither registering nor another's code takes it.
  const body = { username: 'late_comer', phone, password: 'Secret123' }
  expect(await refusal(servers.call('POST', '/auth/register', { body }))).toBe('409 phone_taken')
  const claim = { phone, code: await codeFor(phone) }
  expect(await refusal(servers.call('PUT', '/users/me/phone', { as: squatter, body: claim }))).toBe('409 phone_taken')
  // Refused, it was not used up: its owner signs in by it.
  expect((await ok(verify(claim), SignedIn)).user_id).toBe(owner.user_id)
})

test('registering with a phone against verifying it at the same moment: one account has it, verified', async () => {
  for (let round = 0; round < 15; round += 1) {
    const phone = newPhone()
    const code = await codeFor(phone)
    const body = { username: `crossing_${round}`, phone, password: 'Secret123' }
    const [registered, verified] = await Promise.all([
      servers.call('POST', '/auth/register', { body, at: 1 }),
      verify({ phone, code }, 0),
    ])
    expect([201, 409]).toContain(registered.status)
    expect(verified.status).toBe(201)
    const holders = await db().query(sql`SELECT id FROM users WHERE phone = ${phone} AND phone_verified_at IS NOT NULL`)
    expect(holders).toEqual([{ id: verified.body.user_id }])
  }
})

test('somebody who is signed in adds a phone, verifies the one they gave, and changes it', async () => {
  const [given, other] = [newPhone(), newPhone()]
  const username = 'with_phone'
  const { body } = await servers.call('POST', '/auth/register', { body: { username, phone: given, password: 'Secret123' } })
  const me: Account = { id: body.user_id as string, username, token: body.token as string, refresh_token: '' }
  const second = await connect(servers, me, { at: 1 })
  const put = (phone: string, code: string) => servers.call('PUT', '/users/me/phone', { as: me, body: { phone, code } })
  expect(await refusal(put(given, '123456'))).toBe('401 invalid_code')
  expect(await ok(put(given, await codeFor(given)), Me)).toMatchObject({ phone: given, phone_verified: true, has_password: true })
  await vi.waitFor(() => expect(second.state.me).toMatchObject({ phone_verified: true }), 5_000)
  expect((await ok(verify({ phone: given, code: await codeFor(given) }), SignedIn)).user_id).toBe(me.id)
  expect(await ok(put(other, await codeFor(other)), Me)).toMatchObject({ phone: other, phone_verified: true })
  // The old one is free again.
  expect((await ok(verify({ phone: given, code: await codeFor(given) }), SignedIn, 201)).user_id).not.toBe(me.id)
})

test('two who claim each other’s unverified phones at once both get what they can show', async () => {
  for (let round = 0; round < 10; round += 1) {
    const phones = [newPhone(), newPhone()] as const
    const people = [await servers.register('swap'), await servers.register('swap')] as const
    for (const n of [0, 1] as const) await db().query(sql`UPDATE users SET phone = ${phones[n]} WHERE id = ${people[n].id}`)
    const codes = [await codeFor(phones[0]), await codeFor(phones[1])] as const
    const answers = await Promise.all(
      ([0, 1] as const).map((n) =>
        servers.call('PUT', '/users/me/phone', { as: people[n], body: { phone: phones[1 - n], code: codes[1 - n] }, at: n }),
      ),
    )
    expect(answers.map(({ status, body }) => [status, body.phone])).toEqual([
      [200, phones[1]],
      [200, phones[0]],
    ])
  }
})

test('without a password a code stands for it: to set the first one, and to delete the account', async () => {
  const phone = newPhone()
  const me = await byPhone(phone)
  const other = await connect(servers, me, { at: 1 })
  const { token } = accountOf(await ok(verify({ phone, code: await codeFor(phone) }), SignedIn))
  const change = (body: object) => patch(me, '/users/me/password', body)
  expect(await refusal(change({ old_password: 'Secret123', new_password: 'Secret123' }))).toBe('403 wrong_password')
  expect(await refusal(change({ code: '123456', new_password: 'Secret123' }))).toBe('403 wrong_password')
  expect(await refusal(change({ new_password: 'Secret123' }))).toBe('400 invalid_input')
  const code = await codeFor(phone)
  expect(await refusal(change({ old_password: 'x', code, new_password: 'Secret123' }))).toBe('400 invalid_input')
  await ok(change({ code, new_password: 'Secret123' }), Done)
  await vi.waitFor(() => expect(other.state.me).toMatchObject({ has_password: true }), 5_000)
  // Every other session has ended, and the code is used.
  expect(await refusal(servers.call('GET', '/users/me', { token }))).toBe('401 session_ended')
  expect(await refusal(verify({ phone, code }))).toBe('401 invalid_code')
  // From now on it is the password that counts.
  const fresh = await codeFor(phone)
  expect(await refusal(change({ code: fresh, new_password: 'Secret456' }))).toBe('403 wrong_password')
  expect(await refusal(servers.call('DELETE', '/users/me', { as: me, body: { code: fresh } }))).toBe('403 wrong_password')

  const gone = newPhone()
  const leaver = await byPhone(gone)
  const bye = (body: object, at = 0) => servers.call('DELETE', '/users/me', { as: leaver, body, at })
  expect(await refusal(bye({ code: '123456' }))).toBe('403 wrong_password')
  expect(await refusal(bye({ password: 'Secret123' }))).toBe('403 wrong_password')
  await ok(bye({ code: await codeFor(gone) }, 1), Done)
  // The phone is free again.
  await byPhone(gone)
})

test('a code that could not be sent is void, and the caller is told to try again', async () => {
  const phone = newPhone()
  for (const status of [500, 302, 404]) {
    sms.status = status
    expect(await refusal(request(phone))).toBe('503 unavailable')
    expect(await refusal(verify({ phone, code: sms.codeOf(phone) }))).toBe('401 invalid_code')
  }
  // One that never answers is waited for five seconds.
  sms.status = 0
  expect(await refusal(request(phone, 1))).toBe('503 unavailable')
  sms.status = 202
  expect((await verify({ phone, code: await codeFor(phone) })).status).toBe(201)
}, 20_000)

test('five codes an hour for a phone and twenty for an address, across instances, whatever Redis forgets', async () => {
  const limited = await startServers({ instances: 2, env: { ...sms.env, TRUST_PROXY: '1' } })
  try {
    const ask = (phone: string, ip: string, at: number) =>
      limited.call('POST', '/auth/otp/request', { body: { phone }, at, headers: { 'x-forwarded-for': ip } })
    const phone = newPhone()
    const forPhone = await Promise.all(Array.from({ length: 12 }, (_, n) => ask(phone, `10.0.0.${n}`, n % 2)))
    expect(forPhone.map(({ status }) => status).sort()).toEqual([...Array(5).fill(202), ...Array(7).fill(429)])
    const refused = forPhone.find(({ status }) => status === 429)!
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(3_500)
    expect(refused.body).toMatchObject({ code: 'rate_limited', retry_after: expect.any(Number) })
    expect(sms.messages.filter((message) => message.phone === phone)).toHaveLength(5)
    // Who goes on asking does not wait the longer for it.
    const windowOf = () =>
      limited.instances[0]!.context.db.query(sql`SELECT expire FROM login_failures WHERE key = ${`otp-phone:${phone}`}`)
    const window = await windowOf()
    expect((await ask(phone, '10.2.0.1', 1)).status).toBe(429)
    expect(await windowOf()).toEqual(window)

    const forAddress = await Promise.all(Array.from({ length: 30 }, (_, n) => ask(newPhone(), '10.1.0.1', n % 2)))
    expect(forAddress.filter(({ status }) => status === 202)).toHaveLength(20)
    expect(forAddress.filter(({ status }) => status === 429)).toHaveLength(10)
    expect((await ask(newPhone(), '10.1.0.2', 0)).status).toBe(202)
    // The hour is the database's.
    await limited.instances[0]!.context.db.query(sql`UPDATE login_failures SET expire = 1`)
    expect((await ask(phone, '10.1.0.1', 1)).status).toBe(202)
  } finally {
    await limited.close()
  }
})

test('accounts by phone count as registrations of their address', async () => {
  const limited = await startServers({ env: { ...sms.env, ...off, RATE_LIMIT_REGISTER: '2/1h' } })
  try {
    const statuses = []
    let phone = ''
    for (let n = 0; n < 3; n += 1) {
      phone = newPhone()
      await limited.call('POST', '/auth/otp/request', { body: { phone } })
      statuses.push((await limited.call('POST', '/auth/otp/verify', { body: { phone, code: sms.codeOf(phone) } })).status)
    }
    expect(statuses).toEqual([201, 201, 429])
  } finally {
    await limited.close()
  }
})

test('a phone that moves on while its code is shown leads to the old account no more', async () => {
  const phone = newPhone()
  const old = await byPhone(phone)
  const code = await codeFor(phone)
  let verifying: Promise<Answer> | undefined
  await db().transaction(async (tx) => {
    await tx.query(sql`UPDATE users SET phone = ${newPhone()} WHERE id = ${old.id}`)
    verifying = verify({ phone, code }, 1)
    // Its account was found by the phone that it still has to others; now its row is waited for.
    await vi.waitFor(async () => {
      const waiting = await db().query(sql`
        SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%FROM users%'`)
      expect(waiting).toHaveLength(1)
    }, 15_000)
  })
  const made = await ok(verifying!, SignedIn, 201)
  expect([made.user_id === old.id, made.user.phone]).toEqual([false, phone])
})

test('one session too many, by code or by password, ends the oldest on every instance', async () => {
  const phone = newPhone()
  const withPassword = await servers.register('crowded')
  const ways = [
    { account: await byPhone(phone), enter: async () => verify({ phone, code: await codeFor(phone) }) },
    {
      account: withPassword,
      enter: () => servers.call('POST', '/auth/login', { body: { login: withPassword.username, password: 'Secret123' } }),
    },
  ]
  for (const { account, enter } of ways) {
    // Remembered there, for a minute, unless there is news.
    await ok(get(account, '/users/me', 1), Me)
    await db().query(sql`
      INSERT INTO sessions (id, user_id, generation, confirmed_generation, refresh_hash, salt, device, ip, expires_at, last_used_at)
      SELECT gen_random_uuid(), user_id, 1, 1, refresh_hash, salt, device, ip, expires_at, now() + interval '1 hour'
      FROM sessions, generate_series(1, 49) WHERE user_id = ${account.id}`)
    await ok(enter(), SignedIn)
    await vi.waitFor(async () => expect(await refusal(get(account, '/users/me', 1))).toBe('401 session_ended'), 15_000)
  }
})

test('in the database there is a hash that says nothing without the server’s secret', async () => {
  const phone = newPhone()
  const code = await codeFor(phone)
  const [row] = await db().query<{ hash: Buffer; id: string }>(sql`SELECT hash, id FROM phone_codes WHERE phone = ${phone}`)
  expect(row!.hash).toHaveLength(32)
  expect(JSON.stringify(row)).not.toContain(code)
  // The same code of another phone is another hash.
  const twin = newPhone()
  await codeFor(twin)
  await db().query(sql`UPDATE phone_codes SET hash = ${row!.hash} WHERE phone = ${twin}`)
  expect(await refusal(verify({ phone: twin, code }))).toBe('401 invalid_code')
})

test('without a service for it nothing is sent: the code is in the log, which says so', async () => {
  const lines: string[] = []
  const destination = new Writable({
    write(chunk, _encoding, done) {
      lines.push(String(chunk))
      done()
    },
  })
  const alone = await startServers({ overrides: () => ({ log: createLog('warn', destination) }) })
  try {
    const phone = newPhone()
    expect((await alone.call('POST', '/auth/otp/request', { body: { phone } })).status).toBe(202)
    const line = JSON.parse(lines.find((text) => text.includes(phone))!)
    expect(line).toMatchObject({ level: 40, phone, msg: expect.stringContaining('no SMS is sent') })
    expect((await alone.call('POST', '/auth/otp/verify', { body: { phone, code: line.code } })).status).toBe(201)
  } finally {
    await alone.close()
  }
})
