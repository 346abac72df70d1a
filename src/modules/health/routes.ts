import { createHash, timingSafeEqual } from 'node:crypto'
import type { FastifyRequest } from 'fastify'
import { z } from 'zod'
import type { Queryable } from '../../platform/db/db.ts'
import { AppError } from '../../platform/errors.ts'
import { bearerToken } from '../../platform/http/access.ts'
import { answers } from '../../platform/http/answers.ts'
import type { App } from '../../platform/http/types.ts'
import type { Metrics } from '../../platform/metrics.ts'
import { databaseCheck } from './checks.ts'

export interface HealthDeps {
  db: Queryable
  /** Whether Redis answers; `in-process` where there is none. */
  redis: 'in-process' | (() => boolean)
  metrics: Metrics
  metricsToken: string | undefined
  version: string
  /** Milliseconds since 1970 at which this process started to serve. */
  startedAt: number
}

const Health = z
  .object({
    status: z.enum(['ok', 'degraded', 'unavailable']),
    timestamp: z.number().int().describe('Unix seconds'),
    service: z.literal('messenger-api'),
    version: z.string(),
    uptime: z.number().int().describe('Seconds'),
    services: z.object({
      database: z.enum(['connected', 'disconnected']),
      redis: z.enum(['connected', 'disconnected', 'in-process']),
      websocket: z.literal('running'),
    }),
  })
  .meta({ id: 'Health' })

const Alive = z.object({ status: z.literal('ok') }).meta({ id: 'Alive' })

const open = { public: true, rateLimit: false } as const

/** `/health`, `/health/live` and `/metrics`: at the root, not under the API's prefix. */
export async function healthRoutes(app: App, deps: HealthDeps): Promise<void> {
  const isDatabaseAlive = databaseCheck(deps.db)

  app.route({
    method: 'GET',
    url: '/health',
    config: open,
    logLevel: 'warn',
    schema: {
      tags: ['operations'],
      summary: 'Can this server do its work?',
      description: '`degraded` when only Redis is away, `unavailable` (503) when the database cannot be reached.',
      response: answers({ 200: Health, 503: Health }, [], { public: true }),
    },
    handler: async (_request, reply) => {
      const database = await isDatabaseAlive()
      const redis = deps.redis === 'in-process' ? deps.redis : deps.redis() ? 'connected' : 'disconnected'
      const status = !database ? 'unavailable' : redis === 'disconnected' ? 'degraded' : 'ok'
      reply.code(database ? 200 : 503).header('Cache-Control', 'no-store')
      return {
        status,
        timestamp: Math.floor(Date.now() / 1000),
        service: 'messenger-api',
        version: deps.version,
        uptime: Math.floor((Date.now() - deps.startedAt) / 1000),
        services: { database: database ? 'connected' : 'disconnected', redis, websocket: 'running' },
      } as const
    },
  })

  app.route({
    method: 'GET',
    url: '/health/live',
    config: open,
    logLevel: 'warn',
    schema: {
      tags: ['operations'],
      summary: 'Does this process run?',
      response: answers({ 200: Alive }, [], { public: true }),
    },
    handler: async (_request, reply) => {
      reply.header('Cache-Control', 'no-store')
      return { status: 'ok' } as const
    },
  })

  app.route({
    method: 'GET',
    url: '/metrics',
    config: open,
    logLevel: 'warn',
    handler: async (request, reply) => {
      checkMayScrape(request, deps.metricsToken)
      return reply
        .header('Content-Type', deps.metrics.registry.contentType)
        .header('Cache-Control', 'no-store')
        .send(await deps.metrics.registry.metrics())
    },
  })
}

/** With a token whoever has it; without one a direct connection from this machine, which no proxy has passed on. */
function checkMayScrape(request: FastifyRequest, token: string | undefined): void {
  if (token !== undefined) {
    const given = bearerToken(request.headers.authorization)
    // Hashes are equally long, which the comparison needs.
    const [a, b] = [given, token].map((text) => createHash('sha256').update(text).digest())
    if (!timingSafeEqual(a!, b!)) throw new AppError('invalid_token')
    return
  }
  const forwarded = Object.keys(request.headers).some((name) => /^(forwarded|via|x-real-ip|x-forwarded-.*)$/.test(name))
  if (forwarded || !/^(127\.|::1$|::ffff:127\.)/.test(request.socket.remoteAddress ?? '')) throw new AppError('not_found')
}
