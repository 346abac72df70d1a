import type { FastifyRequest } from 'fastify'
import { answers, Done } from '../../platform/http/answers.ts'
import type { App } from '../../platform/http/types.ts'
import type { AuthDeps, Client } from './deps.ts'
import type { Keys } from './keys.ts'
import { Login, Refresh, Registration, SessionPath, Sessions, SignedIn, Tokens, Verified } from './schema.ts'
import * as auth from './service.ts'
import * as sessions from './sessions.ts'

const tags = ['auth']
const config = { public: true }

const maxDeviceLength = 200

/** The User-Agent is shown to the user later: short, and nothing that a terminal or a database would stumble over. */
function clientOf({ ip, headers }: FastifyRequest): Client {
  const device = (headers['user-agent'] ?? '')
    .toWellFormed()
    .replace(/[\s\p{Cc}\p{Cf}]+/gu, ' ')
    .trim()
  return { ip, device: device.slice(0, maxDeviceLength).toWellFormed() }
}

/** `/auth/…` */
export async function authRoutes(app: App, deps: AuthDeps): Promise<void> {
  app.route({
    method: 'POST',
    url: '/auth/register',
    config,
    schema: {
      tags,
      summary: 'Make an account',
      description: 'Needs at least one of username, phone and email.',
      body: Registration,
      response: answers(
        { 201: SignedIn },
        ['registration_closed', 'username_taken', 'phone_taken', 'email_taken', 'overloaded'],
        config,
      ),
    },
    handler: async (request, reply) => {
      reply.code(201)
      return auth.register(deps, request.body, clientOf(request))
    },
  })

  app.route({
    method: 'POST',
    url: '/auth/login',
    config,
    schema: {
      tags,
      summary: 'Sign in',
      description: 'Too many wrong passwords for an account are answered with 429 for a while, right ones too.',
      body: Login,
      response: answers({ 200: SignedIn }, ['invalid_credentials', 'overloaded'], config),
    },
    handler: (request) => auth.login(deps, request.body, clientOf(request)),
  })

  app.route({
    method: 'POST',
    url: '/auth/refresh',
    config,
    schema: {
      tags,
      summary: 'Exchange a refresh token for new tokens',
      description: 'An older refresh token than the last one ends the session everywhere.',
      body: Refresh,
      response: answers({ 200: Tokens }, ['invalid_refresh_token', 'refresh_token_reused', 'session_ended'], config),
    },
    handler: (request) => sessions.refresh(deps, request.body.refresh_token, clientOf(request)),
  })

  app.route({
    method: 'POST',
    url: '/auth/logout',
    schema: { tags, summary: 'End this session', response: answers({ 200: Done }) },
    handler: async ({ identity }) => {
      await sessions.logout(deps, identity)
      return { message: 'Signed out' }
    },
  })

  app.route({
    method: 'POST',
    url: '/auth/logout-all',
    schema: { tags, summary: 'End all my sessions, this one too', response: answers({ 200: Done }) },
    handler: async ({ identity }) => {
      await sessions.logoutAll(deps, identity)
      return { message: 'Signed out everywhere' }
    },
  })

  app.route({
    method: 'GET',
    url: '/auth/verify',
    schema: { tags, summary: 'Whose token this is, and how long', response: answers({ 200: Verified }, ['user_not_found']) },
    handler: ({ identity }) => auth.verify(deps, identity),
  })

  app.route({
    method: 'GET',
    url: '/auth/sessions',
    schema: { tags, summary: 'My devices', response: answers({ 200: Sessions }) },
    handler: async ({ identity }) => ({ sessions: await sessions.listSessions(deps, identity) }),
  })

  app.route({
    method: 'DELETE',
    url: '/auth/sessions/:id',
    schema: {
      tags,
      summary: 'End one of my sessions',
      params: SessionPath,
      response: answers({ 200: Done }, ['session_not_found']),
    },
    handler: async ({ identity, params }) => {
      await sessions.endSession(deps, identity, params.id)
      return { message: 'Session ended' }
    },
  })
}

/** `/.well-known/jwks.json`, at the root: how others check our tokens. Only where they are signed with a private key. */
export async function wellKnownRoutes(app: App, { jwks }: Pick<Keys, 'jwks'>): Promise<void> {
  if (!jwks) return
  app.route({
    method: 'GET',
    url: '/.well-known/jwks.json',
    config: { public: true, rateLimit: false },
    handler: async (_request, reply) => {
      reply.header('Cache-Control', 'public, max-age=3600')
      return jwks
    },
  })
}
