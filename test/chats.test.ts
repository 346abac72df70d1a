import { afterAll, beforeAll, expect, test } from 'vitest'
import { startServers, type TestServers } from './support/server.ts'

let servers: TestServers
beforeAll(async () => {
  servers = await startServers({ instances: 2 })
})
afterAll(() => servers.close())

test('two people talk over two instances', async () => {
  const anna = await servers.register('anna')
  const ben = await servers.register('ben')
  const chat = await servers.dm(anna, ben)
  const a = await servers.connect(anna, { at: 0 })
  const b = await servers.connect(ben, { at: 1 })
  const sent = await a.send(chat, 'hello')
  const heard = await b.waitFor('new_message', (e) => e.message.content === 'hello')
  expect(heard.message.id).toBe(sent.id)
  expect(sent.seq).toBe(1)
  await b.ask({ type: 'read', chat_id: chat })
  await a.waitFor('read', (e) => e.read_seq === 1)
  expect(a.state.status(chat, 1)).toBe('read')
})

test('a hundred simultaneous direct chats are one', async () => {
  const [x, y] = [await servers.register(), await servers.register()]
  const answers = await Promise.all(
    Array.from({ length: 50 }, (_, n) =>
      servers.call<{ id: string }>('GET', `/chats/dm/${n % 2 ? x.id : y.id}`, { as: n % 2 ? y : x, at: n % 4 > 1 ? 1 : 0 }),
    ),
  )
  expect(new Set(answers.map((a) => a.body.id)).size).toBe(1)
  expect(answers.filter((a) => a.status === 201)).toHaveLength(1)
  expect(answers.filter((a) => a.status === 200)).toHaveLength(49)
})

test('the same client_id a hundred times at once is one message', async () => {
  const [x, y] = [await servers.register(), await servers.register()]
  const chat_id = await servers.dm(x, y)
  const client_id = crypto.randomUUID()
  const answers = await Promise.all(
    Array.from({ length: 100 }, (_, n) =>
      servers.call<{ id: string }>('POST', '/messages', { as: x, at: n % 2, body: { chat_id, client_id, content: 'once' } }),
    ),
  )
  expect(new Set(answers.map((a) => a.body.id)).size).toBe(1)
  expect(answers.filter((a) => a.status === 201)).toHaveLength(1)
  const { body } = await servers.call<{ total: number }>('GET', `/chats/${chat_id}/messages`, { as: y })
  expect(body.total).toBe(1)
})
