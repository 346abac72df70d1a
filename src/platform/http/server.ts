import { randomUUID } from 'node:crypto'
import type { Socket } from 'node:net'
import cors from '@fastify/cors'
import helmet from '@fastify/helmet'
import Fastify, { type FastifyBaseLogger, LogController } from 'fastify'
import type { ZodTypeProvider } from 'fastify-type-provider-zod'
import { AppError } from '../errors.ts'
import type { Authenticate } from '../identity.ts'
import type { LimitRule, Limits } from '../limits/limits.ts'
import type { Log } from '../log.ts'
import type { Metrics } from '../metrics.ts'
import { addAccess } from './access.ts'
import { addInput } from './body.ts'
import { answerClientError, answerError } from './errors.ts'
import { addOpenApi } from './openapi.ts'
import type { App } from './types.ts'

/** Bytes of a request's body; uploads have a bound of their own. */
export const maxBodyBytes = 1_048_576

export interface HttpServerOptions {
  config: {
    trustProxy: boolean | number | string[]
    corsOrigins: readonly string[]
    publicUrl?: string | undefined
    limits: { general: LimitRule; premium: LimitRule }
  }
  version: string
  log: Log
  authenticate: Authenticate
  limits: Limits
  metrics: Metrics
}

/**
 * The HTTP side, ready for modules to register their routes: one form of errors, tokens, limits, request ids, one log line a
 * request, and documents made from the schemas.
 */
export async function createHttpServer(options: HttpServerOptions): Promise<App> {
  const { config, log, metrics } = options
  const { trustProxy } = config
  const app: App = Fastify({
    loggerInstance: log as FastifyBaseLogger,
    logController: new LogController({ disableRequestLogging: true, requestIdLogLabel: 'request_id' }),
    genReqId: ({ headers }) => plainId(headers['x-request-id']) ?? randomUUID(),
    // Which of the forwarding addresses to believe: the number counts hops from this server.
    trustProxy: typeof trustProxy === 'number' ? (_address: string, hop: number) => hop < trustProxy : trustProxy,
    bodyLimit: maxBodyBytes,
    // Some clients offer HTTP/2 with their first request (`Upgrade: h2c`): an offer may be ignored, a WebSocket may not.
    http: { shouldUpgradeCallback: ({ headers }) => headers.upgrade?.toLowerCase() === 'websocket' },
    // For a large upload over a slow line; headers have Node's own minute.
    requestTimeout: 600_000,
    // While closing, what is under way and what comes on its connection is still answered, then the connection ends.
    return503OnClosing: false,
    clientErrorHandler: (error, socket) => answerClientError(error, socket as Socket),
    frameworkErrors: (error, request, reply) => void answerError(error, request, reply.header('X-Request-Id', request.id)),
  }).withTypeProvider<ZodTypeProvider>()

  app.addHook('onRequest', async (request, reply) => {
    reply.header('X-Request-Id', request.id)
  })
  app.addHook('onResponse', async (request, reply) => {
    const { method, routeOptions } = request
    const route = routeOptions.url ?? 'unknown'
    const ms = reply.elapsedTime
    metrics.http.observe({ method, route, status: reply.statusCode }, ms / 1000)
    request.log.info({ method, route, status: reply.statusCode, ms: Math.round(ms * 10) / 10 }, 'request')
  })

  await addHeaders(app, config)
  addInput(app)
  addAccess(app, { authenticate: options.authenticate, limits: options.limits, rules: config.limits })
  app.setErrorHandler(answerError)
  app.setNotFoundHandler(async () => {
    throw new AppError('not_found')
  })
  await addOpenApi(app, options.version)
  return app
}

/** A caller may name its request, so long as the name is fit for a log and a header. */
function plainId(given: string | string[] | undefined): string | undefined {
  return typeof given === 'string' && /^[\w.-]{1,64}$/.test(given) ? given : undefined
}

async function addHeaders(app: App, { corsOrigins, publicUrl }: HttpServerOptions['config']): Promise<void> {
  const cross = corsOrigins.length > 0
  await app.register(helmet, {
    contentSecurityPolicy: {
      useDefaults: false,
      directives: {
        defaultSrc: ["'self'"],
        styleSrc: ["'self'", "'unsafe-inline'"],
        imgSrc: ["'self'", 'data:', 'blob:'],
        mediaSrc: ["'self'", 'blob:'],
        connectSrc: ["'self'", 'ws:', 'wss:'],
        objectSrc: ["'none'"],
        baseUri: ["'none'"],
        formAction: ["'self'"],
        frameAncestors: ["'none'"],
      },
    },
    crossOriginResourcePolicy: { policy: cross ? 'cross-origin' : 'same-origin' },
    // Promised only where the operator says that the server is reached by https, and for this name alone.
    strictTransportSecurity: publicUrl?.startsWith('https:') ? { maxAge: 15_552_000, includeSubDomains: false } : false,
    xFrameOptions: { action: 'deny' },
    referrerPolicy: { policy: 'no-referrer' },
  })
  if (!cross) return
  await app.register(cors, {
    origin: corsOrigins.includes('*') ? '*' : [...corsOrigins],
    methods: ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'],
    exposedHeaders: ['RateLimit-Limit', 'RateLimit-Remaining', 'RateLimit-Reset', 'Retry-After', 'X-Request-Id'],
    maxAge: 600,
  })
}
