import { Socket } from 'node:net'
import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify'
import type { ErrorCode } from '../../protocol/errors.ts'
import { asAppError } from '../db/db.ts'
import { AppError, errorBody } from '../errors.ts'
import { limitHeaders } from './access.ts'

/** Every way in which a request can fail, in the one form of an error. Nothing of what went wrong inside is told. */

const fastifyCodes: Record<string, ErrorCode> = {
  FST_ERR_CTP_BODY_TOO_LARGE: 'body_too_large',
  FST_ERR_CTP_INVALID_MEDIA_TYPE: 'unsupported_media_type',
  FST_ERR_CTP_EMPTY_TYPE: 'unsupported_media_type',
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: 'malformed_body',
  FST_ERR_CTP_INVALID_JSON_BODY: 'malformed_body',
  FST_REQ_FILE_TOO_LARGE: 'body_too_large',
  FST_ERR_BAD_URL: 'invalid_input',
  FST_ERR_MAX_PARAM_LENGTH: 'invalid_input',
}

const statusCodes: Record<number, ErrorCode> = {
  400: 'invalid_input',
  404: 'not_found',
  405: 'method_not_allowed',
  413: 'body_too_large',
  415: 'unsupported_media_type',
  429: 'rate_limited',
}

function refusalOf(error: unknown): AppError {
  if (error instanceof AppError) return error
  const { code = '', statusCode = 500 } = (error ?? {}) as Partial<FastifyError>
  // Only errors of the framework carry a status; those of PostgreSQL have a code of their own.
  const known = fastifyCodes[code] ?? (statusCode < 500 ? (statusCodes[statusCode] ?? 'invalid_input') : undefined)
  return known ? new AppError(known, { cause: error }) : asAppError(error)
}

/** RFC 6750, section 3: why a bearer token was not taken. */
function challenge(code: ErrorCode): string {
  const realm = 'Bearer realm="parley"'
  if (code === 'invalid_token' || code === 'session_ended') return `${realm}, error="invalid_token"`
  if (code === 'token_expired') return `${realm}, error="invalid_token", error_description="The token has expired"`
  return realm
}

/** So long the rest of a body that is too large is read and thrown away: who is cut off at once would not see the answer. */
const lingerMs = 3_000

function cutOff({ raw }: FastifyRequest): void {
  setTimeout(() => {
    if (!raw.complete && raw.socket instanceof Socket) raw.socket.destroy()
  }, lingerMs).unref()
}

export function answerError(error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const refusal = refusalOf(error)
  if (refusal.code === 'internal_error') request.log.error({ err: error }, 'request failed')
  else if (refusal.status >= 500) request.log.warn({ err: error }, 'request refused')
  if (refusal.status === 401) reply.header('WWW-Authenticate', challenge(refusal.code))
  if (refusal.limit) limitHeaders(reply, refusal.limit)
  if (refusal.code === 'body_too_large') cutOff(request)
  if (refusal.retryAfter !== undefined) reply.header('Retry-After', String(refusal.retryAfter))
  return (
    reply
      .code(refusal.status)
      // Whatever the handler was about to send, this is JSON and nobody's to keep.
      .header('Content-Type', 'application/json; charset=utf-8')
      .header('Cache-Control', 'no-store')
      .send(JSON.stringify({ ...errorBody(refusal), request_id: request.id }))
  )
}

/** What is no HTTP at all never becomes a request: it is answered on the bare socket. */
export function answerClientError(error: Error & { code?: string }, socket: Socket): void {
  if (!socket.writable || error.code === 'ECONNRESET') {
    socket.destroy()
    return
  }
  const status =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? '431 Request Header Fields Too Large'
      : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? '408 Request Timeout'
        : '400 Bad Request'
  const body = JSON.stringify({ ...errorBody(new AppError('invalid_input')), request_id: '' })
  socket.end(
    `HTTP/1.1 ${status}\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  )
}
