import { answers, Done } from '../../platform/http/answers.ts'
import type { App } from '../../platform/http/types.ts'
import { Me, UserPublic } from '../../protocol/resources.ts'
import type { UsersDeps } from './deps.ts'
import { AccountDeletion, FoundUsers, MePatch, PasswordChange, SearchQuery, UserPath } from './schema.ts'
import * as users from './service.ts'

const tags = ['users']

/** `/users/…` */
export async function usersRoutes(app: App, deps: UsersDeps): Promise<void> {
  app.route({
    method: 'GET',
    url: '/users/me',
    schema: { tags, summary: 'My profile', response: answers({ 200: Me }, ['user_not_found']) },
    handler: ({ identity }) => users.meOf(deps.db, identity.user_id),
  })

  app.route({
    method: 'PATCH',
    url: '/users/me',
    schema: {
      tags,
      summary: 'Change my profile and settings',
      body: MePatch,
      response: answers({ 200: Me }, ['username_taken', 'user_not_found']),
    },
    handler: ({ identity, body }) => users.updateMe(deps, identity.user_id, body),
  })

  app.route({
    method: 'DELETE',
    url: '/users/me',
    schema: {
      tags,
      summary: 'Delete my account',
      description: `The profile is blanked to "${users.deletedName}", all sessions end, messages stay. An account without a password shows a \`code\` sent to its verified phone instead.`,
      body: AccountDeletion,
      response: answers({ 200: Done }, ['wrong_password', 'overloaded']),
    },
    handler: async ({ identity, body }) => {
      await users.deleteAccount(deps, identity.user_id, body)
      return { message: 'Account deleted' }
    },
  })

  app.route({
    method: 'PATCH',
    url: '/users/me/password',
    schema: {
      tags,
      summary: 'Change my password',
      description:
        'Ends every other session. An account without a password gets its first one by `code`, which `POST /auth/otp/request` sends to its verified phone.',
      body: PasswordChange,
      response: answers({ 200: Done }, ['wrong_password', 'overloaded']),
    },
    handler: async ({ identity, body }) => {
      const { old_password: password, ...rest } = body
      await users.changePassword(deps, identity, { password, ...rest })
      return { message: 'Password changed' }
    },
  })

  app.route({
    method: 'GET',
    url: '/users/search',
    schema: {
      tags,
      summary: 'Find people',
      description: 'By username or display name, partial, in any case; at most 20.',
      querystring: SearchQuery,
      response: answers({ 200: FoundUsers }),
    },
    handler: async ({ identity, query }) => ({ users: await users.searchUsers(deps, identity.user_id, query.q) }),
  })

  app.route({
    method: 'GET',
    url: '/users/:id',
    schema: {
      tags,
      summary: 'A public profile',
      description: `A deleted account is shown as "${users.deletedName}" without a username.`,
      params: UserPath,
      response: answers({ 200: UserPublic }, ['user_not_found']),
    },
    handler: ({ identity, params }) => users.publicUser(deps, identity.user_id, params.id),
  })
}
