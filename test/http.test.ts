import type { AddressInfo } from 'node:net'
import { connect } from 'node:net'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { z } from 'zod'
import { AppError } from '../src/platform/errors.ts'
import { answers, Done, ErrorAnswer } from '../src/platform/http/answers.ts'
import { addressKey } from '../src/platform/limits/take.ts'
import { withoutSecrets } from '../src/platform/log.ts'
import { errorCodes } from '../src/protocol/errors.ts'
import { content, counter, label, queryInt, uuid } from '../src/protocol/primitives.ts'
import { type Body, type Harness, refused, startHarness } from './support/harness-auth.ts'

const Thing = z.strictObject({
  name: label(10),
  text: content.optional(),
  count: counter.optional(),
  on: z.boolean().optional(),
  kind: z.enum(['a', 'b']).optional(),
  ids: z.array(uuid).max(2).optional(),
  inner: z.strictObject({ deep: z.string() }).optional(),
})

let h: Harness
let token: string
let fail: () => unknown = () => undefined
beforeAll(async () => {
  h = await startHarness({
    general: { points: 100, windowMs: 60_000 },
    routes: async (app) => {
      app.route({
        method: ['POST', 'DELETE'],
        url: '/things',
        config: { public: true, rateLimit: false },
        schema: { summary: 'A thing', body: Thing, response: answers({ 200: Done }, [], { public: true }) },
        handler: async ({ body }) => ({ message: body.name }),
      })
      app.route({
        method: 'POST',
        url: '/nothing',
        config: { public: true, rateLimit: false },
        handler: async ({ body }) => ({ body }),
      })
      app.route({
        method: 'GET',
        url: '/things/:id',
        config: { public: true, rateLimit: false },
        schema: {
          summary: 'A thing by its id',
          params: z.strictObject({ id: uuid }),
          querystring: z.strictObject({ limit: queryInt(1, 100).default(50) }),
        },
        handler: async ({ params, query }) => ({ ...params, ...query }),
      })
      app.route({ method: 'GET', url: '/failing', config: { rateLimit: false, public: true }, handler: async () => fail() })
      app.route({ method: 'GET', url: '/free', config: { rateLimit: false }, handler: async () => ({}) })
    },
  })
  token = (await h.person('somebody')).token
})
afterAll(() => h.stop())

const post = (payload: string | Buffer | object, headers: Record<string, string> = { 'content-type': 'application/json' }) =>
  h.app.inject({ method: 'POST', url: '/api/v1/things', payload, headers })

test.each<[string, unknown, Record<string, string>]>([
  ['an unknown field', { name: 'x', more: 1 }, { more: 'is not known here' }],
  ['an unknown field further in', { name: 'x', inner: { deep: 'x', more: 1 } }, { 'inner.more': 'is not known here' }],
  ['a missing field', {}, { name: 'is required' }],
  ['null for a field', { name: null }, { name: 'must be a string' }],
  ['a number for a string', { name: 5 }, { name: 'must be a string' }],
  ['a list for a string', { name: ['x'] }, { name: 'must be a string' }],
  ['an object for a string', { name: { $ne: '' } }, { name: 'must be a string' }],
  ['a string for a number', { name: 'x', count: '5' }, { count: 'must be a number' }],
  ['a string for a boolean', { name: 'x', on: 'true' }, { on: 'must be true or false' }],
  ['an empty text', { name: '' }, { name: 'must not be empty' }],
  ['white space alone', { name: ' \n ' }, { name: 'must not be only white space' }],
  ['no character that is seen', { name: '\u200b\u200d ' }, { name: 'must not be only white space' }],
  ['an over-long text', { name: 'x'.repeat(11) }, { name: 'must be at most 10 characters' }],
  ['a very long text', { name: 'x'.repeat(500_000) }, { name: 'must be at most 10 characters' }],
  ['a NUL', { name: 'a\0b' }, { name: 'must be well-formed text without NUL' }],
  ['a lone surrogate', { name: 'a\ud83d' }, { name: 'must be well-formed text without NUL' }],
  ['a negative number', { name: 'x', count: -1 }, { count: 'must be at least 0' }],
  ['a fraction', { name: 'x', count: 1.5 }, { count: 'must be a whole number' }],
  ['a number beyond 2^53', { name: 'x', count: 2 ** 60 }, { count: expect.any(String) as unknown as string }],
  ['none of the values', { name: 'x', kind: 'c' }, { kind: 'must be a or b' }],
  ['a bad UUID in a list', { name: 'x', ids: ['nope'] }, { 'ids.0': 'must be a UUID' }],
  [
    'a list too long',
    { name: 'x', ids: Array(3).fill('018f0000-0000-7000-8000-000000000000') },
    { ids: 'must be at most 2 items' },
  ],
  ['a list for the body', [], { body: 'must be an object' }],
  ['a string for the body', '"x"', { body: 'must be an object' }],
  ['null for the body', 'null', { body: 'must be an object' }],
])('%s is 400 and told with its field', async (_what, body, details) => {
  const answer = await post(typeof body === 'string' ? body : JSON.stringify(body))
  expect(refused(answer, 400, 'invalid_input').details).toEqual(details)
})

test('a number that JSON cannot hold is refused', async () => {
  expect(refused(await post('{"name":"x","count":1e999}'), 400, 'invalid_input').details).toHaveProperty('count')
})

test('of a hundred thousand mistakes twenty are told, with short names', async () => {
  const many = Object.fromEntries(Array.from({ length: 50_000 }, (_, i) => [`f${i}`, 1]))
  const details = refused(await post(JSON.stringify({ name: 'x', ...many })), 400, 'invalid_input').details
  expect(Object.keys(details)).toHaveLength(20)
  const long = refused(await post(JSON.stringify({ name: 'x', ['y'.repeat(5_000)]: 1 })), 400, 'invalid_input').details
  expect(Object.keys(long)[0]).toHaveLength(100)
})

test.each([
  ['half a body', '{"name":'],
  ['no JSON', 'name=x'],
  ['a __proto__ key', '{"name":"x","__proto__":{"admin":true}}'],
  ['an escaped __proto__ key', '{"name":"x","\\u005f_proto__":{"admin":true}}'],
  ['a __proto__ key further in', '{"name":"x","inner":{"__proto__":null}}'],
  ['constructor.prototype', '{"name":"x","constructor":{"prototype":{"admin":true}}}'],
  ['bytes that are no UTF-8', Buffer.concat([Buffer.from('{"name":"'), Buffer.from([0xff, 0xfe]), Buffer.from('"}')])],
  ['a tower of brackets', '['.repeat(500_000)],
])('%s is malformed_body', async (_what, payload) => {
  refused(await post(payload), 400, 'malformed_body')
})

test('a body over 1 MiB is 413, one below is read', async () => {
  refused(await post(JSON.stringify({ name: 'x', text: 'y'.repeat(1_048_576) })), 413, 'body_too_large')
  refused(await post(JSON.stringify({ name: 'x', text: 'y'.repeat(1_000_000) })), 400, 'invalid_input')
})

test.each([
  'text/plain',
  'application/x-www-form-urlencoded',
  'multipart/form-data; boundary=x',
  'application/jsonx',
  'nonsense',
])('content type %s is 415', async (type) => {
  refused(await post('{"name":"x"}', { 'content-type': type }), 415, 'unsupported_media_type')
})

test('JSON may say its charset', async () => {
  expect((await post('{"name":"ä"}', { 'content-type': 'application/json; charset=utf-8' })).json()).toEqual({ message: 'ä' })
})

test.each<[string, 'POST' | 'DELETE', Record<string, string>]>([
  ['nothing', 'POST', {}],
  ['a content type', 'POST', { 'content-type': 'application/json' }],
  ['a content type and length 0', 'POST', { 'content-type': 'application/json', 'content-length': '0' }],
  ['another content type and length 0', 'POST', { 'content-type': 'text/plain', 'content-length': '0' }],
  ['a content type', 'DELETE', { 'content-type': 'application/json' }],
  ['nothing', 'DELETE', {}],
])('no body with %s counts as {} (%s %j)', async (_what, method, headers) => {
  const answer = await h.app.inject({ method, url: '/api/v1/things', headers })
  expect(refused(answer, 400, 'invalid_input').details).toEqual({ name: 'is required' })
  if (method === 'POST') expect((await h.app.inject({ method, url: '/api/v1/nothing', headers })).json()).toEqual({ body: {} })
})

test('what a route does not declare, it does not take', async () => {
  const nothing = (query: string, payload?: object) =>
    h.app.inject({ method: 'POST', url: `/api/v1/nothing${query}`, ...(payload && { payload }) })
  expect(refused(await nothing('', { x: 1 }), 400, 'invalid_input').details).toEqual({ x: 'is not known here' })
  expect(refused(await nothing('?x=1'), 400, 'invalid_input').details).toEqual({ x: 'is not known here' })
  const proto = await nothing('?__proto__=1')
  refused(proto, 400, 'invalid_input')
  expect(proto.payload).toContain('{"__proto__":"is not known here"}')
})

test('paths and queries are checked', async () => {
  const thing = (path: string) => h.app.inject(`/api/v1/things/${path}`)
  const id = '018F0000-0000-7000-8000-000000000000'
  expect((await thing(id)).json()).toEqual({ id: id.toLowerCase(), limit: 50 })
  for (const bad of ['x', 'null', `${id}0`, '%00', '..%2f..%2fetc', "';DROP TABLE users"]) {
    expect(refused(await thing(encodeURI(bad).replaceAll('%25', '%')), 400, 'invalid_input').details, bad).toEqual({
      id: 'must be a UUID',
    })
  }
  for (const limit of ['0', '101', '-1', '1.5', '1e1', 'x', '', '99999999999999999999', '1&limit=2']) {
    expect(refused(await thing(`${id}?limit=${limit}`), 400, 'invalid_input').details, limit).toHaveProperty('limit')
  }
  refused(await thing('%zz'), 400, 'invalid_input')
  refused(await thing('x'.repeat(1_000)), 400, 'invalid_input')
})

test('an unknown route is 404, with a token or without', async () => {
  for (const url of ['/nope', '/api/v1/nope', '/api/v2/users/me']) refused(await h.app.inject(url), 404, 'not_found')
  refused(await h.app.inject({ method: 'PUT', url: '/api/v1/things' }), 404, 'not_found')
})

test('a route needs a token unless it is public', async () => {
  refused(await h.app.inject('/api/v1/free'), 401, 'unauthorized')
  for (const authorization of ['', 'Bearer', 'Bearer ', 'Basic abc', token]) {
    refused(await h.app.inject({ url: '/api/v1/free', headers: { authorization } }), 401, 'unauthorized')
  }
  expect((await h.app.inject({ url: '/api/v1/free', headers: { authorization: `bearer ${token}` } })).statusCode).toBe(200)
})

test('nothing of an error inside is told; those of a database that is away are 503', async () => {
  fail = () => {
    throw new Error('SELECT secret FROM /etc/passwd')
  }
  const internal = await h.app.inject('/api/v1/failing')
  expect(refused(internal, 500, 'internal_error').error).toBe('Something went wrong on the server')
  expect(internal.payload).not.toContain('secret')
  const failures: [unknown, number, string][] = [
    [Object.assign(new Error('x'), { code: '57014' }), 503, 'unavailable'],
    [Object.assign(new Error('x'), { code: 'ECONNREFUSED' }), 503, 'unavailable'],
    [Object.assign(new Error('x'), { code: '40P01' }), 503, 'unavailable'],
    [Object.assign(new Error('x'), { code: '23505', constraint: 'some_index' }), 500, 'internal_error'],
    [new AppError('group_full'), 409, 'group_full'],
    ['a string', 500, 'internal_error'],
    [undefined, 500, 'internal_error'],
  ]
  for (const [error, status, code] of failures) {
    fail = () => Promise.reject(error)
    refused(await h.app.inject('/api/v1/failing'), status, code)
  }
  fail = () => Promise.reject(new AppError('rate_limited', { retryAfter: 7 }))
  const later = await h.app.inject('/api/v1/failing')
  expect(refused(later, 429, 'rate_limited').retry_after).toBe(7)
  expect(later.headers['retry-after']).toBe('7')
})

test('what is no HTTP is refused in the same form', async () => {
  await h.app.listen({ port: 0, host: '127.0.0.1' })
  const { port } = h.app.server.address() as AddressInfo
  const text = await new Promise<string>((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => socket.write('GET / HTTP/1.1\r\nbad header\r\n\r\n'))
    let answer = ''
    socket.on('data', (chunk) => {
      answer += chunk
    })
    socket.on('end', () => resolve(answer)).on('error', reject)
  })
  expect(text).toMatch(/^HTTP\/1\.1 400 /)
  expect(ErrorAnswer.strict().parse(JSON.parse(text.split('\r\n\r\n')[1]!)).code).toBe('invalid_input')
})

test('the id of a request is the caller’s where it is short and plain', async () => {
  const id = async (given: string) =>
    (await h.app.inject({ url: '/health/live', headers: { 'x-request-id': given } })).headers['x-request-id']
  expect(await id('abc-123_x.y')).toBe('abc-123_x.y')
  for (const bad of ['a b', 'x'.repeat(65), '<script>', 'a"b']) expect(await id(bad)).toMatch(/^[0-9a-f-]{36}$/)
})

test('the general limit counts per user, per address where there is none, and says where one stands', async () => {
  const limited = await startHarness({
    general: { points: 3, windowMs: 60_000 },
    routes: async (app) => {
      app.route({ method: 'GET', url: '/free', config: { rateLimit: false }, handler: async () => ({}) })
    },
  })
  // Registering counts for the address.
  const one = (
    await limited.call('POST', '/auth/register', { username: 'one', password: 'Passw0rd' }, undefined, '10.0.0.1')
  ).json()
  const two = (
    await limited.call('POST', '/auth/register', { username: 'two', password: 'Passw0rd' }, undefined, '10.0.0.2')
  ).json()
  const me = (who: Body, ip: string) => limited.call('GET', '/users/me', undefined, who.token, ip)
  const first = await me(one, '10.0.0.3')
  expect([first.headers['ratelimit-limit'], first.headers['ratelimit-remaining'], first.headers['ratelimit-reset']]).toEqual([
    '3',
    '2',
    '60',
  ])
  await me(one, '10.0.0.4')
  await me(one, '10.0.0.5')
  const over = await me(one, '10.0.0.6')
  const body = refused(over, 429, 'rate_limited')
  expect(over.headers['ratelimit-remaining']).toBe('0')
  expect(Number(over.headers['retry-after'])).toBe(body.retry_after)
  expect((await me(two, '10.0.0.6')).statusCode).toBe(200)
  // Routes with a limit of their own go on.
  expect((await limited.call('GET', '/free', undefined, one.token)).statusCode).toBe(200)
  // Bad tokens and unknown routes count for the address.
  const statuses = []
  for (let i = 0; i < 2; i++) statuses.push((await me({ token: 'bad' }, '10.0.9.9')).statusCode)
  for (let i = 0; i < 2; i++) statuses.push((await limited.call('GET', '/nope', undefined, undefined, '10.0.9.9')).statusCode)
  statuses.push((await me({ token: 'bad' }, '10.0.9.9')).statusCode)
  expect(statuses).toEqual([401, 401, 404, 429, 429])
  await limited.stop()
})

test('addresses of one IPv6 network are one, mapped IPv4 is IPv4', () => {
  expect(addressKey('10.1.2.3')).toBe('10.1.2.3')
  expect(addressKey('::ffff:10.1.2.3')).toBe('10.1.2.3')
  const network = '2001:db8:0:1::/64'
  for (const ip of ['2001:db8:0:1::', '2001:DB8::1:0:0:0:1', '2001:0db8:0000:0001:ffff:ffff:ffff:ffff', '2001:db8:0:1::5%eth0']) {
    expect(addressKey(ip), ip).toBe(network)
  }
  expect(addressKey('2001:db8:0:2::')).not.toBe(network)
  expect(addressKey('::1')).toBe('0:0:0:0::/64')
  expect(addressKey('64:ff9b::10.0.0.1')).toBe('64:ff9b:0:0::/64')
})

test('other origins may call only where they are named', async () => {
  const preflight = (harness: Harness, origin: string) =>
    harness.app.inject({
      method: 'OPTIONS',
      url: '/api/v1/users/me',
      headers: { origin, 'access-control-request-method': 'PATCH', 'access-control-request-headers': 'authorization' },
    })
  expect((await preflight(h, 'https://chat.example.org')).headers).not.toHaveProperty('access-control-allow-origin')
  const open = await startHarness({ corsOrigins: ['https://chat.example.org'] })
  const allowed = await preflight(open, 'https://chat.example.org')
  expect(allowed.statusCode).toBe(204)
  expect(allowed.headers['access-control-allow-origin']).toBe('https://chat.example.org')
  expect(allowed.headers['access-control-allow-methods']).toContain('PATCH')
  expect((await preflight(open, 'https://evil.example.org')).headers).not.toHaveProperty('access-control-allow-origin')
  // A refusal can be read as well.
  const refusal = await open.app.inject({ url: '/api/v1/users/me', headers: { origin: 'https://chat.example.org' } })
  expect([refusal.statusCode, refusal.headers['access-control-allow-origin']]).toEqual([401, 'https://chat.example.org'])
  await open.stop()
})

test('the log has one line a request, and nothing that lets somebody in', async () => {
  h.lines.length = 0
  const { refresh_token } = (await h.call('POST', '/auth/login', { login: 'somebody', password: 'Passw0rd' })).json()
  await h.call('POST', '/auth/login', { login: 'somebody', password: 'Wr0ngSecret' })
  await h.call('POST', '/auth/refresh', { refresh_token })
  await h.app.inject({ url: `/api/v1/free?token=${token}`, headers: { authorization: `Bearer ${token}` } })
  await h.app.inject(`/api/v1/nope?token=${token}`)
  await h.app.inject(`/api/v1/%zz?token=${token}`)
  await post(JSON.stringify({ name: 'x', text: 'a private message', more: 'another private thing' }))
  fail = () =>
    Promise.reject(Object.assign(new Error('x'), { code: '23514', detail: 'Failing row contains (a private message)' }))
  await h.app.inject('/api/v1/failing')
  const text = h.lines.join('')
  for (const secret of [token, refresh_token, 'Passw0rd', 'Wr0ngSecret', 'private']) expect(text).not.toContain(secret)
  const requests = h.lines.map((line) => JSON.parse(line)).filter(({ msg }) => msg === 'request')
  expect(requests[0]).toMatchObject({
    level: 30,
    method: 'POST',
    route: '/api/v1/auth/login',
    status: 200,
    ms: expect.any(Number),
    request_id: expect.any(String),
  })
  expect(requests.map(({ status }) => status)).toEqual([200, 401, 200, 400, 404, 400, 500])
  expect(withoutSecrets('/ws?token=abc&x=1&t=2&s=sig&tt=3')).toBe('/ws?token=***&x=1&t=***&s=***&tt=3')
})

test('the OpenAPI document describes every route under /api/v1, its refusals and its schemas', async () => {
  const answer = await h.app.inject('/api/v1/openapi.json')
  const document = answer.json()
  expect(document.openapi).toBe('3.1.0')
  expect(document.info).toMatchObject({ title: 'Parley', version: '0.0.0-test' })
  expect(document.components.securitySchemes.bearerAuth).toMatchObject({ type: 'http', scheme: 'bearer' })
  expect(document.components.schemas.Error.properties.code.enum).toEqual(errorCodes)

  const refs = Array.from(answer.payload.matchAll(/"\$ref":"([^"]+)"/g), (match) => match[1]!)
  expect(refs.length).toBeGreaterThan(50)
  for (const ref of new Set(refs)) {
    const name = /^#\/components\/schemas\/(\w+)$/.exec(ref)?.[1]
    expect(document.components.schemas, ref).toHaveProperty(name ?? ref)
    expect(ref).not.toMatch(/Input$/)
  }
  const login = document.paths['/api/v1/auth/login'].post
  expect(login.security).toEqual([])
  expect(document.components.schemas.Login.required).toEqual(['password'])
  expect(login.responses['401'].description).toBe('`invalid_credentials`')
  const me = document.paths['/api/v1/users/me'].patch
  expect(Object.keys(me.responses)).toEqual(['200', '400', '401', '404', '409', '413', '415', '429', '500', '503'])
  expect(me.responses['409'].description).toBe('`username_taken`')
  const thing = document.paths['/api/v1/things/{id}'].get
  expect(thing.parameters).toContainEqual(
    expect.objectContaining({ in: 'path', name: 'id', schema: expect.objectContaining({ format: 'uuid' }) }),
  )
  // No unknown fields: the document says so as well.
  expect(document.components.schemas.Registration.additionalProperties).toBe(false)
})

test('/docs is there without the internet', async () => {
  expect((await h.app.inject('/docs')).statusCode).toBe(301)
  const page = await h.app.inject('/docs/')
  expect(page.headers['content-security-policy']).toMatch(/script-src 'self' 'sha256-/)
  // Whatever the page loads is our own, and there.
  const sources = Array.from(page.payload.matchAll(/(?:src|href)="([^"]+)"/g), (match) => match[1]!)
  expect(sources).toEqual(['js/scalar.js'])
  const script = await h.app.inject('/docs/js/scalar.js')
  expect(script.statusCode).toBe(200)
  expect(script.headers['content-type']).toContain('javascript')
  expect(page.payload).toContain('"url": "/api/v1/openapi.json"')
})
