import { validate } from '@scalar/openapi-validator'
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { sql } from '../src/platform/db/db.ts'
import { errorCodes } from '../src/protocol/errors.ts'
import { type Document, loadDocument, type Operation, operationsOf } from './support/openapi.ts'
import { fileForm, pictureForm } from './support/pictures.ts'
import { type Account, type Answer, startServers, type TestServers } from './support/server.ts'
import { type Sms, startSms } from './support/sms.ts'

/** The document of REST: valid, whole, and true of what is really answered. */

let servers: TestServers
let document: Document
let operations: Operation[]
let sms: Sms
beforeAll(async () => {
  sms = await startSms()
  servers = await startServers({ env: sms.env })
  document = await loadDocument(servers.instances[0]!.url)
  operations = operationsOf(document)
})
afterAll(async () => {
  await servers.close()
  await sms.close()
})

test('is valid OpenAPI 3.1, and refers to nothing that is not there', async () => {
  const outcome = await validate(structuredClone(document) as unknown as Parameters<typeof validate>[0])
  expect(outcome).toMatchObject({ valid: true })
  expect(document.openapi).toBe('3.1.0')
  for (const [, name] of JSON.stringify(document).matchAll(/"#\/components\/schemas\/([^"]+)"/g)) {
    expect(document.components.schemas, name).toHaveProperty(name!)
  }
  const { code } = document.components.schemas.Error!.properties!
  expect(code!.enum).toEqual(errorCodes)
  for (const { name, method, body, statuses, tags } of operations) {
    expect(tags, name).toHaveLength(1)
    if (method === 'GET') expect(body, name).toBeUndefined()
    if (body) expect(statuses, name).toEqual(expect.arrayContaining([400, 413, 415]))
  }
})

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/
const time = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/

/** Checks answers against the document as it was given, strictly: unknown fields and other forms are wrong. */
function checker() {
  const ajv = new Ajv2020({ strict: false, allErrors: true, formats: { uuid, 'date-time': time, email: true, password: true } })
  ajv.addSchema(document, 'document')
  const compiled = new Map<string, ValidateFunction>()
  const seen = new Set<string>()
  return {
    seen,
    check({ name, method, path, statuses }: Operation, answer: Answer<unknown>): void {
      expect(statuses, `${name} answered ${answer.status} ${JSON.stringify(answer.body)}`).toContain(answer.status)
      const escaped = `/api/v1${path}`.replaceAll('/', '~1').replaceAll('{', '%7B').replaceAll('}', '%7D')
      const $ref = `document#/paths/${escaped}/${method.toLowerCase()}/responses/${answer.status}/content/application~1json/schema`
      let validator = compiled.get($ref)
      if (!validator) {
        validator = ajv.compile({ $ref })
        compiled.set($ref, validator)
      }
      if (!validator(answer.body)) {
        const errors = validator.errors!.map((error) => `${error.instancePath} ${error.message} ${JSON.stringify(error.params)}`)
        throw new Error(`${name} ${answer.status}: ${errors.join('; ')}\n${JSON.stringify(answer.body)}`)
      }
      seen.add(`${name} ${answer.status}`)
    },
  }
}

test('every route answers as it says', async () => {
  const { check, seen } = checker()
  /** One call, checked: `name` is the operation as it is documented, `path` what is asked. */
  async function call<T = Record<string, unknown>>(name: string, path: string, as?: Account, body?: unknown): Promise<Answer<T>> {
    const operation = operations.find((candidate) => candidate.name === name)
    if (!operation) throw new Error(`${name} is not documented`)
    const answer = await servers.call<T>(operation.method, path, { as, ...(body !== undefined && { body }) })
    check(operation, answer)
    return answer
  }
  const password = 'Secret123'
  const person = async (username: string): Promise<Account> => {
    const { body } = await call<{ user_id: string; token: string; refresh_token: string }>(
      'POST /auth/register',
      '/auth/register',
      undefined,
      {
        username,
        password,
        display_name: username.toUpperCase(),
      },
    )
    return { id: body.user_id, username, token: body.token, refresh_token: body.refresh_token }
  }
  const [anna, ben, carl, eve] = [await person('anna'), await person('benno'), await person('carl'), await person('evelyn')]
  const signIn = async (login: string) =>
    (await call<Account>('POST /auth/login', '/auth/login', undefined, { login, password })).body

  // --- accounts
  await call('POST /auth/register', '/auth/register', undefined, { username: 'anna', password })
  await call('POST /auth/register', '/auth/register', undefined, { username: 'x', password })
  await call('POST /auth/login', '/auth/login', undefined, { login: 'anna', password: 'Wrong1234' })
  const second = { ...anna, ...(await signIn('anna')) }
  const { body: renewed } = await call<Account>('POST /auth/refresh', '/auth/refresh', undefined, {
    refresh_token: second.refresh_token,
  })
  await call('POST /auth/refresh', '/auth/refresh', undefined, { refresh_token: 'nonsense' })
  await call('GET /auth/verify', '/auth/verify', { ...anna, token: renewed.token })
  await call('GET /auth/verify', '/auth/verify')
  const { body: list } = await call<{ sessions: { id: string; current: boolean }[] }>(
    'GET /auth/sessions',
    '/auth/sessions',
    anna,
  )
  const other = list.sessions.find((session) => !session.current)!
  await call('DELETE /auth/sessions/{id}', `/auth/sessions/${other.id}`, anna)
  await call('DELETE /auth/sessions/{id}', `/auth/sessions/${other.id}`, anna)
  await call('POST /auth/logout', '/auth/logout', { ...anna, ...(await signIn('anna')) })
  await call('POST /auth/logout-all', '/auth/logout-all', { ...eve, ...(await signIn('evelyn')) })
  Object.assign(eve, await signIn('evelyn'))

  // --- pictures
  await call('PUT /users/me/avatar', '/users/me/avatar', anna, await pictureForm())
  await call('PUT /users/me/avatar', '/users/me/avatar', anna, fileForm('no picture'))
  await call('PUT /users/me/avatar', '/users/me/avatar', anna, {})
  await call('DELETE /users/me/avatar', '/users/me/avatar', anna)
  await call('POST /media/sign', '/media/sign', anna)

  // --- by phone
  const codeFor = async (phone: string) => {
    await call('POST /auth/otp/request', '/auth/otp/request', undefined, { phone })
    return { phone, code: sms.codeOf(phone) }
  }
  const verify = async (body: object) =>
    (await call<Account & { user_id: string }>('POST /auth/otp/verify', '/auth/otp/verify', undefined, body)).body
  await verify({ phone: '+491511234567', code: '123456' })
  const fay = await verify({ ...(await codeFor('+491511234567')), display_name: 'Fay' })
  await verify(await codeFor('+491511234567'))
  await call('PUT /users/me/phone', '/users/me/phone', anna, await codeFor('+491511234568'))
  await call('PUT /users/me/phone', '/users/me/phone', anna, await codeFor('+491511234567'))

  // --- admins
  const invites = '/admin/invites'
  await call('POST /admin/invites', invites, anna)
  await servers.instances[0]!.context.db.query(sql`UPDATE users SET is_admin = true WHERE id = ${anna.id}`)
  const { body: invite } = await call<{ code: string }>('POST /admin/invites', invites, anna, { max_uses: 3 })
  await call('GET /admin/invites', `${invites}?limit=1`, anna)
  await call('DELETE /admin/invites/{code}', `${invites}/${invite.code}`, anna)
  await call('DELETE /admin/invites/{code}', `${invites}/nonsense`, anna)
  await call('GET /admin/stats', '/admin/stats', anna)
  await call('POST /admin/users/{id}/disable', `/admin/users/${fay.user_id}/disable`, anna)
  await call('POST /auth/refresh', '/auth/refresh', undefined, { refresh_token: fay.refresh_token })
  await call('POST /admin/users/{id}/enable', `/admin/users/${fay.user_id}/enable`, anna)

  // --- profiles
  await call('GET /users/me', '/users/me', anna)
  await call('PATCH /users/me', '/users/me', anna, { bio: 'It is me', status: 'away', privacy: { last_seen: 'nobody' } })
  await call('PATCH /users/me', '/users/me', anna, { username: 'benno' })
  await call('PATCH /users/me/password', '/users/me/password', anna, { old_password: 'Wrong1234', new_password: 'Secret1234' })
  await call('PATCH /users/me/password', '/users/me/password', anna, { old_password: password, new_password: 'Secret1234' })
  await call('GET /users/search', '/users/search?q=en', anna)
  await call('GET /users/{id}', `/users/${ben.id}`, anna)
  await call('GET /users/{id}', '/users/01890a5d-ac96-774b-bcce-b302099a8057', anna)

  // --- chats
  const made = { type: 'group', name: 'Group', description: 'All of us', member_ids: [ben.id] }
  const { body: group } = await call<{ id: string }>('POST /chats', '/chats', anna, made)
  const chat = `/chats/${group.id}`
  await call('POST /chats', '/chats', anna, { type: 'dm', member_ids: [ben.id] })
  await call('POST /chats', '/chats', anna, { type: 'dm', member_ids: [ben.id] })
  await call('GET /chats/dm/{user_id}', `/chats/dm/${carl.id}`, anna)
  const { body: dm } = await call<{ id: string }>('GET /chats/dm/{user_id}', `/chats/dm/${carl.id}`, anna)
  await call('GET /chats/dm/{user_id}', `/chats/dm/${anna.id}`, anna)
  await call('GET /chats/{id}', chat, ben)
  await call('GET /chats/{id}', chat, eve)
  await call('PATCH /chats/{id}', chat, anna, { name: 'Another', description: 'None of you' })
  await call('PATCH /chats/{id}', chat, ben, { name: 'Mine' })
  await call('POST /chats/{id}/members', `${chat}/members`, anna, { user_ids: [carl.id, eve.id] })
  await call('GET /chats/{id}/members', `${chat}/members?limit=2`, ben)
  await call('PATCH /chats/{id}/members/{user_id}', `${chat}/members/${ben.id}`, anna, { role: 'admin' })
  await call('DELETE /chats/{id}/members/{user_id}', `${chat}/members/${eve.id}`, anna)
  await call('PATCH /chats/{id}/settings', `${chat}/settings`, ben, {
    archived: true,
    muted_until: '2030-01-15T10:05:00.000+02:00',
  })

  // --- contacts
  const { body: asked } = await call<{ id: string }>('POST /contacts/requests', '/contacts/requests', anna, { user_id: ben.id })
  await call('POST /contacts/requests', '/contacts/requests', anna, { user_id: ben.id })
  await call('POST /contacts/requests', '/contacts/requests', anna, { user_id: anna.id })
  await call('GET /contacts/requests', '/contacts/requests', ben)
  await call('POST /contacts/requests/{id}/accept', `/contacts/requests/${asked.id}/accept`, carl)
  await call('POST /contacts/requests/{id}/accept', `/contacts/requests/${asked.id}/accept`, ben)
  await call('POST /contacts/requests', '/contacts/requests', anna, { user_id: ben.id })
  await call('GET /contacts', '/contacts', ben)
  await call('DELETE /contacts/{user_id}', `/contacts/${anna.id}`, ben)
  await call('DELETE /contacts/{user_id}', `/contacts/${anna.id}`, ben)
  const { body: dropped } = await call<{ id: string }>('POST /contacts/requests', '/contacts/requests', carl, { user_id: ben.id })
  await call('DELETE /contacts/requests/{id}', `/contacts/requests/${dropped.id}`, ben)
  await call('PUT /blocks/{user_id}', `/blocks/${eve.id}`, ben)
  await call('POST /contacts/requests', '/contacts/requests', eve, { user_id: ben.id })
  await call('GET /blocks', '/blocks', ben)
  await call('DELETE /blocks/{user_id}', `/blocks/${eve.id}`, ben)

  // --- messages
  const client_id = crypto.randomUUID()
  const { body: sent } = await call<{ id: string }>('POST /messages', '/messages', anna, {
    chat_id: group.id,
    content: '<b>é\u{1f600} @benno',
    client_id,
  })
  await call('POST /messages', '/messages', anna, { chat_id: group.id, content: 'again', client_id })
  await call('POST /messages', '/messages', ben, { chat_id: group.id, content: 'a reply', reply_to_id: sent.id })
  await call('POST /messages', '/messages', ben, { chat_id: dm.id, content: 'not mine' })
  await call('GET /chats/{id}/messages', `${chat}/messages?limit=3`, carl)
  await call('GET /chats/{id}/messages', `${chat}/messages?around=2&limit=3`, carl)
  await call('GET /messages/{id}', `/messages/${sent.id}`, ben)
  await call('GET /messages/{id}', `/messages/${sent.id}`, eve)
  await call('POST /messages/status', '/messages/status', ben, { message_id: sent.id, status: 'read' })
  await call('POST /chats/{id}/read', `${chat}/read`, carl)
  await call('POST /chats/{id}/typing', `${chat}/typing`, carl)
  await call('GET /chats', '/chats', anna)
  await call('GET /chats', '/chats?archived=true', ben)

  await call('PUT /chats/{id}/avatar', `${chat}/avatar`, anna, await pictureForm())
  await call('PUT /chats/{id}/avatar', `${chat}/avatar`, eve, await pictureForm())
  await call('DELETE /chats/{id}/avatar', `${chat}/avatar`, anna)

  // --- what becomes of messages
  const message = `/messages/${sent.id}`
  await call('PATCH /messages/{id}', message, anna, { content: 'edited, @benno' })
  await call('PATCH /messages/{id}', message, ben, { content: 'not mine' })
  await call('GET /messages/{id}/edits', `${message}/edits`, ben)
  await call('GET /messages/{id}/receipts', `${message}/receipts`, anna)
  await call('GET /messages/{id}/receipts', `${message}/receipts`, ben)
  await call('POST /messages/{id}/reactions', `${message}/reactions`, ben, { emoji: '👍' })
  await call('POST /messages/{id}/reactions', `${message}/reactions`, ben, { emoji: 'no' })
  await call('PUT /chats/{id}/pins/{message_id}', `${chat}/pins/${sent.id}`, anna)
  await call('GET /chats/{id}/pins', `${chat}/pins`, ben)
  await call('GET /messages/{id}', message, ben)
  await call('DELETE /chats/{id}/pins/{message_id}', `${chat}/pins/${sent.id}`, anna)
  await call('DELETE /messages/{id}/reactions/{emoji}', `${message}/reactions/${encodeURIComponent('👍')}`, ben)
  await call('POST /messages/{id}/forward', `${message}/forward`, anna, { chat_ids: [dm.id, group.id] })
  await call('DELETE /messages/{id}', message, ben)
  await call('DELETE /messages/{id}', message, anna)
  await call('PATCH /messages/{id}', message, anna, { content: 'too late' })
  await call('GET /messages/{id}', message, ben)
  await call('POST /sync', '/sync', carl, {})
  await call('POST /sync', '/sync', eve, { chats: { [group.id]: 1 } })

  // --- channels and ways in
  const { body: link } = await call<{ code: string }>('POST /chats/{id}/invites', `${chat}/invites`, anna, {
    max_uses: 2,
    expires_in: 60,
  })
  await call('POST /chats/{id}/invites', `${chat}/invites`, ben, { max_uses: 0 })
  await call('GET /chats/{id}/invites', `${chat}/invites`, anna)
  await call('GET /invites/{code}', `/invites/${link.code}`, eve)
  await call('POST /invites/{code}/join', `/invites/${link.code}/join`, eve)
  await call('POST /invites/{code}/join', `/invites/${link.code}/join`, eve)
  await call('DELETE /chats/{id}/invites/{code}', `${chat}/invites/${link.code}`, anna)
  await call('DELETE /chats/{id}/invites/{code}', `${chat}/invites/${link.code}`, anna)
  const { body: news } = await call<{ id: string }>('POST /channels', '/channels', anna, { name: 'News', slug: 'the-news' })
  await call('POST /channels', '/channels', ben, { name: 'News', slug: 'the-news' })
  await call('GET /channels', '/channels?q=new', eve)
  await call('GET /chats/by-slug/{slug}', '/chats/by-slug/the-news', eve)
  await call('GET /chats/by-slug/{slug}', '/chats/by-slug/nothing', eve)
  await call('GET /chats/{id}', `/chats/${news.id}`, eve)
  const { body: post } = await call<{ id: string }>('POST /messages', '/messages', anna, { chat_id: news.id, content: 'new' })
  await call('POST /messages', '/messages', eve, { chat_id: news.id, content: 'no' })
  await call('POST /channels/{id}/subscribe', `/channels/${news.id}/subscribe`, eve)
  await call('POST /channels/{id}/subscribe', `/channels/${news.id}/subscribe`, eve)
  await call('POST /channels/{id}/subscribe', `/channels/${group.id}/subscribe`, eve)
  await call('POST /messages/{id}/reactions', `/messages/${post.id}/reactions`, eve, { emoji: '👍' })
  await call('GET /chats/{id}/messages', `/chats/${news.id}/messages`, ben)
  await call('GET /chats/{id}/members', `/chats/${news.id}/members`, eve)
  await call('POST /sync', '/sync', eve, {})
  await call('DELETE /channels/{id}/subscribe', `/channels/${news.id}/subscribe`, eve)
  await call('DELETE /channels/{id}/subscribe', `/channels/${news.id}/subscribe`, anna)
  await call('PATCH /chats/{id}', `/chats/${news.id}`, anna, { slug: null, is_public: false })

  // --- search
  await call('GET /search/messages', `/search/messages?q=reply&chat_id=${group.id}&before=2100-01-01`, carl)
  await call('GET /search/messages', `/search/messages?q=reply&chat_id=${dm.id}`, ben)
  await call('GET /search/messages', '/search/messages?q=', anna)
  await call('GET /search', '/search?q=another', anna)

  // --- ends
  await call('POST /chats/{id}/transfer', `${chat}/transfer`, anna, { user_id: ben.id })
  await call('POST /chats/{id}/leave', `${chat}/leave`, carl)
  await call('DELETE /chats/{id}', chat, anna)
  await call('DELETE /chats/{id}', chat, ben)
  await call('DELETE /chats/{id}', `/chats/${dm.id}`, anna)
  await call('DELETE /users/me', '/users/me', ben, { password: 'Wrong1234' })
  await call('DELETE /users/me', '/users/me', ben, { password })
  await call('GET /users/{id}', `/users/${ben.id}`, anna)
  await call('POST /sync', '/sync', anna, {})

  const promised = operations
    .filter(({ tags }) =>
      ['auth', 'users', 'admin', 'contacts', 'chats', 'channels', 'messages', 'sync', 'search'].includes(tags[0]!),
    )
    .flatMap(({ name, statuses }) => statuses.filter((status) => status < 300).map((status) => `${name} ${status}`))
  expect(promised.filter((answer) => !seen.has(answer))).toEqual([])
  expect(seen.size).toBeGreaterThan(promised.length)
})
