import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Account, startServers, type TestServers } from './support/server.ts'
import { type Frame, Wire } from './support/wire.ts'

/** What an answer says of the limit it counted in: how much there is, and what is left. */
const told = ({ headers }: { headers: Headers }) => ['limit', 'remaining'].map((name) => headers.get(`ratelimit-${name}`))

/** Ten messages a second, whichever way and whichever instance they come by. */

let servers: TestServers
// The window is longer than the default, so that a slow machine cannot begin a second one.
const points = 10
beforeAll(async () => {
  servers = await startServers({ instances: 2, env: { RATE_LIMIT_MESSAGE: `${points}/20s` } })
})
afterAll(() => servers.close())

test('messages over REST and WebSocket of two instances count together, each user for themselves', async () => {
  const [anna, ben] = [await servers.register('anna'), await servers.register('ben')] as [Account, Account]
  const chat_id = await servers.dm(anna, ben)
  const wires = servers.instances.map(({ url }) => new Wire(url, `/ws?token=${anna.token}`))
  for (const wire of wires) await wire.type('user_chats')
  const answers = await Promise.all([
    ...Array.from({ length: 20 }, (_, n) =>
      servers.call('POST', '/messages', { as: anna, at: n % 2, body: { chat_id, content: `rest ${n}` } }),
    ),
    ...Array.from({ length: 20 }, (_, n) => wires[n % 2]!.ask({ type: 'message', chat_id, content: `socket ${n}` })),
  ])
  const overRest = answers.slice(0, 20) as { status: number; headers: Headers; body: Record<string, unknown> }[]
  const overSocket = answers.slice(20) as Frame[]
  const passed = overRest.filter((a) => a.status === 201).length + overSocket.filter((a) => a.type === 'ack').length
  expect(passed).toBe(points)
  for (const refused of overRest.filter((a) => a.status !== 201)) {
    expect(refused).toMatchObject({ status: 429, body: { code: 'rate_limited', retry_after: expect.any(Number) } })
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0)
    expect(told(refused)).toEqual([`${points}`, '0'])
  }
  for (const refused of overSocket.filter((a) => a.type !== 'ack')) {
    expect(refused).toMatchObject({ type: 'error', code: 'rate_limited', retry_after: expect.any(Number) })
    expect(refused.retry_after).toBeLessThanOrEqual(20)
  }
  // Other commands do not count, nor do others' messages.
  expect(await wires[0]!.ask({ type: 'read', chat_id })).toMatchObject({ type: 'ack' })
  expect((await servers.call('POST', '/messages', { as: ben, body: { chat_id, content: 'mine' } })).status).toBe(201)
  const { body } = await servers.call<{ total: number }>('GET', `/chats/${chat_id}/messages`, { as: ben })
  expect(body.total).toBe(points + 1)
  for (const wire of wires) wire.end()
})

test('a forward counts once for each chat, and one to as many chats as it may name is let through', async () => {
  const [anna, ben] = [await servers.register('anna'), await servers.register('ben')] as [Account, Account]
  const group = () => servers.group(ben, [anna])
  const { body: original } = await servers.call<{ id: string }>('POST', '/messages', {
    as: ben,
    body: { chat_id: await group(), content: 'pass it on' },
  })
  const forward = (chat_ids: string[]) =>
    servers.call('POST', `/messages/${original.id}/forward`, { as: anna, at: 1, body: { chat_ids } })
  const chat_ids = await Promise.all(Array.from({ length: points + 1 }, group))
  expect((await forward(chat_ids)).status).toBe(400)
  const passed = await forward(chat_ids.slice(1))
  expect([passed.status, ...told(passed)]).toEqual([201, `${points}`, '0'])
  const refused = await forward(chat_ids.slice(0, 1))
  expect(refused).toMatchObject({ status: 429, body: { code: 'rate_limited' } })
  expect(told(refused)).toEqual([`${points}`, '0'])
})
