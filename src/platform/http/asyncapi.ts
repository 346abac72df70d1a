import { z } from 'zod'
import { closeCodes } from '../../protocol/close-codes.ts'
import { commands } from '../../protocol/commands.ts'
import { errorCodes, errors } from '../../protocol/errors.ts'
import { serverEvents } from '../../protocol/events.ts'
import type { App } from './types.ts'

/** Describes the WebSocket as `openapi.ts` does REST: from the schemas that frames are checked against. */

export const asyncapiPath = '/api/v1/asyncapi.json'

type Json = Record<string, unknown>

const ref = (path: string) => ({ $ref: `#/${path}` })
const title = (type: string) => type.replaceAll('_', ' ').replaceAll(':', ' ')
/** Names in a document know no colon. */
const nameOf = (type: string) => type.replaceAll(':', '_')

/** The schema of a frame; the named schemas within go to `shared`. */
function schemaOf(schema: z.ZodType, io: 'input' | 'output', shared: Json): Json {
  const made = z.toJSONSchema(schema, {
    target: 'draft-7',
    io,
    // A client has to bear fields that a newer server adds; the server refuses what it does not know.
    override: ({ jsonSchema }) => {
      if (io === 'output') delete jsonSchema.additionalProperties
    },
  })
  const {
    $schema: _,
    definitions = {},
    ...rest
  } = JSON.parse(JSON.stringify(made).replaceAll('"#/definitions/', '"#/components/schemas/')) as Json
  Object.assign(shared, definitions)
  return rest
}

function message(type: string, payload: Json): Json {
  const { description, ...schema } = payload
  return { name: type, title: title(type), summary: description, payload: schema }
}

const table = (head: string, rows: string[]) => `| ${head} |\n| ${head.replaceAll(/[^|]+/g, ' --- ')} |\n${rows.join('\n')}`

function describe(): string {
  const closes = Object.values(closeCodes).map(([code, why, client]) => `| ${code} | ${why} | ${client.replace('_', ' ')} |`)
  return [
    'Text frames, one JSON object each, at most 64 KiB. Sign in by `?token=…`, or by a first frame `auth` within 5 s.',
    'A command may carry `id`: its `ack` or `error` repeats it. Without one only errors are answered.',
    'The server pings every 25 s and drops a peer that is silent for 60 s. Unknown types and fields of events are to be ignored.',
    'Where no WebSocket passes, `GET /api/v1/events` streams the same events, and REST takes the commands.',
    `The server closes with:\n\n${table('code | why | what the client does', closes)}`,
  ].join('\n\n')
}

/** AsyncAPI 3.0, from the server's point of view: it receives commands and sends events. */
export function asyncapi(version: string, publicUrl?: string): Json {
  const schemas: Json = {}
  const messages: Json = {}
  const operations: Json = {}
  const channel = ref('channels/socket')
  const inChannel = (type: string) => ref(`channels/socket/messages/${nameOf(type)}`)

  for (const [type, schema] of Object.entries(commands)) {
    messages[nameOf(type)] = message(type, schemaOf(schema, 'input', schemas))
    // `auth` and `sync` are answered like all others; `ping` has an answer of its own.
    const answers = type === 'ping' ? ['pong', 'error'] : ['ack', 'error']
    operations[`receive_${nameOf(type)}`] = {
      action: 'receive',
      channel,
      title: title(type),
      messages: [inChannel(type)],
      reply: { channel, messages: answers.map((answer) => inChannel(`event.${answer}`)) },
    }
  }
  for (const [type, schema] of Object.entries(serverEvents)) {
    const name = `event.${nameOf(type)}`
    messages[name] = message(type, schemaOf(schema, 'output', schemas))
    operations[`send_${nameOf(type)}`] = { action: 'send', channel, title: title(type), messages: [inChannel(name)] }
  }
  const error = (messages['event.error'] as { payload: { properties: { code: Json } }; description?: string }) ?? {}
  error.payload.properties.code.enum = errorCodes
  error.description = table(
    'code | meaning',
    errorCodes.map((code) => `| \`${code}\` | ${errors[code][1]} |`),
  )

  const at = publicUrl === undefined ? undefined : new URL(publicUrl)
  return {
    asyncapi: '3.0.0',
    info: {
      title: 'Parley',
      version,
      license: { name: 'MIT' },
      description:
        'The WebSocket of a self-hosted messenger: commands to the server, events from it. REST is described by OpenAPI.',
    },
    defaultContentType: 'application/json',
    servers: {
      here: at
        ? { host: at.host, protocol: at.protocol === 'https:' ? 'wss' : 'ws', description: 'This server' }
        : {
            host: '{host}',
            protocol: 'ws',
            description: 'This server',
            variables: {
              host: { default: 'localhost:8080', description: 'Where the server is reached; by https the protocol is wss' },
            },
          },
    },
    channels: {
      socket: {
        address: '/ws',
        title: 'The live connection',
        description: describe(),
        servers: [ref('servers/here')],
        messages: Object.fromEntries(Object.keys(messages).map((name) => [name, ref(`components/messages/${name}`)])),
        bindings: {
          ws: {
            method: 'GET',
            query: { type: 'object', properties: { token: { type: 'string', description: 'An access token' } } },
            bindingVersion: '0.1.0',
          },
        },
        'x-close-codes': Object.fromEntries(
          Object.entries(closeCodes).map(([name, [code, reason, client]]) => [name, { code, reason, client }]),
        ),
      },
    },
    operations,
    components: { messages, schemas },
  }
}

export function addAsyncApi(app: App, version: string, publicUrl?: string): void {
  let text: string | undefined
  app.route({
    method: 'GET',
    url: asyncapiPath,
    config: { public: true, rateLimit: false },
    logLevel: 'warn',
    handler: async (_request, reply) => {
      text ??= JSON.stringify(asyncapi(version, publicUrl))
      return reply.header('Content-Type', 'application/json; charset=utf-8').header('Cache-Control', 'no-cache').send(text)
    },
  })
}
