import { answers } from '../../platform/http/answers.ts'
import type { App } from '../../platform/http/types.ts'
import type { SearchDeps } from './deps.ts'
import * as schema from './schema.ts'
import { searchAll, searchMessages } from './service.ts'

const tags = ['search']

export function searchRoutes(app: App, deps: SearchDeps): void {
  app.get(
    '/search/messages',
    {
      schema: {
        tags,
        summary: 'Find messages in my chats',
        description:
          'Those with the words side by side come first, then those with the most words exactly as they were asked for, then the newest; the newest 100 are ranked, then the next ones. Where nothing is found, parts of words (three characters or more) are looked for. Deleted and system messages are not found, nor is what was sent to a chat that I am not a member of now, or that I have cleared.',
        querystring: schema.MessageSearch,
        response: answers({ 200: schema.FoundMessages }, ['chat_not_found']),
      },
    },
    ({ identity, query }) => searchMessages(deps, identity.user_id, query),
  )

  app.get(
    '/search',
    {
      schema: {
        tags,
        summary: 'The first few people, chats of mine and messages',
        description:
          'At most five of each: people as `GET /users/search` finds them, my chats by name, a direct chat by the other’s.',
        querystring: schema.SearchQuery,
        response: answers({ 200: schema.FoundAll }),
      },
    },
    ({ identity, query }) => searchAll(deps, identity.user_id, query.q),
  )
}
