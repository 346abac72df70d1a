import { type ErrorCode, errors } from '../protocol/errors.ts'
import type { LimitState } from './limits/limits.ts'

/** A refusal that the caller is told of: REST answers it with its status, WebSocket as an error frame. */
export class AppError extends Error {
  override readonly name = 'AppError'
  readonly code: ErrorCode
  readonly status: number
  /** Which field, and why; only on `invalid_input`. */
  readonly details: Record<string, string> | undefined
  /** Seconds. */
  readonly retryAfter: number | undefined
  /** Where the caller stands in the limit that refused it; only on `rate_limited`. */
  readonly limit: LimitState | undefined

  constructor(
    code: ErrorCode,
    extra: { details?: Record<string, string>; retryAfter?: number; limit?: LimitState; cause?: unknown } = {},
  ) {
    super(errors[code][1], { cause: extra.cause })
    this.code = code
    this.status = errors[code][0]
    this.details = extra.details
    this.retryAfter = extra.retryAfter
    this.limit = extra.limit
  }
}

/** The one form of an error, on REST and (with `type` and `id`) on WebSocket. */
export interface ErrorBody {
  error: string
  code: ErrorCode
  details?: Record<string, string>
  retry_after?: number
}

export function errorBody(error: AppError): ErrorBody {
  return {
    error: error.message,
    code: error.code,
    ...(error.details && { details: error.details }),
    ...(error.retryAfter !== undefined && { retry_after: error.retryAfter }),
  }
}

const connectionTrouble = /^(08|57P|53|25006|55000)/

/** True for errors that say the database cannot be reached or is going down: the work may be tried again. */
export function isUnavailable(error: unknown): boolean {
  if (!(error instanceof Error)) return false
  const code = (error as { code?: unknown }).code
  if (typeof code === 'string') {
    return connectionTrouble.test(code) || /^(ECONN|EPIPE|ETIMEDOUT|ENOENT|EHOSTUNREACH|ENOTFOUND|EAI_AGAIN)/.test(code)
  }
  return /Connection terminated|timeout exceeded when trying to connect|Client has encountered a connection error|not queryable/.test(
    error.message,
  )
}
