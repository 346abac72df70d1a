import { connect as connectTcp, type Socket } from 'node:net'
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest'
import { Client } from './client/client.ts'
import { compare } from './model/compare.ts'
import { heard, rest } from './support/check.ts'
import { type Account, startServers, type TestServers } from './support/server.ts'
import { Stream } from './support/stream.ts'
import { until, Wire } from './support/wire.ts'

/** `GET /events`: the same events as the WebSocket, the same limits, the same end of sessions. */

let servers: TestServers
const open: { end(): void }[] = []
beforeAll(async () => {
  servers = await startServers({ instances: 2, env: { CORS_ORIGINS: 'https://web.example' } })
})
afterEach(() => {
  for (const one of open.splice(0)) one.end()
})
afterAll(() => servers.close())

const { people } = rest(() => servers)
async function stream(account: Account, at = 0): Promise<Stream> {
  const made = await Stream.open(servers.instances[at]!.url, account.token)
  open.push(made)
  await made.type('user_chats')
  return made
}
async function wire(account: Account, at = 0): Promise<Wire> {
  const made = new Wire(servers.instances[at]!.url, `/ws?token=${account.token}`)
  open.push(made)
  await made.type('user_chats')
  return made
}
const say = (as: Account, chat_id: string, content: string, at = 0) =>
  servers.call('POST', '/messages', { as, at, body: { chat_id, content } })
const contents = (frames: Record<string, unknown>[]) =>
  frames.flatMap((f) => {
    const { content } = (f.message ?? {}) as { content?: string }
    // Those of the system have none.
    return f.type === 'new_message' && content ? [content] : []
  })

test('a stream tells what a socket is told: the same bytes in the same order, numbered', async () => {
  const [anna, ben] = await people(2)
  const chat = await servers.group(anna, [ben])
  const [near, far] = [await stream(anna, 0), await stream(anna, 1)]
  const socket = await wire(anna, 1)
  const raw: string[] = []
  socket.socket.on('message', (data) => raw.push(String(data)))
  // Several of one turn leave in one write, and are events of their own all the same.
  await Promise.all(Array.from({ length: 60 }, (_, n) => say(ben, chat, `é\u{1f600} "${n}"\n`, n % 2)))
  await servers.call('PATCH', `/chats/${chat}`, { as: anna, body: { name: 'Renamed' } })
  for (const one of [near, far]) {
    // The last thing that happens: the message that says so follows the change of the name.
    await one.next((f) => JSON.stringify(f).includes('"renamed"'))
    expect(one.frames.slice(0, 2)).toMatchObject([
      { type: 'ready', user_id: anna.id, heartbeat: 25 },
      { type: 'user_chats', chat_ids: [chat] },
    ])
  }
  await vi.waitFor(() => expect(raw.some((text) => text.includes('"renamed"'))).toBe(true), 5_000)
  const ofChat = (texts: string[]) => texts.filter((text) => text.includes('"prev"'))
  expect(ofChat(near.texts)).toEqual(ofChat(raw))
  expect(ofChat(far.texts)).toEqual(ofChat(raw))
  expect(ofChat(raw).length).toBeGreaterThan(60)
  const [retry, ...rest] = near.events
  expect(Number(retry!.retry)).toBeGreaterThanOrEqual(500)
  expect(rest.map(({ id }) => Number(id))).toEqual(rest.map((_, n) => n + 1))
})

test('its headers keep caches and proxies from holding it back, and CORS is as for REST', async () => {
  const [anna] = await people(1)
  const url = servers.instances[0]!.url
  const one = await Stream.open(url, anna.token, { origin: 'https://web.example' })
  open.push(one)
  const { headers } = one
  expect(headers.get('content-type')).toBe('text/event-stream')
  expect(headers.get('cache-control')).toBe('no-store, no-transform')
  expect(headers.get('x-accel-buffering')).toBe('no')
  expect(headers.get('access-control-allow-origin')).toBe('https://web.example')
  expect(headers.get('x-request-id')).toBeTruthy()
  expect(headers.get('x-content-type-options')).toBe('nosniff')
})

test('without a good token there is JSON and no stream', async () => {
  const [anna, ben] = await people(2)
  await servers.call('POST', '/auth/logout', { as: ben })
  const url = servers.instances[0]!.url
  const answer = async (query: string, headers: Record<string, string> = {}, method = 'GET') => {
    const response = await fetch(`${url}/api/v1/events${query}`, { method, headers })
    const text = await response.text()
    expect(response.headers.get('content-type')).toContain('application/json')
    return [response.status, method === 'HEAD' ? '' : (JSON.parse(text) as { code: string }).code]
  }
  expect(await answer('')).toEqual([401, 'unauthorized'])
  expect(await answer('?token=x.y.z')).toEqual([401, 'invalid_token'])
  expect(await answer(`?token=${ben.token}`)).toEqual([401, 'session_ended'])
  // What is in the header counts.
  expect(await answer(`?token=${anna.token}`, { authorization: 'Bearer x.y.z' })).toEqual([401, 'invalid_token'])
  expect(await answer(`?token=${anna.token}&last=1`)).toEqual([400, 'invalid_input'])
  expect(await answer(`?token=${anna.token}&token=x`, { authorization: `Bearer ${anna.token}` })).toEqual([400, 'invalid_input'])
  expect((await answer(`?token=${anna.token}`, {}, 'HEAD'))[0]).toBe(404)
  // Nowhere else is a token taken from the query.
  expect((await servers.call('GET', `/users/me?token=${anna.token}`)).body.code).toBe('unauthorized')
  const byHeader = new Client({ url, userId: anna.id, token: () => anna.token, over: 'events' })
  await byHeader.connect()
  byHeader.close()
  await until(() => servers.instances[0]!.server.hub.size.users === 0, 'nobody is left')
})

test('connecting counts in the general limit', async () => {
  const limited = await startServers({ env: { RATE_LIMIT_GENERAL: '3/1m' } })
  try {
    const anna = await limited.register('anna')
    const url = limited.instances[0]!.url
    for (let n = 0; n < 3; n += 1) (await Stream.open(url, anna.token)).end()
    const response = await fetch(`${url}/api/v1/events`, { headers: { authorization: `Bearer ${anna.token}` } })
    expect([response.status, ((await response.json()) as { code: string }).code]).toEqual([429, 'rate_limited'])
    expect(Number(response.headers.get('retry-after'))).toBeGreaterThan(0)
  } finally {
    await limited.close()
  }
})

test('who was removed hears nothing later, and who was added everything', async () => {
  const [owner, out, late, other] = await people(4)
  const chat = await servers.group(owner, [out, other])
  const [o, l] = [await stream(out, 1), await stream(late, 1)]
  await say(other, chat, 'before')
  await o.next((f) => contents([f])[0] === 'before')
  expect((await servers.call('DELETE', `/chats/${chat}/members/${out.id}`, { as: owner })).status).toBe(200)
  expect((await servers.call('POST', `/chats/${chat}/members`, { as: owner, body: { user_ids: [late.id] } })).status).toBe(200)
  for (const content of ['after', 'later']) await say(other, chat, content, 1)
  await l.next((f) => contents([f])[0] === 'later')
  await o.type('chat_removed')
  expect(contents(o.frames)).toEqual(['before'])
  expect(contents(l.frames)).toEqual(['after', 'later'])
  await l.type('chat_added')
})

test('a session that ends takes its streams with it, on every instance, and no other', async () => {
  const [anna] = await people(1)
  const other = await servers.login(anna)
  const mine = [await stream(anna, 0), await stream(anna, 1)]
  const others = await stream(other, 1)
  await servers.call('POST', '/auth/logout', { as: anna })
  for (const one of mine) {
    expect(await one.closed()).toBe(4001)
    expect(one.frames.at(-1)).toMatchObject({ type: 'session_ended' })
  }
  await expect(Stream.open(servers.instances[1]!.url, anna.token)).rejects.toThrow('401 session_ended')
  expect(others.ended).toBe(false)
})

test('an expired token ends the stream, and the next one needs another', async () => {
  const brief = await startServers({ env: { ACCESS_TOKEN_TTL: '2s' } })
  try {
    const anna = await brief.register('anna')
    const url = brief.instances[0]!.url
    const one = await Stream.open(url, anna.token)
    expect(await one.closed()).toBe(4003)
    // Clocks may differ by two seconds: so long it is let in, and ended again at once.
    await expect.poll(() => Stream.open(url, anna.token).catch(String), { timeout: 5_000 }).toContain('401 token_expired')
  } finally {
    await brief.close()
  }
})

test('a stream is a connection: it makes its user online, and its end offline', async () => {
  const [anna, ben] = await people(2)
  await servers.dm(anna, ben)
  const b = await wire(ben, 1)
  const one = await stream(anna)
  await b.next((f) => f.type === 'online_status' && f.user_id === anna.id && f.is_online === true)
  one.end()
  await b.next((f) => f.type === 'online_status' && f.user_id === anna.id && f.is_online === false)
})

test('typing goes over REST, by any instance, and ends as ever', async () => {
  const [anna, ben, eve] = await people(3)
  const chat = await servers.dm(anna, ben)
  await stream(anna, 0)
  const b = await stream(ben, 1)
  const typing = (as: Account, at: number, body: object = {}, id = chat) =>
    servers.call('POST', `/chats/${id}/typing`, { as, at, body })
  // Anna is connected to the first instance; her call reaches the second.
  expect((await typing(anna, 1)).status).toBe(200)
  await b.next((f) => f.type === 'typing' && f.is_typing === true && f.user_id === anna.id)
  expect((await typing(anna, 1, { is_typing: false })).status).toBe(200)
  await b.next((f) => f.type === 'typing' && f.is_typing === false)
  expect((await typing(eve, 0)).body.code).toBe('chat_not_found')
  const group = await servers.group(anna, [ben])
  expect((await servers.call('DELETE', `/chats/${group}`, { as: anna })).status).toBe(200)
  for (const as of [anna, ben]) expect((await typing(as, 1, {}, group)).body.code).toBe('chat_not_found')
  expect((await typing(anna, 0, { is_typing: 'yes' })).body.code).toBe('invalid_input')
  expect(b.frames.filter((f) => f.type === 'typing')).toHaveLength(2)
})

/** A request on a bare socket, which is read only when it is told to be. */
async function deafStream(url: string, token: string): Promise<Socket> {
  const { hostname, port } = new URL(url)
  const socket = connectTcp(Number(port), hostname)
  open.push({ end: () => socket.destroy() })
  socket.on('error', () => {})
  const head = new Promise((resolve) => socket.once('readable', resolve))
  socket.write(`GET /api/v1/events?token=${token} HTTP/1.1\r\nHost: x\r\n\r\n`)
  await head
  return socket
}

test('who does not read is ended at 1 MiB, and the others get everything', async () => {
  const [anna, ben, carl] = await people(3)
  const chat = await servers.group(anna, [ben, carl])
  const url = servers.instances[0]!.url
  const closes = async () => {
    const text = await (await fetch(`${url}/metrics`)).text()
    return Number(/parley_websocket_closes_total\{reason="too_slow"\} (\d+)/.exec(text)?.[1] ?? 0)
  }
  const reader = await stream(carl)
  const deaf = await Promise.all(Array.from({ length: 3 }, () => deafStream(url, ben.token)))
  await until(() => servers.instances[0]!.server.hub.hears(ben.id, chat), 'they are connected')
  const before = await closes()
  const content = 'x'.repeat(10_000)
  let sent = 0
  while ((await closes()) < before + deaf.length) {
    const answers = await Promise.all(Array.from({ length: 25 }, () => say(anna, chat, content)))
    for (const { status } of answers) expect(status).toBe(201)
    sent += answers.length
    expect(sent * content.length, 'bytes until all were ended').toBeLessThan(60_000_000)
  }
  await until(() => contents(reader.frames).length === sent, 'the other member got everything')
  expect(reader.ended).toBe(false)
  // They are cut off, though they never read.
  await until(() => !servers.instances[0]!.server.hub.hears(ben.id, chat), 'they are gone')
  for (const socket of deaf) {
    socket.resume()
    await until(() => socket.closed || socket.readableEnded, 'the connection ended')
  }
}, 60_000)

test('a server that stops says so and waits for no stream', async () => {
  const own = await startServers()
  const anna = await own.register('anna')
  const url = own.instances[0]!.url
  const streams = await Promise.all(Array.from({ length: 3 }, () => Stream.open(url, anna.token)))
  for (const one of streams) await one.type('user_chats')
  await deafStream(url, anna.token)
  // The server alone: what lies below it, and its database, take their own time.
  const begun = Date.now()
  await own.instances[0]!.server.close()
  expect(Date.now() - begun).toBeLessThan(3_000)
  for (const one of streams) {
    expect(await one.closed()).toBe(4011)
    expect(Number(one.events.at(-1)!.retry)).toBeGreaterThanOrEqual(500)
  }
  await own.close()
})

test('a client by stream and REST ends equal to one by WebSocket', async () => {
  const [anna, ben, carl] = await people(3)
  const first = await servers.group(anna, [ben])
  const dm = await servers.dm(anna, ben)
  const clients = [0, 1].flatMap((at) =>
    (['socket', 'events'] as const).map((over) => servers.client(anna, { at, over, reconnect: true })),
  )
  await Promise.all(clients.map((client) => client.connect()))
  const [socket, events] = clients as [Client, Client]
  const other = await servers.client(ben, { at: 1, over: 'events' }).connect()
  const sent = await events.send(first, 'by stream')
  await socket.send(first, 'by socket')
  await other.send(dm, 'from the other side')
  expect(await events.ask({ type: 'edit', message_id: sent.id, content: 'changed' })).toMatchObject({
    message: { content: 'changed' },
  })
  await other.ask({ type: 'react', message_id: sent.id, emoji: '👍' })
  await other.ask({ type: 'react', message_id: sent.id, emoji: '❤️' })
  await other.ask({ type: 'react', message_id: sent.id, emoji: '❤️', remove: true })
  const gone = await other.send(first, 'to be deleted')
  await other.ask({ type: 'delete', message_id: gone.id })
  await other.ask({ type: 'delivered', chat_id: first, seq: sent.seq })
  await other.ask({ type: 'read', chat_id: first })
  await events.ask({ type: 'read', chat_id: dm })
  const second = await servers.group(ben, [anna, carl], 'Another')
  await servers.call('DELETE', `/chats/${first}/members/${ben.id}`, { as: anna })
  await servers.call('PATCH', `/chats/${second}/settings`, { as: anna, body: { pinned: true } })
  await Promise.all(Array.from({ length: 30 }, (_, n) => other.send(second, `${n}`)))
  // Cut off in the middle, it comes back and catches up.
  const { server } = servers.instances[0]!
  const cut = events.events.length
  server.app.server.closeAllConnections()
  await Promise.all(Array.from({ length: 10 }, (_, n) => other.send(second, `more ${n}`)))
  await vi.waitFor(() => expect(events.events.slice(cut).some((e) => e.type === 'ready')).toBe(true), 8_000)
  await other.send(second, 'the last')
  const fresh = servers.client(anna, { at: 1 })
  for (const client of clients) {
    await vi.waitFor(async () => {
      expect(client.state.chats.get(second)?.lastSeq).toBe(events.state.chats.get(second)?.lastSeq)
      await client.sync()
    }, 8_000)
  }
  await fresh.connect()
  for (const client of clients) expect(compare(client.state, fresh.state)).toEqual({ stamped: [], ticks: [] })
  expect(heard(clients[3]!, second)).toContain('the last')
  await expect(events.send(second, '')).rejects.toMatchObject({ code: 'invalid_input' })
  await expect(other.send(first, 'x')).rejects.toMatchObject({ code: 'chat_not_found' })
})
