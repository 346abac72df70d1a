import { Writable } from 'node:stream'
import type { LightMyRequestResponse } from 'fastify'
import { afterAll, afterEach, beforeAll, expect, vi } from 'vitest'
import {
  type AuthDeps,
  authRoutes,
  checkCode,
  createAuth,
  createAuthenticator,
  createKeys,
  endSessionsOf,
  useCode,
  wellKnownRoutes,
} from '../../src/modules/auth/index.ts'
import { healthRoutes } from '../../src/modules/health/index.ts'
import { createBriefCache, type UserStamped, type UsersDeps, usersRoutes } from '../../src/modules/users/index.ts'
import { createMemoryBus } from '../../src/platform/bus/memory.ts'
import { type ControlNews, createControl } from '../../src/platform/control.ts'
import { openDb } from '../../src/platform/db/db.ts'
import { migrate } from '../../src/platform/db/migrate.ts'
import { ErrorAnswer } from '../../src/platform/http/answers.ts'
import { createHttpServer } from '../../src/platform/http/server.ts'
import type { App } from '../../src/platform/http/types.ts'
import { createMemoryLimits } from '../../src/platform/limits/memory.ts'
import { createLog } from '../../src/platform/log.ts'
import { createMetrics } from '../../src/platform/metrics.ts'
import { createPasswords } from '../../src/platform/passwords.ts'
import { createDatabase } from './services.ts'

/** Accounts and profiles on a database of their own, without chats: what is under test here, and nothing above it. */

export type Answer = LightMyRequestResponse
// What an answer holds is what the test is about to check.
// biome-ignore lint/suspicious/noExplicitAny: see above
export type Body = any

export interface HarnessOptions {
  auth?: Partial<AuthDeps['config']>
  general?: { points: number; windowMs: number } | null
  privateKey?: string
  metricsToken?: string
  corsOrigins?: string[]
  /** More routes, under `/api/v1`. */
  routes?: (app: App) => Promise<void>
  users?: Partial<UsersDeps>
}

export type Harness = Awaited<ReturnType<typeof startHarness>>

export async function startHarness(options: HarnessOptions = {}) {
  const database = await createDatabase()
  const connection = { connectionString: database.url }
  await migrate(connection)
  const db = openDb({ connection, poolSize: 8, onError: () => {} })
  const bus = createMemoryBus()
  const control = createControl(bus, 'test')
  const news: ControlNews[] = []
  control.on((heard) => news.push(heard))
  const lines: string[] = []
  const log = createLog(
    'trace',
    new Writable({
      write(chunk, _encoding, done) {
        lines.push(String(chunk))
        done()
      },
    }),
  )
  const limits = createMemoryLimits()
  const metrics = createMetrics()
  const passwords = createPasswords({ cost: 4 })
  const keys = createKeys({
    secret: options.privateKey ? undefined : 'a secret for tests that is long enough',
    privateKey: options.privateKey,
    accessTokenTtlMs: options.auth?.accessTokenTtlMs ?? 3_600_000,
  })
  const authenticator = createAuthenticator({ db, keys, bus, control, onError: (error) => log.error({ err: error }, 'sessions') })
  const app = await createHttpServer({
    config: {
      trustProxy: 1,
      corsOrigins: options.corsOrigins ?? [],
      limits: { general: options.general ?? null, premium: { points: 1_000, windowMs: 60_000 } },
    },
    version: '0.0.0-test',
    log,
    authenticate: authenticator.authenticate,
    limits,
    metrics,
  })
  const auth = createAuth({
    db,
    control,
    limits,
    passwords,
    keys,
    metrics,
    sender: { send: async () => {} },
    tellMe: (userId, version, me) => users.tellUser(userId, { version, prev: version - 1, event: { type: 'me_updated', me } }),
    config: {
      accessTokenTtlMs: 3_600_000,
      refreshTokenTtlMs: 30 * 86_400_000,
      registration: 'open',
      limits: {
        login: { points: 5, windowMs: 900_000 },
        loginAccount: { points: 50, windowMs: 900_000 },
        register: null,
        otp: null,
        otpAddress: null,
      },
      ...options.auth,
    },
  })
  const told: { userId: string; stamped: UserStamped }[] = []
  const users: UsersDeps = {
    db,
    control,
    limits,
    passwords,
    briefCache: createBriefCache(control),
    codes: { check: (phone, code) => checkCode(auth, phone, code), use: useCode },
    passwordRule: { points: 5, windowMs: 900_000 },
    relations: async () => new Map(),
    online: async () => new Set(),
    tellUser: (userId, stamped) => told.push({ userId, stamped }),
    endSessions: endSessionsOf,
    onDeleted: async () => {},
    ...options.users,
  }
  await app.register(
    async (api: App) => {
      await authRoutes(api, auth)
      await usersRoutes(api, users)
      await options.routes?.(api)
    },
    { prefix: '/api/v1' },
  )
  await healthRoutes(app, {
    db,
    redis: 'in-process',
    metrics,
    metricsToken: options.metricsToken,
    version: '0.0.0-test',
    startedAt: Date.now(),
  })
  await wellKnownRoutes(app, keys)
  await app.ready()

  /** A call under `/api/v1`, as whom `token` says and from `ip`. */
  async function call(
    method: 'GET' | 'POST' | 'PATCH' | 'DELETE',
    path: string,
    body?: unknown,
    token?: string,
    ip?: string,
  ): Promise<Answer> {
    return app.inject({
      method,
      url: `/api/v1${path}`,
      ...(body !== undefined && { payload: body as object }),
      headers: { ...(token && { authorization: `Bearer ${token}` }), ...(ip && { 'x-forwarded-for': ip }) },
    })
  }

  /** A new account; rejects unless it is made. */
  async function person(username: string, more: object = {}): Promise<Body> {
    const answer = await call('POST', '/auth/register', { username, password: 'Passw0rd', ...more })
    if (answer.statusCode !== 201) throw new Error(answer.payload)
    return answer.json()
  }

  async function stop(): Promise<void> {
    await app.close()
    await authenticator.close()
    await limits.close()
    await bus.close()
    await db.close()
    await database.drop()
  }

  return { app, db, bus, control, news, lines, authenticator, keys, told, users, metrics, call, person, stop }
}

/** Every refusal has the one form, and the id of its request. */
export function refused(answer: Answer, status: number, code: string): Body {
  expect([answer.statusCode, answer.json().code], answer.payload).toEqual([status, code])
  expect(answer.headers['content-type']).toBe('application/json; charset=utf-8')
  const body = ErrorAnswer.strict().parse(answer.json())
  expect(body.request_id).toBe(answer.headers['x-request-id'])
  return body
}

/** For the tests of one file: there before the first, gone after the last. */
export function useHarness(): Harness {
  const h = {} as Harness
  beforeAll(async () => {
    Object.assign(h, await startHarness())
  })
  afterAll(() => h.stop())
  afterEach(() => {
    vi.restoreAllMocks()
  })
  return h
}

/** Names that nobody has yet in this file. */
export function newName(): () => string {
  let count = 0
  return () => `person_${++count}`
}
