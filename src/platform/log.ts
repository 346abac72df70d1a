import { type DestinationStream, type Logger, pino } from 'pino'

export type Log = Logger

/**
 * Of an error only what helps and what cannot hold anybody's text: PostgreSQL repeats whole rows in `detail` and `where`.
 */
function describeError(error: unknown): unknown {
  if (!(error instanceof Error)) return { message: String(error) }
  const { code, constraint, table, column } = error as unknown as Record<string, unknown>
  return {
    type: error.name,
    message: error.message,
    stack: error.stack,
    ...(code !== undefined && { code }),
    ...(constraint !== undefined && { constraint }),
    ...(table !== undefined && { table }),
    ...(column !== undefined && { column }),
    ...(error.cause !== undefined && { cause: describeError(error.cause) }),
  }
}

const secretQuery = /([?&](?:token|t|s)=)[^&#]*/gi

/** A URL without the values of those query fields that let somebody in. */
export const withoutSecrets = (url: string): string => url.replace(secretQuery, '$1***')

// Nothing logs bodies or headers; should somebody do so one day, these stay out all the same.
const secretFields = [
  'password',
  'old_password',
  'new_password',
  'token',
  'refresh_token',
  'content',
  'code',
  'authorization',
  'cookie',
]

/** Writes JSON lines to `destination`, standard output unless told. */
export function createLog(level: string, destination?: DestinationStream): Log {
  const options = {
    level,
    redact: {
      paths: secretFields.flatMap((field) => (field === 'code' ? [`body.${field}`] : [field, `*.${field}`, `*.*.${field}`])),
      censor: '***',
    },
    serializers: {
      err: describeError,
      error: describeError,
      req: (request: { method?: string; url?: string }) => ({ method: request.method, url: withoutSecrets(request.url ?? '') }),
    },
  }
  return destination ? pino(options, destination) : pino(options)
}
