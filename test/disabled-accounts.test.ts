import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { SignedIn } from '../src/modules/auth/schema.ts'
import { sql } from '../src/platform/db/db.ts'
import { Done } from '../src/platform/http/answers.ts'
import { UserPublic } from '../src/protocol/resources.ts'
import { checkChat, connect, ok, refusal, rest } from './support/check.ts'
import { type Account, startServers, type TestServers } from './support/server.ts'
import { type Sms, startSms } from './support/sms.ts'

/** Disabled accounts: out at once, everywhere, and back again as if nothing had been. */

let servers: TestServers
let sms: Sms
let admin: Account
beforeAll(async () => {
  sms = await startSms()
  const off = { RATE_LIMIT_OTP: 'off', RATE_LIMIT_OTP_ADDRESS: 'off', RATE_LIMIT_LOGIN: 'off', RATE_LIMIT_LOGIN_ACCOUNT: 'off' }
  servers = await startServers({ instances: 2, env: { ...sms.env, ...off } })
  admin = await servers.register('admin')
  await db().query(sql`UPDATE users SET is_admin = true WHERE id = ${admin.id}`)
})
afterAll(async () => {
  await servers.close()
  await sms.close()
})

const { get, post, patch, people } = rest(() => servers)
const db = () => servers.instances[0]!.context.db
const disable = ({ id }: Account, at = 0) => ok(post(admin, `/admin/users/${id}/disable`, undefined, at), Done)
const enable = ({ id }: Account, at = 0) => ok(post(admin, `/admin/users/${id}/enable`, undefined, at), Done)
const login = ({ username }: Account, password = 'Secret123') =>
  servers.call('POST', '/auth/login', { body: { login: username, password } })
const refresh = (refresh_token: string, at = 0) => servers.call('POST', '/auth/refresh', { body: { refresh_token }, at })

test('all sessions end at once on every instance, sockets with 4001', async () => {
  const [out] = await people(1)
  const second = await servers.login(out, 1)
  const sockets = [await connect(servers, out), await connect(servers, second, { at: 1 })]
  await disable(out, 1)
  const closes = await Promise.all(sockets.map((socket) => socket.waitForClose()))
  expect(closes).toEqual([4001, 4001])
  for (const [who, at] of [
    [out, 0],
    [second, 1],
  ] as const)
    expect(await refusal(get(who, '/users/me', at))).toBe('401 session_ended')
  expect(await refusal(post(admin, `/admin/users/${admin.id}/disable`))).toBe('403 forbidden')
})

test('it is told only to who shows the right password, refresh token or code', async () => {
  const [out] = await people(1)
  const phone = '+4915177700001'
  const ask = async () => {
    await servers.call('POST', '/auth/otp/request', { body: { phone } })
    return { phone, code: sms.codeOf(phone) }
  }
  expect((await servers.call('PUT', '/users/me/phone', { as: out, body: await ask() })).status).toBe(200)
  await disable(out)
  expect(await refusal(login(out, 'Wrong1234'))).toBe('401 invalid_credentials')
  expect(await refusal(login(out))).toBe('403 account_disabled')
  expect(await refusal(refresh(out.refresh_token, 1))).toBe('403 account_disabled')
  expect(await refusal(refresh(`${out.refresh_token.slice(0, -2)}AA`))).toBe('401 invalid_refresh_token')
  const { code } = await ask()
  const guess = { phone, code: code === '000000' ? '000001' : '000000' }
  expect(await refusal(servers.call('POST', '/auth/otp/verify', { body: guess }))).toBe('401 invalid_code')
  expect(await refusal(servers.call('POST', '/auth/otp/verify', { body: { phone, code } }))).toBe('403 account_disabled')

  await enable(out, 1)
  // The code was not used up by the refusal; the old sessions stay ended.
  await ok(servers.call('POST', '/auth/otp/verify', { body: { phone, code } }), SignedIn)
  expect(await refusal(refresh(out.refresh_token))).toBe('401 session_ended')
  expect((await login(out)).status).toBe(200)
})

test('a login that is under way leaves no session behind', async () => {
  const [out] = await people(1)
  const statuses = new Set<number>()
  for (let round = 0; round < 15; round += 1) {
    const logins = Array.from({ length: 4 }, (_, n) =>
      sleep(n).then(() =>
        servers.call('POST', '/auth/login', { body: { login: out.username, password: 'Secret123' }, at: n % 2 }),
      ),
    )
    await sleep(round % 5)
    await disable(out, round % 2)
    for (const { status } of await Promise.all(logins)) statuses.add(status)
    const live = await db().query(sql`SELECT id FROM sessions WHERE user_id = ${out.id} AND ended_at IS NULL`)
    expect(live).toEqual([])
    await enable(out)
  }
  for (const status of statuses) expect([200, 403]).toContain(status)
})

test('twice is once, unknown and deleted accounts are not found', async () => {
  const [out, gone] = await people(2)
  await disable(out)
  const at = await db().query(sql`SELECT disabled_at FROM users WHERE id = ${out.id}`)
  await disable(out, 1)
  expect(await db().query(sql`SELECT disabled_at FROM users WHERE id = ${out.id}`)).toEqual(at)
  await enable(out)
  await enable(out)
  expect((await login(out)).status).toBe(200)
  await servers.call('DELETE', '/users/me', { as: gone, body: { password: 'Secret123' } })
  for (const id of [gone.id, '018f0000-0000-7000-8000-000000000000']) {
    expect(await refusal(post(admin, `/admin/users/${id}/disable`))).toBe('404 user_not_found')
    expect(await refusal(post(admin, `/admin/users/${id}/enable`))).toBe('404 user_not_found')
  }
  expect(await refusal(post(admin, '/admin/users/x/disable'))).toBe('400 invalid_input')
})

test('the profile stays, messages reach the account, and it reads them when it is enabled again', async () => {
  const [out, friend, late] = await people(3)
  const dm = await servers.dm(friend, out)
  const group = await servers.group(out, [friend])
  await disable(out)
  expect(await ok(get(friend, `/users/${out.id}`), UserPublic)).toMatchObject({ username: out.username, is_online: false })
  for (const [from, chat_id] of [
    [friend, dm],
    [friend, group],
    [late, await servers.dm(late, out)],
  ] as const)
    expect((await post(from, '/messages', { chat_id, content: 'for later' })).status).toBe(201)
  await enable(out)
  const back = await servers.login(out)
  const { body } = await servers.call<{ chats: { unread_count: number }[] }>('GET', '/chats', { as: back })
  expect(body.chats.map((chat) => chat.unread_count)).toEqual([1, 1, 1])
  expect((await post(back, '/messages', { chat_id: dm, content: 'here I am' })).status).toBe(201)
})

test('forty disablings against sends: after the answer none is written, on either instance', async () => {
  const [out, witness] = await people(2)
  const id = await servers.group(witness, [out])
  const dm = await servers.dm(witness, out)
  let kept = 0
  let refused = 0
  for (let round = 0; round < 40; round += 1) {
    const me = await servers.login(out, round % 2)
    const socket = await connect(servers, me, { at: round % 2 })
    const sends = Array.from({ length: 8 }, async (_, n) => {
      await sleep(n % 4)
      const chat = n % 3 === 0 ? dm : id
      const content = `${round}.${n}`
      const isSent =
        n % 2
          ? post(me, '/messages', { chat_id: chat, content }, n > 3 ? 1 : 0).then(({ status, body }) => {
              expect([201, 401], JSON.stringify(body)).toContain(status)
              return status === 201
            })
          : socket.send(chat, content).then(
              () => true,
              () => false,
            )
      if (await isSent) kept += 1
      else refused += 1
    })
    await sleep(round % 5)
    await disable(out, round % 2)
    const before = await db().query(
      sql`SELECT chat_id, last_seq FROM chat_counters WHERE chat_id = ANY(${[id, dm]}::uuid[]) ORDER BY 1`,
    )
    await Promise.all(sends)
    const after = await db().query(
      sql`SELECT chat_id, last_seq FROM chat_counters WHERE chat_id = ANY(${[id, dm]}::uuid[]) ORDER BY 1`,
    )
    expect(after).toEqual(before)
    await enable(out, (round + 1) % 2)
  }
  // The race was one.
  expect(Math.min(kept, refused)).toBeGreaterThan(20)
  await checkChat(db(), id)
  await checkChat(db(), dm)
}, 60_000)

test('a remembered list of members is not believed: what was on its way is refused under the lock', async () => {
  const [out, friend] = await people(2)
  const chat_id = await servers.group(friend, [out])
  const message = (await post(out, '/messages', { chat_id, content: 'remembered on both' })).body as { id: string }
  expect((await post(out, '/messages', { chat_id, content: 'here too' }, 1)).status).toBe(201)
  await disable(out)
  // As a request that was let in just before: it is past the look at its session.
  const context = servers.instances[1]!.context
  await context.db.query(sql`UPDATE sessions SET ended_at = NULL WHERE user_id = ${out.id}`)
  await context.db.query(sql`UPDATE users SET disabled_at = NULL WHERE id = ${out.id}`)
  expect((await get(out, '/users/me', 1)).status).toBe(200)
  await context.db.query(sql`UPDATE users SET disabled_at = now() WHERE id = ${out.id}`)
  await context.db.query(sql`UPDATE chat_counters SET acl_version = acl_version + 1 WHERE chat_id = ${chat_id}`)
  const late = [
    () => post(out, '/messages', { chat_id, content: 'late' }, 1),
    () => patch(out, `/messages/${message.id}`, { content: 'late' }, 1),
    () => post(out, `/messages/${message.id}/reactions`, { emoji: '👍' }, 1),
  ]
  for (const send of late) expect(await refusal(send())).toBe('401 session_ended')
})
