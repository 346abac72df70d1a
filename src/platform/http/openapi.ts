import { createHash } from 'node:crypto'
import swagger from '@fastify/swagger'
import scalar from '@scalar/fastify-api-reference'
import { jsonSchemaTransform, jsonSchemaTransformObject } from 'fastify-type-provider-zod'
import { z } from 'zod'
import { errors } from '../../protocol/errors.ts'
import type { App } from './types.ts'

export const openapiPath = '/api/v1/openapi.json'

const tags = [
  { name: 'auth', description: 'Accounts, sessions and tokens' },
  { name: 'users', description: 'Profiles' },
  { name: 'chats', description: 'Direct chats, groups and their members' },
  { name: 'channels', description: 'Channels, their directory, slugs and invite links' },
  { name: 'media', description: 'Pictures, and the links to them' },
  { name: 'messages', description: 'Messages, history and cursors' },
  { name: 'admin', description: 'For admins of the server: invitations, accounts, numbers' },
  { name: 'sync', description: 'Catching up' },
  { name: 'events', description: 'The live connection, where a WebSocket is not to be had' },
  { name: 'operations', description: 'Health and metrics' },
]

interface Documented {
  components?: { schemas?: Record<string, unknown> }
}

function refsIn(value: unknown): string[] {
  return Array.from(JSON.stringify(value).matchAll(/"#\/components\/schemas\/([^"]+)"/g), (match) => match[1]!)
}

/**
 * The schemas come twice, as input (`ThingInput`) and as output; what nothing refers to is dropped, and an input that has no
 * twin left takes the plain name.
 */
export function tidy<T extends object>(document: T): T {
  const { components, ...rest } = document as Documented
  const all = components?.schemas ?? {}
  const used = new Set<string>()
  const add = (name: string) => {
    if (used.has(name) || !(name in all)) return
    used.add(name)
    refsIn(all[name]).forEach(add)
  }
  refsIn(rest).forEach(add)
  const names = new Map(
    Array.from(used, (name) => {
      const plain = name.replace(/Input$/, '')
      return [name, used.has(plain) ? name : plain]
    }),
  )
  const schemas = Object.fromEntries(
    Array.from(names, ([name, as]) => [as, all[name]] as const).sort(([a], [b]) => (a < b ? -1 : 1)),
  )
  return JSON.parse(
    // Where a number is written as text (a query), the pattern of the text is nothing that a number could have.
    JSON.stringify({ ...rest, components: { ...components, schemas } }, (_, value) =>
      value?.type === 'integer' && 'pattern' in value ? { ...value, pattern: undefined } : value,
    )
      .replaceAll('"description":"Default Response"', '"description":"Done"')
      .replace(/"#\/components\/schemas\/([^"]+)"/g, (_, name: string) => `"#/components/schemas/${names.get(name) ?? name}"`),
  ) as T
}

interface Operation {
  requestBody?: {
    required?: boolean
    content: Record<string, { schema: { $ref?: string; properties?: object; required?: string[] } }>
  }
  responses: Record<string, object>
}

/** What the generated document does not say by itself: which bodies may be left out, and how bodies as such are refused. */
export function completeBodies<T extends object>(document: T): T {
  const { paths = {}, components } = document as Documented & { paths?: Record<string, Record<string, Operation>> }
  for (const operation of Object.values(paths).flatMap((methods) => Object.values(methods))) {
    const { content } = operation.requestBody ?? {}
    const given = (content?.['application/json'] ?? content?.['multipart/form-data'])?.schema
    if (!operation.requestBody || !given) continue
    const name = given.$ref?.split('/').at(-1)
    const schema = (name === undefined ? given : components?.schemas?.[name]) as typeof given
    if (schema.properties && Object.keys(schema.properties).length === 0) {
      delete operation.requestBody
      continue
    }
    // No body is `{}`.
    if (schema.properties) operation.requestBody.required = (schema.required ?? []).length > 0
    for (const code of ['body_too_large', 'unsupported_media_type'] as const) {
      operation.responses[errors[code][0]] ??= {
        description: `\`${code}\``,
        content: { 'application/json': { schema: { $ref: '#/components/schemas/Error' } } },
      }
    }
  }
  return document
}

const form = z.object({ file: z.string().meta({ format: 'binary' }) })

/** Describes every route that is registered afterwards, at `openapiPath` and browsable at `/docs`. */
export async function addOpenApi(app: App, version: string): Promise<void> {
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Parley',
        version,
        license: { name: 'MIT', identifier: 'MIT' },
        description:
          'The REST interface of a self-hosted messenger. Errors have one form (`Error`); ids are UUIDs, times RFC 3339 in UTC. ' +
          'Events come over the WebSocket at `/ws`, or as a stream from `GET /api/v1/events`.',
      },
      servers: [{ url: '/', description: 'This server' }],
      tags,
      components: { securitySchemes: { bearerAuth: { type: 'http', scheme: 'bearer', bearerFormat: 'JWT' } } },
      security: [{ bearerAuth: [] }],
    },
    transform: (document) => {
      // The documentation covers what is meant for callers: described routes alone.
      const { schema, url, route } = document
      if (!schema?.summary) return { schema: { ...schema, hide: true }, url }
      const described = {
        ...schema,
        ...(route.config?.public && { security: schema.security ?? [] }),
        ...(route.config?.upload && { consumes: ['multipart/form-data'], body: form }),
      }
      return jsonSchemaTransform({ ...document, schema: described })
    },
    transformObject: (document) => completeBodies(tidy(jsonSchemaTransformObject(document))),
  })

  let text: string | undefined
  app.route({
    method: 'GET',
    url: openapiPath,
    config: { public: true, rateLimit: false },
    logLevel: 'warn',
    handler: async (_request, reply) => {
      text ??= JSON.stringify(app.swagger())
      return reply.header('Content-Type', 'application/json; charset=utf-8').header('Cache-Control', 'no-cache').send(text)
    },
  })

  await app.register(async (docs) => {
    docs.addHook('onRoute', (route) => {
      route.config = { ...route.config, public: true, rateLimit: false }
    })
    // The page holds one inline script, which is the same each time: it is allowed by its hash, nothing else is.
    docs.addHook('onSend', async (_request, reply, payload) => {
      if (typeof payload !== 'string' || !String(reply.getHeader('content-type')).startsWith('text/html')) return payload
      const hashes = Array.from(
        payload.matchAll(/<script(?![^>]*\ssrc=)[^>]*>([\s\S]*?)<\/script>/g),
        (match) => `'sha256-${createHash('sha256').update(match[1]!).digest('base64')}'`,
      )
      reply.header(
        'Content-Security-Policy',
        `default-src 'none'; script-src 'self' ${hashes.join(' ')}; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`,
      )
      return payload
    })
    await docs.register(scalar, {
      routePrefix: '/docs',
      logLevel: 'warn',
      configuration: {
        url: openapiPath,
        pageTitle: 'Parley API',
        withDefaultFonts: false,
        telemetry: false,
        hideClientButton: true,
        showDeveloperTools: 'never',
        agent: { disabled: true },
        mcp: { disabled: true },
      },
    })
  })
}
