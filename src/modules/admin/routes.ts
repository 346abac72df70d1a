import type { FastifyRequest } from 'fastify'
import { AppError } from '../../platform/errors.ts'
import { answers, Done } from '../../platform/http/answers.ts'
import { baseUrl } from '../../platform/http/base-url.ts'
import type { App } from '../../platform/http/types.ts'
import { listInvites, makeInvite, revokeInvite } from '../auth/index.ts'
import type { AdminDeps } from './deps.ts'
import { InvitePath, InvitesQuery, NewServerInvite, ServerInvite, ServerInvites, Stats, UserPath } from './schema.ts'
import * as admin from './service.ts'
import { selectStats } from './store.ts'
import { inviteUrl } from './urls.ts'

const tags = ['admin']

/** Who did what to whom: operators look for it when something is not as it was. */
const log = ({ log, identity }: FastifyRequest, what: string, target: string) =>
  log.info({ admin: identity.user_id, target }, what)

/** Enough to find it in the list; with the whole code, whoever reads the log could register. */
const named = (code: string) => `${code.slice(0, 6)}…`

/** `/admin/…`: for admins of the server, whom the operator makes by command. */
export function adminRoutes(app: App, deps: AdminDeps, publicUrl: string | undefined): void {
  app.route({
    method: 'POST',
    url: '/admin/invites',
    schema: {
      tags,
      summary: 'Invite to this server',
      description:
        'A code for `invite_code` of registering. It works while `REGISTRATION` is `invite`, and is counted while it is `open`.',
      body: NewServerInvite,
      response: answers({ 201: ServerInvite }, ['forbidden']),
    },
    handler: async (request, reply) => {
      await admin.accessAsAdmin(deps, request.identity.user_id)
      const invite = await makeInvite(deps.db, request.identity.user_id, request.body)
      log(request, 'an admin invited to the server', named(invite.code))
      reply.code(201)
      return { ...invite, url: inviteUrl(baseUrl(request, publicUrl), invite.code) }
    },
  })

  app.route({
    method: 'GET',
    url: '/admin/invites',
    schema: {
      tags,
      summary: 'Invitations to this server, the newest first',
      description: 'Those that are over, too, until a month after they expired or were taken back.',
      querystring: InvitesQuery,
      response: answers({ 200: ServerInvites }, ['forbidden']),
    },
    handler: async (request) => {
      await admin.accessAsAdmin(deps, request.identity.user_id)
      const { invites, ...page } = await listInvites(deps.db, request.query)
      return {
        ...page,
        invites: invites.map((invite) => ({ ...invite, url: inviteUrl(baseUrl(request, publicUrl), invite.code) })),
      }
    },
  })

  app.route({
    method: 'DELETE',
    url: '/admin/invites/:code',
    schema: {
      tags,
      summary: 'Take an invitation back',
      description: 'Accounts that were made by it stay.',
      params: InvitePath,
      response: answers({ 200: Done }, ['forbidden', 'invite_not_found']),
    },
    handler: async (request) => {
      const { identity, params } = request
      await admin.accessAsAdmin(deps, identity.user_id)
      await revokeInvite(deps.db, params.code)
      log(request, 'an admin took an invitation back', named(params.code))
      return { message: 'Invitation taken back' }
    },
  })

  app.route({
    method: 'GET',
    url: '/admin/stats',
    schema: { tags, summary: 'How much there is on this server', response: answers({ 200: Stats }, ['forbidden']) },
    handler: async ({ identity }) => {
      await admin.accessAsAdmin(deps, identity.user_id)
      return selectStats(deps.db)
    },
  })

  app.route({
    method: 'POST',
    url: '/admin/users/:id/disable',
    schema: {
      tags,
      summary: 'Disable an account',
      description:
        'Ends all its sessions and refuses new ones; profile, chats and messages stay, and messages still reach it. Oneself is `forbidden`.',
      params: UserPath,
      response: answers({ 200: Done }, ['forbidden', 'user_not_found']),
    },
    handler: async (request) => {
      const { identity, params } = request
      await admin.accessAsAdmin(deps, identity.user_id)
      // The last admin would have locked everybody out.
      if (params.id === identity.user_id) throw new AppError('forbidden')
      await admin.setDisabled(deps, params.id, true)
      log(request, 'an admin disabled an account', params.id)
      return { message: 'Account disabled' }
    },
  })

  app.route({
    method: 'POST',
    url: '/admin/users/:id/enable',
    schema: {
      tags,
      summary: 'Enable an account again',
      params: UserPath,
      response: answers({ 200: Done }, ['forbidden', 'user_not_found']),
    },
    handler: async (request) => {
      const { identity, params } = request
      await admin.accessAsAdmin(deps, identity.user_id)
      await admin.setDisabled(deps, params.id, false)
      log(request, 'an admin enabled an account', params.id)
      return { message: 'Account enabled' }
    },
  })
}
