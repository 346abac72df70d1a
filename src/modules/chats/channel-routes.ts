import type { FastifyRequest } from 'fastify'
import { answers, Done } from '../../platform/http/answers.ts'
import { baseUrl } from '../../platform/http/base-url.ts'
import type { App } from '../../platform/http/types.ts'
import { createChannel, listChannels, subscribeTo, unsubscribeFrom } from './channels.ts'
import type { ChatDeps } from './deps.ts'
import { createInvite, type InviteRow, joinByInvite, listInvites, previewInvite, revokeInvite } from './invites.ts'
import * as schema from './schema.ts'
import { viewBySlug, viewChat, viewChatWithMembers } from './views.ts'

const tags = ['channels']

/** Channels, and the ways into a chat: the directory, slugs, invite links. `publicUrl`: how people reach the server, where that is known. */
export function channelRoutes(app: App, deps: ChatDeps, publicUrl: string | undefined): void {
  app.post(
    '/channels',
    {
      schema: {
        tags,
        summary: 'Make a channel: its owner and admins post, everybody else reads',
        body: schema.CreateChannel,
        response: answers({ 201: schema.ChatWithMembers }, ['slug_taken']),
      },
    },
    async ({ identity, body }, reply) => {
      const id = await createChannel(deps, identity.user_id, body)
      return reply.code(201).send(await viewChatWithMembers(deps, identity.user_id, id))
    },
  )

  app.get(
    '/channels',
    {
      schema: {
        tags,
        summary: 'The directory of public channels, the biggest first',
        querystring: schema.DirectoryQuery,
        response: answers({ 200: schema.ChannelList }),
      },
    },
    ({ identity, query }) => listChannels(deps, identity.user_id, { q: query.q.trim(), limit: query.limit, after: query.cursor }),
  )

  app.post(
    '/channels/:id/subscribe',
    {
      schema: {
        tags,
        summary: 'Subscribe to a public channel; into a private one an invite link leads',
        params: schema.ChatParams,
        response: answers({ 200: schema.Chat, 201: schema.Chat }, ['chat_not_found', 'not_a_channel']),
      },
    },
    async ({ identity, params }, reply) => {
      const isNew = await subscribeTo(deps, identity.user_id, params.id)
      return reply.code(isNew ? 201 : 200).send(await viewChat(deps, identity.user_id, params.id))
    },
  )

  app.delete(
    '/channels/:id/subscribe',
    {
      schema: {
        tags,
        summary: 'Leave a channel; an owner hands over to the longest-standing admin',
        params: schema.ChatParams,
        response: answers({ 200: Done }, ['chat_not_found', 'not_a_channel', 'transfer_first']),
      },
    },
    async ({ identity, params }) => {
      await unsubscribeFrom(deps, identity.user_id, params.id)
      return { message: 'Left the channel' }
    },
  )

  app.get(
    '/chats/by-slug/:slug',
    {
      schema: {
        tags,
        summary: 'A chat by its slug: for its members, and a public channel for anybody',
        params: schema.SlugParams,
        response: answers({ 200: schema.ChatWithMembers }, ['chat_not_found']),
      },
    },
    ({ identity, params }) => viewBySlug(deps, identity.user_id, params.slug),
  )

  // --- invite links ------------------------------------------------------------------------------------------------

  const link = (request: FastifyRequest, row: InviteRow) => ({
    ...row,
    url: `${baseUrl(request, publicUrl)}/join/${row.code}`,
  })
  const refusals = ['chat_not_found', 'forbidden', 'not_a_group'] as const

  app.post(
    '/chats/:id/invites',
    {
      schema: {
        tags,
        summary: 'Make a link into the group or channel (owner, admins)',
        params: schema.ChatParams,
        body: schema.CreateInvite,
        response: answers({ 201: schema.Invite }, [...refusals, 'too_many_invites']),
      },
    },
    async (request, reply) => {
      const { identity, params, body } = request
      return reply.code(201).send(link(request, await createInvite(deps, identity.user_id, params.id, body)))
    },
  )

  app.get(
    '/chats/:id/invites',
    {
      schema: {
        tags,
        summary: 'Links that still work (owner, admins)',
        params: schema.ChatParams,
        querystring: schema.InvitesQuery,
        response: answers({ 200: schema.InviteList }, refusals),
      },
    },
    async (request) => {
      const { identity, params, query } = request
      const { rows, has_more, next_cursor } = await listInvites(deps, identity.user_id, params.id, query)
      return { invites: rows.map((row) => link(request, row)), has_more, next_cursor }
    },
  )

  app.delete(
    '/chats/:id/invites/:code',
    {
      schema: {
        tags,
        summary: 'Revoke a link (owner, admins); who came in by it stays',
        params: schema.ChatInviteParams,
        response: answers({ 200: Done }, [...refusals, 'invite_not_found']),
      },
    },
    async ({ identity, params }) => {
      await revokeInvite(deps, identity.user_id, params.id, params.code)
      return { message: 'Link revoked' }
    },
  )

  app.get(
    '/invites/:code',
    {
      schema: {
        tags,
        summary: 'What a link leads to',
        params: schema.InviteParams,
        response: answers({ 200: schema.InvitePreview }, ['invite_not_found']),
      },
    },
    async ({ identity, params }) => ({ code: params.code, ...(await previewInvite(deps, identity.user_id, params.code)) }),
  )

  app.post(
    '/invites/:code/join',
    {
      schema: {
        tags,
        summary: 'Come in by a link',
        description:
          'A link that is unknown, expired, used up or revoked is `invite_not_found`. Whoever is in already uses nothing (200). Who was removed may come back by a link that still works.',
        params: schema.InviteParams,
        response: answers({ 200: schema.Chat, 201: schema.Chat }, ['invite_not_found', 'group_full']),
      },
    },
    async ({ identity, params }, reply) => {
      const { chat_id, joined } = await joinByInvite(deps, identity.user_id, params.code)
      return reply.code(joined ? 201 : 200).send(await viewChat(deps, identity.user_id, chat_id))
    },
  )
}
