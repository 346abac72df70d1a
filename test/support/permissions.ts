import type { ErrorCode } from '../../src/protocol/errors.ts'

/**
 * Who may do what: what a valid call gets that is aimed at the things of others. One row for every operation of the OpenAPI
 * document and every command of the AsyncAPI document; docs/permissions.md is written from it, test/permissions.test.ts holds
 * both to it.
 *
 * A new route: give it a row in the section it belongs to, with the constants below where they fit. What a name in a path or a
 * body stands for is `aimsOf` in permission-world.ts. The same operation aimed at something else has a row of its own, with the
 * aim in brackets after its name.
 */

export const people = ['stranger', 'former', 'blocked', 'member'] as const
/**
 * `stranger`: has an account and knows every id. `former`: was a member, wrote and invited there, and was removed. `blocked`:
 * aims at the direct chat with the person who blocks them, and at that person. `member`: a plain member of the group, a
 * subscriber of the channel.
 */
export type Person = (typeof people)[number]

/** `ok`: allowed. */
export type Expected = 'ok' | ErrorCode

export interface Row extends Record<Person, Expected> {
  /** Who may, in a few words. */
  who: string
}

/** Concerns nothing but the caller's own, and names nothing of others. */
export const own = 'own'
/** Needs no token. */
export const open = 'open'

const row = (who: string, stranger: Expected, former: Expected, blocked: Expected, member: Expected): Row => ({
  who,
  stranger,
  former,
  blocked,
  member,
})

const anybody = row('everyone', 'ok', 'ok', 'ok', 'ok')
const readers = row('members', 'chat_not_found', 'chat_not_found', 'ok', 'ok')
const writers = row('members; in a direct chat unless blocked', 'chat_not_found', 'chat_not_found', 'not_allowed', 'ok')
const managers = row('owner and admins of a group', 'chat_not_found', 'chat_not_found', 'not_a_group', 'forbidden')
const seen = row('members', 'message_not_found', 'message_not_found', 'ok', 'ok')
const reacting = row('members; in a direct chat unless blocked', 'message_not_found', 'message_not_found', 'not_allowed', 'ok')
const pinning = row(
  'owner and admins; in a direct chat both, unless blocked',
  'message_not_found',
  'message_not_found',
  'not_allowed',
  'forbidden',
)
const admins = row('admins of the server', 'forbidden', 'forbidden', 'forbidden', 'forbidden')

export type Section = Record<string, Row | typeof own | typeof open>

export const rest: Record<string, Section> = {
  'Signing in': {
    'POST /auth/register': open,
    'POST /auth/login': open,
    'POST /auth/refresh': open,
    'POST /auth/otp/request': open,
    'POST /auth/otp/verify': open,
  },
  'One’s own account': {
    'GET /auth/verify': own,
    'POST /auth/logout': own,
    'POST /auth/logout-all': own,
    'GET /auth/sessions': own,
    'DELETE /auth/sessions/{id}': row(
      'whose session it is',
      'session_not_found',
      'session_not_found',
      'session_not_found',
      'session_not_found',
    ),
    'PUT /users/me/phone': own,
    'GET /users/me': own,
    'PATCH /users/me': own,
    'DELETE /users/me': own,
    'PATCH /users/me/password': own,
    'PUT /users/me/avatar': own,
    'DELETE /users/me/avatar': own,
    'POST /media/sign': own,
    'POST /sync': own,
    'GET /events': own,
  },
  'Other people': {
    'GET /users/search': anybody,
    'GET /users/{id}': anybody,
    'GET /contacts': own,
    'GET /contacts/requests': own,
    'POST /contacts/requests': row('everyone, unless blocked', 'ok', 'ok', 'not_allowed', 'ok'),
    'POST /contacts/requests/{id}/accept': row(
      'who was asked',
      'request_not_found',
      'request_not_found',
      'request_not_found',
      'request_not_found',
    ),
    'DELETE /contacts/requests/{id}': row(
      'who was asked, and who asked',
      'request_not_found',
      'request_not_found',
      'request_not_found',
      'request_not_found',
    ),
    'DELETE /contacts/{user_id}': row(
      'either of the two',
      'contact_not_found',
      'contact_not_found',
      'contact_not_found',
      'contact_not_found',
    ),
    'GET /blocks': own,
    'PUT /blocks/{user_id}': anybody,
    'DELETE /blocks/{user_id}': anybody,
  },
  Chats: {
    'GET /chats': own,
    'POST /chats': anybody,
    'GET /chats/dm/{user_id}': row('everyone; a new one unless blocked', 'ok', 'ok', 'ok', 'ok'),
    'GET /chats/{id}': readers,
    'GET /chats/{id}/members': readers,
    'PATCH /chats/{id}/settings': readers,
    'POST /chats/{id}/read': readers,
    'POST /chats/{id}/typing': readers,
    'PATCH /chats/{id}': managers,
    'PUT /chats/{id}/avatar': managers,
    'DELETE /chats/{id}/avatar': managers,
    'GET /media/uploads/{year}/{month}/{day}/{name}': row(
      'members; of a person, everyone',
      'not_found',
      'not_found',
      'not_found',
      'ok',
    ),
    'DELETE /chats/{id}': row('owner; a direct chat each for themselves', 'chat_not_found', 'chat_not_found', 'ok', 'forbidden'),
    'POST /chats/{id}/members': managers,
    'PATCH /chats/{id}/members/{user_id}': { ...managers, who: 'owner of a group' },
    'DELETE /chats/{id}/members/{user_id}': managers,
    'POST /chats/{id}/leave': row('members of a group', 'chat_not_found', 'chat_not_found', 'not_a_group', 'ok'),
    'POST /chats/{id}/transfer': { ...managers, who: 'owner of a group' },
    'POST /chats/{id}/invites': managers,
    'GET /chats/{id}/invites': managers,
    'DELETE /chats/{id}/invites/{code}': managers,
    'GET /invites/{code}': anybody,
    'POST /invites/{code}/join': anybody,
  },
  Channels: {
    'POST /channels': own,
    'GET /channels': own,
    'GET /chats/by-slug/{slug} (a public channel)': anybody,
    'GET /chats/{id} (a public channel)': anybody,
    'GET /chats/{id}/messages (a public channel)': anybody,
    'POST /channels/{id}/subscribe (a public channel)': anybody,
    'POST /messages (a public channel)': row('owner and admins', 'forbidden', 'forbidden', 'forbidden', 'forbidden'),
    'PATCH /chats/{id} (a public channel)': row('owner and admins', 'forbidden', 'forbidden', 'forbidden', 'forbidden'),
    'GET /chats/{id} (a channel)': row('subscribers', 'chat_not_found', 'chat_not_found', 'chat_not_found', 'ok'),
    'GET /chats/{id}/members (a channel)': row(
      'owner and admins',
      'chat_not_found',
      'chat_not_found',
      'chat_not_found',
      'forbidden',
    ),
    'POST /channels/{id}/subscribe (a channel)': row('subscribers', 'chat_not_found', 'chat_not_found', 'chat_not_found', 'ok'),
    'DELETE /channels/{id}/subscribe (a channel)': row('subscribers', 'chat_not_found', 'chat_not_found', 'chat_not_found', 'ok'),
    'POST /messages (a channel)': row('owner and admins', 'chat_not_found', 'chat_not_found', 'chat_not_found', 'forbidden'),
  },
  Messages: {
    'POST /messages': writers,
    'GET /chats/{id}/messages': readers,
    'GET /chats/{id}/pins': readers,
    'GET /messages/{id}': seen,
    'GET /messages/{id}/edits': seen,
    'GET /messages/{id}/receipts': row('its sender', 'message_not_found', 'message_not_found', 'ok', 'forbidden'),
    'PATCH /messages/{id}': row(
      'its sender, unless blocked',
      'message_not_found',
      'message_not_found',
      'not_allowed',
      'forbidden',
    ),
    'DELETE /messages/{id}': row(
      'its sender; owner and admins of a group',
      'message_not_found',
      'message_not_found',
      'ok',
      'forbidden',
    ),
    'POST /messages/status': seen,
    'GET /search': own,
    'GET /search/messages': own,
    'GET /search/messages (in a chat of others)': readers,
    'POST /messages/{id}/forward': row('members of both chats', 'message_not_found', 'message_not_found', 'not_allowed', 'ok'),
    'POST /messages/{id}/forward (to a chat of others)': writers,
    'POST /messages/{id}/reactions': reacting,
    'DELETE /messages/{id}/reactions/{emoji}': reacting,
    'PUT /chats/{id}/pins/{message_id}': pinning,
    'DELETE /chats/{id}/pins/{message_id}': pinning,
  },
  'The server': {
    'POST /admin/invites': admins,
    'GET /admin/invites': admins,
    'DELETE /admin/invites/{code}': admins,
    'GET /admin/stats': admins,
    'POST /admin/users/{id}/disable': admins,
    'POST /admin/users/{id}/enable': admins,
  },
}

/** Commands of the WebSocket. A string: as that operation of REST. */
export const commands: Record<string, Row | typeof own | string> = {
  auth: own,
  ping: own,
  sync: own,
  message: 'POST /messages',
  edit: 'PATCH /messages/{id}',
  delete: 'DELETE /messages/{id}',
  react: 'POST /messages/{id}/reactions',
  typing: 'POST /chats/{id}/typing',
  read: 'POST /chats/{id}/read',
  delivered: 'POST /chats/{id}/read',
  join_chat: readers,
  leave_chat: anybody,
}

/** By name, the aim in brackets left out. */
export const operationOf = (name: string) => name.replace(/ \(.*\)$/, '')

export const rows = Object.values(rest).flatMap((section) => Object.entries(section))
