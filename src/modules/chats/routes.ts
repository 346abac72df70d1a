import { answers, Done } from '../../platform/http/answers.ts'
import type { App } from '../../platform/http/types.ts'
import { type Cursors, lastSeq } from './cursors.ts'
import type { ChatDeps } from './deps.ts'
import { getOrCreateDm } from './dm.ts'
import { addMembers, changeRole, createGroup, leaveChat, removeMember, transferChat } from './groups.ts'
import { changeSettings, clearDm, myRows } from './mine.ts'
import { deleteChat, editChat } from './profile.ts'
import * as schema from './schema.ts'
import { listChats, listMembers, typeOf, viewChat, viewChatWithMembers } from './views.ts'

const tags = ['chats']
const refusals = ['chat_not_found', 'forbidden', 'not_a_group'] as const

export function chatRoutes(app: App, deps: ChatDeps, cursors: Cursors): void {
  app.get(
    '/chats',
    {
      schema: {
        tags,
        summary: 'My chats: pinned first, then by latest message',
        querystring: schema.ListQuery,
        response: answers({ 200: schema.ChatList }),
      },
    },
    ({ identity, query }) =>
      listChats(deps, identity.user_id, { archived: query.archived, limit: query.limit, after: query.cursor }),
  )

  app.get(
    '/chats/dm/:user_id',
    {
      schema: {
        tags,
        summary: 'The direct chat with this person, made if need be; with yourself: your saved messages',
        params: schema.MemberParams.pick({ user_id: true }),
        response: answers({ 200: schema.Chat, 201: schema.Chat }, ['user_not_found', 'not_allowed', 'user_blocked']),
      },
    },
    async ({ identity, params }, reply) => {
      const { id, created } = await getOrCreateDm(deps, identity.user_id, params.user_id)
      return reply.code(created ? 201 : 200).send(await viewChat(deps, identity.user_id, id))
    },
  )

  app.post(
    '/chats',
    {
      schema: {
        tags,
        summary: 'Make a group, or get the direct chat with one person',
        body: schema.CreateChat,
        response: answers({ 200: schema.ChatWithMembers, 201: schema.ChatWithMembers }, [
          'user_not_found',
          'group_full',
          'not_allowed',
          'user_blocked',
        ]),
      },
    },
    async ({ identity, body }, reply) => {
      if (body.type === 'dm') {
        const { id, created } = await getOrCreateDm(deps, identity.user_id, body.member_ids[0]!)
        return reply.code(created ? 201 : 200).send(await viewChatWithMembers(deps, identity.user_id, id))
      }
      const id = await createGroup(deps, identity.user_id, body)
      return reply.code(201).send(await viewChatWithMembers(deps, identity.user_id, id))
    },
  )

  app.get(
    '/chats/:id',
    {
      schema: {
        tags,
        summary: 'One chat with its first 50 members',
        params: schema.ChatParams,
        response: answers({ 200: schema.ChatWithMembers }, ['chat_not_found']),
      },
    },
    ({ identity, params }) => viewChatWithMembers(deps, identity.user_id, params.id),
  )

  app.patch(
    '/chats/:id',
    {
      schema: {
        tags,
        summary: 'Rename or describe a group or channel, give it a slug (owner, admins)',
        params: schema.ChatParams,
        body: schema.EditChat,
        response: answers({ 200: schema.Chat }, [...refusals, 'not_a_channel', 'slug_taken']),
      },
    },
    async ({ identity, params, body }) => {
      await editChat(deps, identity.user_id, params.id, body)
      return viewChat(deps, identity.user_id, params.id)
    },
  )

  app.delete(
    '/chats/:id',
    {
      schema: {
        tags,
        summary: 'Delete a group or channel for all (owner), or a direct chat for yourself',
        params: schema.ChatParams,
        response: answers({ 200: Done }, refusals),
      },
    },
    async ({ identity, params }) => {
      if ((await typeOf(deps, identity.user_id, params.id)) === 'dm') await clearDm(deps, identity.user_id, params.id)
      else await deleteChat(deps, identity.user_id, params.id)
      return { message: 'Chat deleted' }
    },
  )

  app.get(
    '/chats/:id/members',
    {
      schema: {
        tags,
        summary: 'Members by id; of a channel for its owner and admins alone',
        params: schema.ChatParams,
        querystring: schema.MembersQuery,
        response: answers({ 200: schema.MemberList }, ['chat_not_found', 'forbidden']),
      },
    },
    ({ identity, params, query }) => listMembers(deps, identity.user_id, params.id, query),
  )

  app.post(
    '/chats/:id/members',
    {
      schema: {
        tags,
        summary: 'Add members; those who are in already stay as they are',
        params: schema.ChatParams,
        body: schema.AddMembers,
        response: answers({ 200: schema.ChatWithMembers }, [...refusals, 'user_not_found', 'group_full', 'not_allowed']),
      },
    },
    async ({ identity, params, body }) => {
      await addMembers(deps, identity.user_id, params.id, body.user_ids)
      return viewChatWithMembers(deps, identity.user_id, params.id)
    },
  )

  app.patch(
    '/chats/:id/members/:user_id',
    {
      schema: {
        tags,
        summary: 'Make an admin, or a member (of a channel: subscriber) again (owner)',
        params: schema.MemberParams,
        body: schema.ChangeRole,
        response: answers({ 200: Done }, [...refusals, 'member_not_found']),
      },
    },
    async ({ identity, params, body }) => {
      await changeRole(deps, identity.user_id, params.id, params.user_id, body.role)
      return { message: 'Role changed' }
    },
  )

  app.delete(
    '/chats/:id/members/:user_id',
    {
      schema: {
        tags,
        summary: 'Remove a member or subscriber',
        params: schema.MemberParams,
        response: answers({ 200: Done }, [...refusals, 'member_not_found', 'transfer_first']),
      },
    },
    async ({ identity, params }) => {
      await removeMember(deps, identity.user_id, params.id, params.user_id)
      return { message: 'Member removed' }
    },
  )

  app.post(
    '/chats/:id/leave',
    {
      schema: {
        tags,
        summary: 'Leave a group or channel; an owner hands over to the longest-standing admin, in a group else to a member',
        params: schema.ChatParams,
        response: answers({ 200: Done }, [...refusals, 'transfer_first']),
      },
    },
    async ({ identity, params }) => {
      await leaveChat(deps, identity.user_id, params.id)
      return { message: 'Left the chat' }
    },
  )

  app.post(
    '/chats/:id/transfer',
    {
      schema: {
        tags,
        summary: 'Hand the group or channel over to another member (owner)',
        params: schema.ChatParams,
        body: schema.Transfer,
        response: answers({ 200: schema.Chat }, [...refusals, 'member_not_found']),
      },
    },
    async ({ identity, params, body }) => {
      await transferChat(deps, identity.user_id, params.id, body.user_id)
      return viewChat(deps, identity.user_id, params.id)
    },
  )

  app.patch(
    '/chats/:id/settings',
    {
      schema: {
        tags,
        summary: 'Archive, pin or mute for yourself',
        params: schema.ChatParams,
        body: schema.Settings,
        response: answers({ 200: schema.Chat }, ['chat_not_found']),
      },
    },
    async ({ identity, params, body }) => {
      await changeSettings(deps, identity.user_id, params.id, body)
      return viewChat(deps, identity.user_id, params.id)
    },
  )

  app.post(
    '/chats/:id/read',
    {
      schema: {
        tags,
        summary: 'Read up to `seq` (default: the last); cursors only move forward',
        params: schema.ChatParams,
        body: schema.Read,
        response: answers({ 200: schema.ReadAnswer }, ['chat_not_found']),
      },
    },
    async ({ identity, params, body }) => {
      const { read_seq } = await cursors.move({ chat_id: params.id, user_id: identity.user_id, read: body.seq ?? lastSeq })
      const standings = await myRows(deps.db, [{ user_id: identity.user_id, chat_id: params.id }])
      const unread = (await deps.unread(deps.db, identity.user_id, standings)).get(params.id)
      return { message: 'Marked as read', unread_count: unread?.unread_count ?? 0, read_seq }
    },
  )
}
