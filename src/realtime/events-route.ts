import type { FastifyInstance } from 'fastify'
import { z } from 'zod'
import { AppError } from '../platform/errors.ts'
import { tokenOf } from '../platform/http/access.ts'
import { answers } from '../platform/http/answers.ts'
import { closeCodes } from '../protocol/close-codes.ts'
import type { ErrorCode } from '../protocol/errors.ts'
import { EventStream } from './event-stream.ts'

export interface EventsRouteOptions {
  isStopping: () => boolean
  /** Resolves once the stream is let in, or closed. */
  admit: (stream: EventStream, token: string) => Promise<void>
}

/** What is answered where a connection is closed before it was open. */
const refusals = new Map<number | undefined, ErrorCode>([
  [closeCodes.unauthorized[0], 'session_ended'],
  [closeCodes.token_expired[0], 'token_expired'],
])

/** `GET /events`: what the WebSocket tells, as Server-Sent Events. A refusal is JSON like any other, before the stream begins. */
export function eventsRoute(app: FastifyInstance, { isStopping, admit }: EventsRouteOptions): void {
  app.route({
    method: 'GET',
    url: '/api/v1/events',
    // HEAD would open a stream that nobody reads.
    exposeHeadRoute: false,
    config: { tokenInQuery: true },
    schema: {
      tags: ['events'],
      summary: 'Events as they happen, where a WebSocket is not to be had',
      description:
        'Server-Sent Events: `data` is the very JSON that `/ws` sends (described by AsyncAPI), beginning with `ready` and `user_chats`, without an `event` field, so that `onmessage` hears them all. ' +
        'The last event of a stream that the server ends is `close` with `{code, reason}`, the codes of the WebSocket. ' +
        'Nothing is sent again after a reconnect, whatever `Last-Event-ID` says: ask `POST /sync` after `ready`. Comments every 25 s keep the stream open.',
      querystring: z.strictObject({
        token: z
          .string()
          .min(1)
          .max(4_096)
          .optional()
          .describe('An access token, for clients that cannot send the Authorization header'),
      }),
      response: {
        ...answers({}),
        200: { description: 'The stream', content: { 'text/event-stream': { schema: z.string() } } },
      },
    },
    handler: async (request, reply) => {
      if (isStopping()) throw new AppError('unavailable', { retryAfter: 1 })
      const stream = new EventStream(reply)
      await admit(stream, tokenOf(request))
      if (stream.refusedWith !== undefined) {
        const code = refusals.get(stream.refusedWith) ?? 'unavailable'
        throw new AppError(code, code === 'unavailable' ? { retryAfter: 1 } : {})
      }
      stream.begin()
    },
  })
}
