import { z } from 'zod'
import { type ErrorCode, errorCodes, errors } from '../../protocol/errors.ts'

/** Schemas of answers. They make the documents, and tests check answers against them; the hot path does not. */

export const ErrorAnswer = z
  .object({
    error: z.string().describe('A sentence for a person'),
    code: z.enum(errorCodes).describe('Stable: a client may branch on it'),
    details: z.record(z.string(), z.string()).optional().describe('Only on `invalid_input`: which field, and why'),
    retry_after: z.number().int().optional().describe('Seconds to wait before trying again'),
    request_id: z.string(),
  })
  .meta({ id: 'Error' })

/** An answer that only says that it was done. */
export const Done = z.object({ message: z.string() }).meta({ id: 'Done' })

const everywhere: ErrorCode[] = ['invalid_input', 'malformed_body', 'rate_limited', 'internal_error', 'unavailable']
const signedIn: ErrorCode[] = ['unauthorized', 'invalid_token', 'token_expired', 'session_ended']

/**
 * The `response` schema of a route: what it answers when all is well, and every way in which it may refuse. The codes that
 * all routes have are added; `public` leaves out those of a missing or bad token.
 */
export function answers<T extends Record<number, z.ZodType>>(
  ok: T,
  codes: readonly ErrorCode[] = [],
  { public: isPublic = false }: { public?: boolean } = {},
): T {
  const byStatus = new Map<number, ErrorCode[]>()
  for (const code of new Set([...everywhere, ...(isPublic ? [] : signedIn), ...codes])) {
    const status = errors[code][0]
    byStatus.set(status, [...(byStatus.get(status) ?? []), code])
  }
  const refusals = Object.fromEntries(
    Array.from(byStatus, ([status, list]) => [
      status,
      { description: list.map((code) => `\`${code}\``).join(', '), content: { 'application/json': { schema: ErrorAnswer } } },
    ]),
  )
  // Handlers throw their refusals, so that only what they return has to be typed.
  return { ...refusals, ...ok }
}
