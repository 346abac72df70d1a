import { afterAll, beforeAll, expect, test } from 'vitest'
import { ServerInvite, ServerInvites, Stats } from '../src/modules/admin/schema.ts'
import { makeInvite } from '../src/modules/auth/index.ts'
import { sql } from '../src/platform/db/db.ts'
import { Done } from '../src/platform/http/answers.ts'
import { Me } from '../src/protocol/resources.ts'
import { ok, refusal, rest } from './support/check.ts'
import { type Account, startServers, type TestServers } from './support/server.ts'
import { type Sms, startSms } from './support/sms.ts'

/** Who may make an account: REGISTRATION=invite, and the admins who invite. */

let servers: TestServers
let sms: Sms
let admin: Account
beforeAll(async () => {
  sms = await startSms()
  servers = await startServers({ instances: 2, env: { REGISTRATION: 'invite', ...sms.env } })
  admin = await person('admin')
  await db().query(sql`UPDATE users SET is_admin = true WHERE id = ${admin.id}`)
})
afterAll(async () => {
  await servers.close()
  await sms.close()
})

const { get, post, remove } = rest(() => servers)
const db = () => servers.instances[0]!.context.db
const password = 'Secret123'
let count = 0
const name = () => `invited_${++count}`
const register = (body: object, at = 0) => servers.call('POST', '/auth/register', { body: { password, ...body }, at })
const codeFor = async (max_uses = 1) => (await makeInvite(db(), null, { max_uses, expires_in: 3_600 })).code

async function person(username = name()): Promise<Account> {
  const { status, body } = await register({ username, invite_code: await codeFor() })
  expect([status, body.code]).toEqual([201, undefined])
  return { id: body.user_id as string, username, token: body.token as string, refresh_token: body.refresh_token as string }
}
const usesOf = async (code: string) =>
  (await db().query<{ uses: number }>(sql`SELECT uses FROM server_invites WHERE code = ${code}`))[0]!.uses

test('without a code, or with one that does not work, nobody gets in', async () => {
  expect(await refusal(register({ username: name() }))).toBe('403 invite_required')
  const [used, expired, revoked] = [await codeFor(), await codeFor(), await codeFor()]
  expect((await register({ username: name(), invite_code: used })).status).toBe(201)
  await db().query(sql`UPDATE server_invites SET expires_at = now() - interval '1 s' WHERE code = ${expired}`)
  await ok(remove(admin, `/admin/invites/${revoked}`, 1), Done)
  for (const invite_code of ['nonsense', used, expired, revoked])
    expect(await refusal(register({ username: name(), invite_code }, 1))).toBe('403 invalid_invite')
})

test('a registration that is refused for another reason uses nothing', async () => {
  const taken = await person()
  const invite_code = await codeFor()
  expect(await refusal(register({ username: taken.username, invite_code }))).toBe('409 username_taken')
  expect(await refusal(register({ username: 'x', invite_code }))).toBe('400 invalid_input')
  expect(await usesOf(invite_code)).toBe(0)
  expect((await register({ username: name(), invite_code })).status).toBe(201)
  expect(await usesOf(invite_code)).toBe(1)
})

test('ten at once on two instances for the last use: one account, and nine are told', async () => {
  const invite_code = await codeFor(3)
  for (const at of [0, 1]) expect((await register({ username: name(), invite_code }, at)).status).toBe(201)
  const before = await db().query<{ n: number }>(sql`SELECT count(*) AS n FROM users`)
  const answers = await Promise.all(Array.from({ length: 10 }, (_, n) => register({ username: name(), invite_code }, n % 2)))
  expect(answers.map(({ status }) => status).sort()).toEqual([201, ...Array(9).fill(403)])
  expect(answers.flatMap(({ body }) => body.code ?? [])).toEqual(Array(9).fill('invalid_invite'))
  expect(await usesOf(invite_code)).toBe(3)
  expect(await db().query<{ n: number }>(sql`SELECT count(*) AS n FROM users`)).toEqual([{ n: before[0]!.n + 1 }])
})

test('an account by phone obeys the same rule, and a refusal leaves the code good', async () => {
  const phone = '+4915155500001'
  const verify = (more: object = {}) =>
    servers.call('POST', '/auth/otp/verify', { body: { phone, code: sms.codeOf(phone), ...more } })
  expect((await servers.call('POST', '/auth/otp/request', { body: { phone } })).status).toBe(202)
  expect(await refusal(verify())).toBe('403 invite_required')
  expect(await refusal(verify({ invite_code: 'nonsense' }))).toBe('403 invalid_invite')
  const invite_code = await codeFor()
  expect((await verify({ invite_code })).status).toBe(201)
  expect(await usesOf(invite_code)).toBe(1)
  // Who has an account needs no invitation to come back.
  expect((await servers.call('POST', '/auth/otp/request', { body: { phone } })).status).toBe(202)
  expect((await verify()).status).toBe(200)
})

test('admins invite: a link, bounded, listed page by page, taken back', async () => {
  const made = await ok(post(admin, '/admin/invites'), ServerInvite, 201)
  expect(made).toMatchObject({ created_by: admin.id, max_uses: 1, uses: 0, revoked_at: null })
  expect(made.code).toMatch(/^[\w-]{24}$/)
  expect(made.url).toBe(`${servers.instances[0]!.url}/register?invite_code=${made.code}`)
  const lasts = Date.parse(made.expires_at) - Date.parse(made.created_at)
  expect(lasts).toBe(7 * 86_400_000)
  const many = await ok(post(admin, '/admin/invites', { max_uses: 25, expires_in: 60 }, 1), ServerInvite, 201)
  expect(many).toMatchObject({ max_uses: 25 })
  for (const body of [{ max_uses: 0 }, { max_uses: 1.5 }, { expires_in: 1 }, { expires_in: 1e9 }, { more: 1 }])
    expect(await refusal(post(admin, '/admin/invites', body))).toBe('400 invalid_input')

  const codes: string[] = []
  for (let cursor = ''; ; ) {
    const page = await ok(get(admin, `/admin/invites?limit=2${cursor}`), ServerInvites)
    codes.push(...page.invites.map(({ code }) => code))
    if (!page.has_more) break
    expect(page.invites).toHaveLength(2)
    cursor = `&cursor=${page.next_cursor}`
  }
  expect(codes.slice(0, 2)).toEqual([many.code, made.code])
  expect(new Set(codes).size).toBe(codes.length)
  expect(codes).toHaveLength((await db().query(sql`SELECT code FROM server_invites`)).length)

  await ok(remove(admin, `/admin/invites/${made.code}`), Done)
  await ok(remove(admin, `/admin/invites/${made.code}`), Done)
  expect(await refusal(remove(admin, '/admin/invites/nonsense'))).toBe('404 invite_not_found')
  expect(await refusal(register({ username: name(), invite_code: made.code }))).toBe('403 invalid_invite')
})

test('admins see how much there is', async () => {
  const before = await ok(get(admin, '/admin/stats'), Stats)
  const [a, b] = [await person(), await person()]
  const { body } = await get(a, `/chats/dm/${b.id}`)
  await post(a, '/messages', { chat_id: body.id, content: 'hello' })
  const now = await ok(get(admin, '/admin/stats', 1), Stats)
  expect(now).toMatchObject({
    users: before.users + 2,
    sessions: before.sessions + 2,
    chats: before.chats + 1,
    messages: before.messages + 1,
    admins: 1,
    disabled_users: 0,
  })
  expect(now.database_bytes).toBeGreaterThan(1_000_000)
})

test('nobody else may, and the profile says who is an admin', async () => {
  const other = await person()
  for (const answer of [
    () => post(other, '/admin/invites'),
    () => get(other, '/admin/invites'),
    () => remove(other, '/admin/invites/nonsense'),
    () => get(other, '/admin/stats'),
    () => post(other, `/admin/users/${admin.id}/disable`),
    () => post(other, `/admin/users/${admin.id}/enable`),
  ])
    expect(await refusal(answer())).toBe('403 forbidden')
  expect((await ok(get(other, '/users/me'), Me)).is_admin).toBe(false)
  expect((await ok(get(admin, '/users/me'), Me)).is_admin).toBe(true)
  // Somebody who is no admin any more stops being one at once.
  await db().query(sql`UPDATE users SET is_admin = false WHERE id = ${admin.id}`)
  expect(await refusal(get(admin, '/admin/stats', 1))).toBe('403 forbidden')
  await db().query(sql`UPDATE users SET is_admin = true WHERE id = ${admin.id}`)
})

test('an open server counts a good code and minds no other; a closed one minds none', async () => {
  const open = await startServers()
  const closed = await startServers({ env: { REGISTRATION: 'closed' } })
  try {
    const database = open.instances[0]!.context.db
    const { code } = await makeInvite(database, null, { max_uses: 1, expires_in: 60 })
    for (const invite_code of [code, code, 'nonsense']) {
      const { status } = await open.call('POST', '/auth/register', { body: { username: name(), password, invite_code } })
      expect(status).toBe(201)
    }
    expect(await database.query(sql`SELECT uses FROM server_invites`)).toEqual([{ uses: 1 }])

    const shut = await makeInvite(closed.instances[0]!.context.db, null, { max_uses: 1, expires_in: 60 })
    const body = { username: name(), password, invite_code: shut.code }
    expect(await refusal(closed.call('POST', '/auth/register', { body }))).toBe('403 registration_closed')
  } finally {
    await open.close()
    await closed.close()
  }
})
