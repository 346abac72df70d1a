import { answers } from '../../platform/http/answers.ts'
import type { App } from '../../platform/http/types.ts'
import { SyncRequest } from '../../protocol/commands.ts'
import { SyncAnswer } from '../../protocol/resources.ts'
import { type SyncDeps, sync } from './service.ts'

export function syncRoutes(app: App, deps: SyncDeps): void {
  app.post(
    '/sync',
    {
      schema: {
        tags: ['sync'],
        summary: 'Everything that changed since',
        description:
          'Name each chat with the version you have; chats that you do not name come with their newest page. Repeat while `has_more`. Applying an answer twice changes nothing.',
        body: SyncRequest,
        response: answers({ 200: SyncAnswer }, ['overloaded']),
      },
    },
    ({ identity, body }) => sync(deps, identity.user_id, body),
  )
}
