import { z } from 'zod'
import { answers, Done } from '../../platform/http/answers.ts'
import type { App } from '../../platform/http/types.ts'
import { uuid } from '../../protocol/primitives.ts'
import type { Signals } from './signals.ts'

/** For clients that hear by an event stream and cannot send commands over it. */
export function presenceRoutes(app: App, signals: Signals): void {
  app.post(
    '/chats/:id/typing',
    {
      schema: {
        tags: ['chats'],
        summary: 'I am typing, or stopped',
        description: 'As the command `typing`: told on at most once in 3 s, ends by itself 5 s after the last.',
        params: z.strictObject({ id: uuid }),
        body: z.strictObject({ is_typing: z.boolean().default(true) }),
        response: answers({ 200: Done }, ['chat_not_found']),
      },
    },
    async ({ identity, params, body }) => {
      await signals.typingFromAnywhere(identity.user_id, params.id, body.is_typing)
      return { message: body.is_typing ? 'Told' : 'Stopped' }
    },
  )
}
