import { Parser } from '@asyncapi/parser'
import { Ajv } from 'ajv'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { asyncapi } from '../src/platform/http/asyncapi.ts'
import { closeCodes } from '../src/protocol/close-codes.ts'
import { commands } from '../src/protocol/commands.ts'
import { errorCodes } from '../src/protocol/errors.ts'
import { serverEvents } from '../src/protocol/events.ts'
import { type Account, startServers, type TestServers } from './support/server.ts'

/** The document of the WebSocket: valid, complete, and true of the frames that really come. */

type Json = Record<string, unknown>
interface Document extends Json {
  channels: { socket: { description: string; messages: Json; 'x-close-codes': Record<string, { code: number }> } }
  operations: Record<string, { action: string }>
  components: { messages: Record<string, { name: string; payload: Json & { properties: Record<string, Json> } }>; schemas: Json }
}

let servers: TestServers
let document: Document
beforeAll(async () => {
  servers = await startServers()
  const response = await fetch(`${servers.instances[0]!.url}/api/v1/asyncapi.json`)
  expect(response.status).toBe(200)
  expect(response.headers.get('content-type')).toContain('application/json')
  document = (await response.json()) as Document
})
afterAll(() => servers.close())

// Nothing is waited for here: how long it takes is the machine's affair.
test('is valid AsyncAPI, wherever the server is reached', async () => {
  const elsewhere = asyncapi('1.0.0', 'https://chat.example.org/')
  const { info, servers: here, ...rest } = document
  expect(elsewhere).toEqual({ ...rest, info: { ...(info as Json), version: '1.0.0' }, servers: expect.anything() })
  expect(elsewhere.servers).not.toEqual(here)
  // They differ in their servers alone: the rest is looked at once.
  const parser = new Parser()
  for (const given of [document, { ...elsewhere, channels: {}, operations: {}, components: {} }]) {
    const { document: parsed, diagnostics } = await parser.parse(JSON.stringify(given))
    const wrong = diagnostics.filter(({ severity, code }) => severity <= 1 && code !== 'asyncapi-latest-version')
    expect(wrong.map(({ message, path }) => `${path.join('.')}: ${message}`)).toEqual([])
    expect(parsed?.version()).toBe('3.0.0')
  }
}, 120_000)

test('has every command, every event, every way to close and every code', () => {
  const messages = Object.values(document.components.messages).map((message) => message.name)
  expect(messages.sort()).toEqual([...Object.keys(commands), ...Object.keys(serverEvents)].sort())
  const operations = Object.entries(document.operations).map(([name, { action }]) => `${action} ${name}`)
  expect(operations.filter((name) => name.startsWith('receive receive_'))).toHaveLength(Object.keys(commands).length)
  expect(operations.filter((name) => name.startsWith('send send_'))).toHaveLength(Object.keys(serverEvents).length)
  const codes = Object.values(document.channels.socket['x-close-codes']).map(({ code }) => code)
  expect(codes).toEqual(Object.values(closeCodes).map(([code]) => code))
  for (const code of codes) expect(document.channels.socket.description).toContain(`| ${code} |`)
  expect(document.components.messages['event.error']!.payload.properties.code!.enum).toEqual(errorCodes)
  // Nothing is referred to that is not there.
  for (const [, path] of JSON.stringify(document).matchAll(/"\$ref":"#\/([^"]+)"/g)) {
    const found = path!.split('/').reduce<unknown>((at, key) => (at as Json | undefined)?.[key], document)
    expect(found, path).toBeDefined()
  }
})

test('describes the frames that really come', async () => {
  const [anna, ben, carl] = (await Promise.all(['anna', 'ben', 'carl'].map((name) => servers.register(name)))) as [
    Account,
    Account,
    Account,
  ]
  const second = await servers.login(ben)
  const a = await servers.connect(anna)
  const b = await servers.connect(ben)
  const ending = await servers.connect(second)
  const chat_id = await servers.group(anna, [ben])
  await b.waitFor('chat_added', (event) => event.chat.id === chat_id)
  await b.sync()
  const sent = await a.send(chat_id, 'hello')
  await a.ask({ type: 'typing', chat_id })
  await a.ask({ type: 'join_chat', chat_id })
  await b.ask({ type: 'delivered', chat_id })
  await b.ask({ type: 'read', chat_id, seq: sent.seq })
  await servers.call('PATCH', `/chats/${chat_id}`, { as: anna, body: { name: 'Another' } })
  await servers.call('POST', `/chats/${chat_id}/members`, { as: anna, body: { user_ids: [carl.id] } })
  await servers.call('PATCH', '/users/me', { as: anna, body: { display_name: 'Anna' } })
  await servers.call('POST', '/auth/logout', { as: second })
  await servers.call('DELETE', `/chats/${chat_id}/members/${ben.id}`, { as: anna })
  b.raw('{"type":"ping"}')
  await Promise.all([b.waitFor('chat_removed'), b.waitFor('pong'), ending.waitFor('session_ended'), a.waitFor('member_left')])
  await Promise.all([a.waitFor('read'), b.waitFor('typing'), b.waitFor('chat_presence'), a.waitFor('me_updated')])

  const ajv = new Ajv({ strict: false, validateFormats: false })
  const validators = new Map(
    Object.values(document.components.messages).map(({ name, payload }) => [
      name,
      ajv.compile({ ...payload, components: { schemas: document.components.schemas } }),
    ]),
  )
  const seen = new Set<string>()
  for (const event of [...a.events, ...b.events, ...ending.events]) {
    const validate = validators.get(event.type)!
    expect(validate(event), `${event.type}: ${JSON.stringify(validate.errors)} ${JSON.stringify(event)}`).toBe(true)
    // Nor is anything told that the schema does not know.
    const strict = serverEvents[event.type].strict().safeParse(event)
    expect(strict.error?.issues ?? [], event.type).toEqual([])
    seen.add(event.type)
  }
  const common = ['ready', 'user_chats', 'new_message', 'typing', 'read', 'chat_added', 'chat_removed', 'chat_updated']
  expect([...seen]).toEqual(
    expect.arrayContaining([...common, 'member_joined', 'member_left', 'me_updated', 'pong', 'session_ended']),
  )
})
