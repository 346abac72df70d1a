import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { createMemoryPresence } from '../src/platform/presence/memory.ts'
import { stamps } from './support/check.ts'
import { type Account, startServers, type TestServers } from './support/server.ts'

let servers: TestServers
beforeAll(async () => {
  servers = await startServers()
})
afterAll(() => servers.close())

/** What `work` changes is committed and never told, as by a process that dies in between. */
async function untold(work: () => Promise<unknown>): Promise<void> {
  const { hub } = servers.instances[0]!.server
  const { tell } = hub
  hub.tell = () => {}
  await work()
  hub.tell = tell
}

const role = (as: Awaited<ReturnType<TestServers['register']>>, chat: string, member: string, to: 'admin' | 'member') =>
  servers.call('PATCH', `/chats/${chat}/members/${member}`, { as, body: { role: to } })

test('what was never told is read in one go, each event following on from the one before', async () => {
  const [anna, ben] = [await servers.register('anna'), await servers.register('ben')]
  const chat = await servers.group(anna, [ben])
  const client = await servers.connect(ben)
  const before = client.state.chats.get(chat)!.version
  await untold(async () => {
    // The same row twice: the first of these versions is told by nobody any more.
    await role(anna, chat, ben.id, 'admin')
    await servers.call('POST', '/messages', { as: anna, body: { chat_id: chat, content: 'one' } })
    await role(anna, chat, ben.id, 'member')
  })
  await servers.call('POST', '/messages', { as: anna, body: { chat_id: chat, content: 'two' } })
  await client.waitFor('new_message', (e) => e.message.content === 'two')
  let known = before
  for (const [version, prev] of stamps(client, chat)) {
    expect([prev, version > known]).toEqual([known, true])
    known = version
  }
  client.close()
})

/** How somebody who is not told of it comes to be no member any more. */
const endings: [string, 'group' | 'channel', (chat: string, member: Account, owner: Account) => [string, string, Account]][] = [
  ['leaves a group', 'group', (chat, member) => ['POST', `/chats/${chat}/leave`, member]],
  ['is removed from a group', 'group', (chat, { id }, owner) => ['DELETE', `/chats/${chat}/members/${id}`, owner]],
  ['has their group deleted', 'group', (chat, _, owner) => ['DELETE', `/chats/${chat}`, owner]],
  ['leaves a channel', 'channel', (chat, member) => ['DELETE', `/channels/${chat}/subscribe`, member]],
  ['is removed from a channel', 'channel', (chat, { id }, owner) => ['DELETE', `/chats/${chat}/members/${id}`, owner]],
  ['has their channel deleted', 'channel', (chat, _, owner) => ['DELETE', `/chats/${chat}`, owner]],
]

test.each(endings)('who %s, and nobody could say so, is not listening any more once it is found', async (_, type, end) => {
  const [anna, ben, carl] = await Promise.all(['anna', 'ben', 'carl'].map((name) => servers.register(name)))
  const isChannel = type === 'channel'
  const made = isChannel
    ? servers.call<{ id: string }>('POST', '/channels', { as: anna!, body: { name: 'News' } }).then(({ body }) => body.id)
    : servers.group(anna!, [ben!, carl!])
  const chat = await made
  if (isChannel) for (const as of [ben!, carl!]) await servers.call('POST', `/channels/${chat}/subscribe`, { as })
  const [out, stays] = [await servers.connect(ben!), await servers.connect(carl!)]
  const { hub } = servers.instances[0]!.server
  const [method, path, as] = end(chat, ben!, anna!)
  await untold(async () => expect((await servers.call(method, path, { as })).status).toBeLessThan(300))
  expect(hub.hears(ben!.id, chat)).toBe(true)
  await hub.sweep(true)
  await out.waitFor('chat_removed', (e) => e.chat_id === chat)
  await vi.waitFor(() => expect(hub.hears(ben!.id, chat)).toBe(false), 5_000)
  const { status } = await servers.call('POST', '/messages', { as: anna!, body: { chat_id: chat, content: 'not for them' } })
  if (status === 201) await stays.waitFor('new_message', (e) => e.message.content === 'not for them')
  expect(out.events.filter((e) => e.type === 'new_message' && e.message.content === 'not for them')).toEqual([])
})

test('a reaction of mine that was never told is mine on my other devices, and another’s is not', async () => {
  const [anna, ben] = [await servers.register('anna'), await servers.register('ben')]
  const chat = await servers.dm(anna, ben)
  const say = (content: string) =>
    servers.call<{ id: string; seq: number }>('POST', '/messages', { as: anna, body: { chat_id: chat, content } })
  const clients = [await servers.connect(anna), await servers.connect(ben)]
  const { id, seq } = (await say('look')).body
  for (const client of clients) await client.waitFor('new_message', (e) => e.message.id === id)
  await untold(() => servers.call('POST', `/messages/${id}/reactions`, { as: ben, body: { emoji: '👀' } }))
  await say('and')
  for (const [n, client] of clients.entries())
    await vi.waitFor(
      () => expect(client.state.chats.get(chat)?.messages.get(seq)?.reactions).toEqual([{ emoji: '👀', count: 1, me: n === 1 }]),
      5_000,
    )
})

test('an edit that takes back the mention of somebody who has left moves no clock of theirs', async () => {
  const [anna, ben] = [await servers.register('anna'), await servers.register('ben')]
  const chat = await servers.group(anna, [ben])
  const { body: message } = await servers.call<{ id: string }>('POST', '/messages', {
    as: anna,
    body: { chat_id: chat, content: `@${ben.username}` },
  })
  await servers.call('POST', `/chats/${chat}/leave`, { as: ben, body: {} })
  const client = await servers.connect(ben)
  const before = client.state.userVersion
  await servers.call('PATCH', `/messages/${message.id}`, { as: anna, body: { content: 'nobody' } })
  await client.sync()
  expect(client.state.userVersion).toBe(before)
})

test('ticks are there for whoever comes back, though nothing but cursors has moved', async () => {
  const [anna, ben] = [await servers.register('anna'), await servers.register('ben')]
  const chat = await servers.dm(anna, ben)
  const client = await servers.connect(anna)
  await client.send(chat, 'hello')
  client.close()
  await client.waitForClose()
  await servers.call('POST', `/chats/${chat}/read`, { as: ben, body: {} })
  expect(client.state.status(chat, 1)).toBe('sent')
  await client.connect()
  expect(client.state.status(chat, 1)).toBe('read')
  client.close()
})

test('somebody who joined and became an admin unheard counts for the ticks of what came after they joined', async () => {
  const [anna, ben, carl] = [await servers.register('anna'), await servers.register('ben'), await servers.register('carl')]
  const chat = await servers.group(anna, [ben])
  const client = await servers.connect(anna)
  await untold(() => servers.call('POST', `/chats/${chat}/members`, { as: anna, body: { user_ids: [carl.id] } }))
  let seq = 0
  await untold(async () => {
    const { body } = await servers.call<{ seq: number }>('POST', '/messages', {
      as: anna,
      body: { chat_id: chat, content: 'all' },
    })
    seq = body.seq
    await role(anna, chat, carl.id, 'admin')
  })
  await servers.call('POST', `/chats/${chat}/read`, { as: ben, body: {} })
  await servers.instances[0]!.server.hub.sweep(true)
  await vi.waitFor(() => expect(client.state.chats.get(chat)?.members.get(carl.id)?.role).toBe('admin'), 5_000)
  await client.sync()
  expect(client.state.status(chat, seq)).toBe('sent')
  await servers.call('POST', `/chats/${chat}/read`, { as: carl, body: {} })
  await vi.waitFor(() => expect(client.state.status(chat, seq)).toBe('read'), 5_000)
  client.close()
})

test('a chat taken out of the archive by a message is out of it on a live device, too', async () => {
  const [anna, ben] = [await servers.register('anna'), await servers.register('ben')]
  const chat = await servers.dm(anna, ben)
  const client = await servers.connect(anna)
  await servers.call('PATCH', `/chats/${chat}/settings`, { as: anna, body: { archived: true } })
  await client.waitFor('my_updated', (e) => e.my.archived)
  expect(client.state.chats.get(chat)?.my.archived).toBe(true)
  await servers.call('POST', '/messages', { as: ben, body: { chat_id: chat, content: 'hello' } })
  await client.waitFor('new_message')
  expect(client.state.chats.get(chat)?.my.archived).toBe(false)
  client.close()
})

test('what an instance that is gone has told nobody is looked for at once, not when its turn comes', async () => {
  const presence = createMemoryPresence()
  const { onInstanceGone } = presence
  let gone = () => {}
  presence.onInstanceGone = (handler) => {
    gone = handler
    onInstanceGone(handler)
  }
  const alone = await startServers({ overrides: () => ({ presence }) })
  const [anna, ben] = [await alone.register('anna'), await alone.register('ben')]
  const chat = await alone.dm(anna, ben)
  const client = await alone.connect(ben)
  const { hub } = alone.instances[0]!.server
  const sweep = hub.sweep.bind(hub)
  // The sweep that goes round would find it, too.
  hub.sweep = async (everything) => (everything ? sweep(true) : undefined)
  const { tell } = hub
  hub.tell = () => {}
  await alone.call('POST', '/messages', { as: anna, body: { chat_id: chat, content: 'told by nobody' } })
  hub.tell = tell
  gone()
  await client.waitFor('new_message', (e) => e.message.content === 'told by nobody')
  await alone.close()
  await presence.close()
})
