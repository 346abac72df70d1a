import { answers, Done } from '../../platform/http/answers.ts'
import type { App } from '../../platform/http/types.ts'
import { clientOf } from './client.ts'
import { codeRoutes } from './code-routes.ts'
import type { AuthDeps } from './deps.ts'
import type { Keys } from './keys.ts'
import { Login, Refresh, Registration, SessionPath, Sessions, SignedIn, Tokens, Verified } from './schema.ts'
import * as auth from './service.ts'
import * as sessions from './sessions.ts'

const tags = ['auth']
const config = { public: true }

/** `/auth/…` */
export async function authRoutes(app: App, deps: AuthDeps): Promise<void> {
  app.route({
    method: 'POST',
    url: '/auth/register',
    config,
    schema: {
      tags,
      summary: 'Make an account',
      description:
        'Needs at least one of username, phone and email; where registration is by invitation, an `invite_code` too. What is refused uses none of its uses.',
      body: Registration,
      response: answers(
        { 201: SignedIn },
        [
          'registration_closed',
          'invite_required',
          'invalid_invite',
          'username_taken',
          'phone_taken',
          'email_taken',
          'overloaded',
        ],
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
      response: answers({ 200: SignedIn }, ['invalid_credentials', 'account_disabled', 'overloaded'], config),
    },
    handler: (request) => auth.login(deps, request.body, clientOf(request)),
  })

  codeRoutes(app, deps)

  app.route({
    method: 'POST',
    url: '/auth/refresh',
    config,
    schema: {
      tags,
      summary: 'Exchange a refresh token for new tokens',
      description: 'An older refresh token than the last one ends the session everywhere.',
      body: Refresh,
      response: answers(
        { 200: Tokens },
        ['invalid_refresh_token', 'refresh_token_reused', 'session_ended', 'account_disabled'],
        config,
      ),
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
