import sjson from 'secure-json-parse'
import { z } from 'zod'
import { AppError } from '../errors.ts'
import { parseInput } from '../input.ts'
import type { App } from './types.ts'

const utf8 = new TextDecoder('utf-8', { fatal: true })
const nothing = z.strictObject({})
const withBody = new Set(['POST', 'PUT', 'PATCH', 'DELETE'])

/** JSON without keys that would reach into prototypes. No bytes at all are `{}`. Throws `malformed_body`. */
export function parseJson(bytes: Buffer): unknown {
  if (bytes.length === 0) return {}
  try {
    return sjson.parse(utf8.decode(bytes), undefined, { protoAction: 'error', constructorAction: 'error' })
  } catch (cause) {
    throw new AppError('malformed_body', { cause })
  }
}

/** Input is JSON, and checked by zod; fields that a route does not know are refused, in the query as well. */
export function addInput(app: App): void {
  app.removeAllContentTypeParsers()
  app.addContentTypeParser<Buffer>('application/json', { parseAs: 'buffer' }, (_request, bytes, done) => {
    try {
      done(null, parseJson(bytes))
    } catch (error) {
      done(error as Error)
    }
  })

  // What has no body needs no content type, so a wrong one is no reason to refuse it.
  app.addHook('onRequest', async ({ headers }) => {
    if (headers['transfer-encoding'] === undefined && (headers['content-length'] ?? '0') === '0') delete headers['content-type']
  })
  app.addHook('preValidation', async (request) => {
    if (request.body === undefined) request.body = {}
  })

  app.addHook('onRoute', (route) => {
    if (!route.url.startsWith('/api/')) return
    const methods = [route.method].flat()
    route.schema = {
      ...(methods.some((method) => withBody.has(method)) && !route.config?.upload && { body: nothing }),
      querystring: nothing,
      ...route.schema,
    }
  })

  const names: Record<string, string> = { body: 'body', querystring: 'query', params: 'path', headers: 'headers' }
  app.setValidatorCompiler<z.ZodType>(({ schema, httpPart = 'body' }) => (data: unknown) => {
    try {
      return { value: parseInput(schema, data, names[httpPart]) }
    } catch (error) {
      return { error: error as Error }
    }
  })
  app.setSerializerCompiler(() => (data) => JSON.stringify(data))
}
