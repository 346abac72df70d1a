import { AppError } from '../../platform/errors.ts'
import { limitHeaders } from '../../platform/http/access.ts'
import { answers } from '../../platform/http/answers.ts'
import type { App } from '../../platform/http/types.ts'
import { accessChat, type ChatDeps, type ChatRow, type Cursors, chatRows } from '../chats/index.ts'
import type { MessageDeps } from './deps.ts'
import { type MessageRow, messageById } from './rows.ts'
import * as schema from './schema.ts'
import { listMessages, send } from './service.ts'
import { messageViews } from './views.ts'

const tags = ['messages']

export function messageRoutes(app: App, deps: MessageDeps, chats: ChatDeps, cursors: Cursors): void {
  /** A message and its chat, for whoever may see both. */
  async function accessMessage(userId: string, messageId: string): Promise<{ row: MessageRow; chat: ChatRow }> {
    const row = await messageById(deps.db, messageId)
    const chat = row && (await chatRows(deps.db, userId, [row.chat_id]))[0]
    if (!row || !chat || row.seq <= chat.cleared_seq) throw new AppError('message_not_found')
    return { row, chat }
  }

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
      const chat = await accessChat(chats, identity.user_id, params.id)
      return listMessages(deps, deps.db, chat, query)
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
    async ({ identity, params }) => {
      const { row } = await accessMessage(identity.user_id, params.id)
      return (await messageViews(deps.db, deps.briefs, [row]))[0]!
    },
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
      const { row } = await accessMessage(identity.user_id, body.message_id)
      const place = { chat_id: row.chat_id, user_id: identity.user_id }
      const moved = await cursors.move(body.status === 'read' ? { ...place, read: row.seq } : { ...place, delivered: row.seq })
      return {
        message: body.status === 'read' ? 'Marked as read' : 'Marked as delivered',
        read_seq: moved.read_seq,
        delivered_seq: moved.delivered_seq,
      }
    },
  )
}
