/**
 * The one catalogue of error codes: code -> HTTP status and the sentence for a person.
 * A code is stable: clients may branch on it. WebSocket errors carry the same codes.
 */
export const errors = {
  invalid_input: [400, 'Some of the input is not valid'],
  malformed_body: [400, 'The body is not valid JSON'],
  malformed_frame: [400, 'The frame is not a JSON object'],
  unknown_type: [400, 'There is no command of this type'],
  invalid_reply: [400, 'The message replied to is not in this chat'],
  not_a_group: [400, 'This works on groups only'],
  unauthorized: [401, 'Sign in first'],
  invalid_token: [401, 'The token is not valid'],
  token_expired: [401, 'The token has expired'],
  session_ended: [401, 'This session has ended'],
  invalid_credentials: [401, 'Login or password is wrong'],
  invalid_refresh_token: [401, 'The refresh token is not valid'],
  refresh_token_reused: [401, 'The refresh token was used before; the session has ended'],
  wrong_password: [403, 'The password is wrong'],
  forbidden: [403, 'Your role does not allow this'],
  not_editable: [403, 'Messages of this type cannot be edited, deleted or forwarded'],
  not_allowed: [403, 'This person cannot be reached by you'],
  registration_closed: [403, 'This server does not take new accounts'],
  origin_not_allowed: [403, 'This origin may not connect'],
  not_found: [404, 'There is nothing here'],
  user_not_found: [404, 'There is no such user'],
  chat_not_found: [404, 'There is no such chat'],
  message_not_found: [404, 'There is no such message'],
  member_not_found: [404, 'There is no such member'],
  session_not_found: [404, 'There is no such session'],
  method_not_allowed: [405, 'This method is not allowed here'],
  username_taken: [409, 'This username is taken'],
  phone_taken: [409, 'This phone number is taken'],
  email_taken: [409, 'This email address is taken'],
  group_full: [409, 'The group is full'],
  message_deleted: [409, 'The message has been deleted'],
  too_many_reactions: [409, 'The message has as many different reactions as it can have'],
  too_many_pins: [409, 'The chat has as many pinned messages as it can have'],
  body_too_large: [413, 'The body is too large'],
  unsupported_media_type: [415, 'The content type is not supported'],
  upgrade_required: [426, 'Connect with a WebSocket'],
  rate_limited: [429, 'Too many requests'],
  internal_error: [500, 'Something went wrong on the server'],
  unavailable: [503, 'A service that this needs is not available, try again'],
  overloaded: [503, 'The server is busy, try again'],
} as const satisfies Record<string, readonly [status: number, message: string]>

export type ErrorCode = keyof typeof errors
export const errorCodes = Object.keys(errors) as [ErrorCode, ...ErrorCode[]]
