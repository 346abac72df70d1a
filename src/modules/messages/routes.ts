import { AppError } from '../../platform/errors.ts'
import { limitHeaders } from '../../platform/http/access.ts'
import { answers, Done } from '../../platform/http/answers.ts'
import type { App } from '../../platform/http/types.ts'
import { accessChat, type Cursors } from '../chats/index.ts'
import { accessMessage } from './access.ts'
import type { MessageDeps } from './deps.ts'
import { forward } from './forward.ts'
import { deleteMessage, editMessage, listEdits, viewMessage } from './life.ts'
import { listPins, pinMessage } from './pins.ts'
import { react } from './reactions.ts'
import { listReceipts } from './receipts.ts'
import * as schema from './schema.ts'
import { listMessages, send } from './service.ts'

const tags = ['messages']

export function messageRoutes(app: App, deps: MessageDeps, cursors: Cursors): void {
  app.post(
    '/messages',
    {
      // Sends have a limit of their own, shared with the WebSocket.
      config: { rateLimit: false },
      schema: {
        tags,
        summary: 'Send a message: answered once it is committed',
        description: 'The same sender, chat and `client_id` again is answered 200 with the first message, and sends nothing.',
        body: schema.SendBody,
        response: answers({ 200: schema.Message, 201: schema.Message }, [
          'chat_not_found',
          'forbidden',
          'not_allowed',
          'user_blocked',
          'invalid_reply',
          'overloaded',
        ]),
      },
    },
    async ({ identity, body }, reply) => {
      const { committed, limit } = await send(deps, identity, body)
      limitHeaders(reply, limit)
      const { message, duplicate } = await committed
      return reply.code(duplicate ? 200 : 201).send(message)
    },
  )

  app.get(
    '/chats/:id/messages',
    {
      schema: {
        tags,
        summary: 'A page of history, oldest first; the newest by default',
        params: schema.MessageParams,
        querystring: schema.PageQuery,
        response: answers({ 200: schema.MessagePage }, ['chat_not_found']),
      },
    },
    async ({ identity, params, query }) => {
      // The chat is read first: what the page shows is never older than the version that it gives.
      const chat = await accessChat(deps.chats, identity.user_id, params.id)
      return listMessages(deps, identity.user_id, chat, query)
    },
  )

  app.get(
    '/messages/:id',
    {
      schema: {
        tags,
        summary: 'One message',
        params: schema.MessageParams,
        response: answers({ 200: schema.Message }, ['message_not_found']),
      },
    },
    ({ identity, params }) => viewMessage(deps, identity.user_id, params.id),
  )

  app.post(
    '/messages/status',
    {
      schema: {
        tags,
        summary: 'Delivered or read, up to and including this message',
        body: schema.Status,
        response: answers({ 200: schema.StatusAnswer }, ['message_not_found']),
      },
    },
    async ({ identity, body }) => {
      const { row, chat } = await accessMessage(deps.chats, identity.user_id, body.message_id)
      // Whoever only looks at a channel has no cursor in it.
      if (chat.my_role === null) throw new AppError('message_not_found')
      const place = { chat_id: row.chat_id, user_id: identity.user_id }
      const moved = await cursors.move(body.status === 'read' ? { ...place, read: row.seq } : { ...place, delivered: row.seq })
      return {
        message: body.status === 'read' ? 'Marked as read' : 'Marked as delivered',
        read_seq: moved.read_seq,
        delivered_seq: moved.delivered_seq,
      }
    },
  )

  app.patch(
    '/messages/:id',
    {
      schema: {
        tags,
        summary: 'Change the text (sender)',
        params: schema.MessageParams,
        body: schema.Edit,
        response: answers({ 200: schema.Message }, [
          'message_not_found',
          'forbidden',
          'not_editable',
          'message_deleted',
          'not_allowed',
          'user_blocked',
        ]),
      },
    },
    ({ identity, params, body }) => editMessage(deps, identity.user_id, params.id, body.content),
  )

  app.delete(
    '/messages/:id',
    {
      schema: {
        tags,
        summary: 'Delete for everybody (sender; owner and admins of a group or channel)',
        description:
          'Text, earlier texts, mentions and reactions are gone for good; the message keeps its place. Deleting it again changes nothing.',
        params: schema.MessageParams,
        response: answers({ 200: Done }, ['message_not_found', 'forbidden', 'not_editable']),
      },
    },
    async ({ identity, params }) => {
      await deleteMessage(deps, identity.user_id, params.id)
      return { message: 'Message deleted' }
    },
  )

  app.get(
    '/messages/:id/edits',
    {
      schema: {
        tags,
        summary: 'Earlier texts of a message',
        params: schema.MessageParams,
        response: answers({ 200: schema.EditList }, ['message_not_found']),
      },
    },
    async ({ identity, params }) => ({ edits: await listEdits(deps, identity.user_id, params.id) }),
  )

  app.get(
    '/messages/:id/receipts',
    {
      schema: {
        tags,
        summary: 'Who has it, who has read it, and when (sender; not in channels)',
        params: schema.MessageParams,
        querystring: schema.ReceiptsQuery,
        response: answers({ 200: schema.ReceiptList }, ['message_not_found', 'forbidden']),
      },
    },
    ({ identity, params, query }) => listReceipts(deps, identity.user_id, params.id, query),
  )

  app.post(
    '/messages/:id/forward',
    {
      config: { rateLimit: false },
      schema: {
        tags,
        summary: 'Send it on to several chats, with attribution',
        description: 'To all of the chats, ten at most, or to none. Each counts as a message sent.',
        params: schema.MessageParams,
        body: schema.Forward,
        response: answers({ 201: schema.Forwarded }, [
          'message_not_found',
          'message_deleted',
          'not_editable',
          'chat_not_found',
          'forbidden',
          'not_allowed',
          'user_blocked',
          'overloaded',
        ]),
      },
    },
    async ({ identity, params, body }, reply) => {
      const { messages, limit } = await forward(deps, identity, params.id, body)
      limitHeaders(reply, limit)
      return reply.code(201).send({ messages })
    },
  )

  app.post(
    '/messages/:id/reactions',
    {
      schema: {
        tags,
        summary: 'React with an emoji; the same again is one',
        params: schema.MessageParams,
        body: schema.React,
        response: answers({ 200: schema.ReactionList }, [
          'message_not_found',
          'forbidden',
          'message_deleted',
          'too_many_reactions',
          'not_allowed',
          'user_blocked',
        ]),
      },
    },
    async ({ identity, params, body }) => ({
      reactions: await react(deps, identity.user_id, params.id, body.emoji, false),
    }),
  )

  app.delete(
    '/messages/:id/reactions/:emoji',
    {
      schema: {
        tags,
        summary: 'Take a reaction back',
        params: schema.ReactionParams,
        response: answers({ 200: schema.ReactionList }, [
          'message_not_found',
          'forbidden',
          'message_deleted',
          'not_allowed',
          'user_blocked',
        ]),
      },
    },
    async ({ identity, params }) => ({ reactions: await react(deps, identity.user_id, params.id, params.emoji, true) }),
  )

  app.get(
    '/chats/:id/pins',
    {
      schema: {
        tags,
        summary: 'Pinned messages',
        params: schema.MessageParams,
        response: answers({ 200: schema.PinList }, ['chat_not_found']),
      },
    },
    async ({ identity, params }) => ({ messages: await listPins(deps, identity.user_id, params.id) }),
  )

  const pinRefusals = ['message_not_found', 'forbidden', 'not_allowed', 'user_blocked'] as const
  app.put(
    '/chats/:id/pins/:message_id',
    {
      schema: {
        tags,
        summary: 'Pin (owner and admins; in a direct chat both)',
        params: schema.PinParams,
        response: answers({ 200: schema.Message }, [...pinRefusals, 'message_deleted', 'too_many_pins']),
      },
    },
    ({ identity, params }) => pinMessage(deps, identity.user_id, params.id, params.message_id, true),
  )

  app.delete(
    '/chats/:id/pins/:message_id',
    {
      schema: {
        tags,
        summary: 'Unpin',
        params: schema.PinParams,
        response: answers({ 200: schema.Message }, [...pinRefusals, 'message_deleted']),
      },
    },
    ({ identity, params }) => pinMessage(deps, identity.user_id, params.id, params.message_id, false),
  )
}
