import type { FastifyReply, FastifyRequest } from 'fastify'
import { AppError } from '../errors.ts'
import type { Authenticate, Identity } from '../identity.ts'
import type { LimitRule, LimitState, Limits } from '../limits/limits.ts'
import { addressKey, seconds } from '../limits/take.ts'
import type { App } from './types.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** Who is asking. Throws `unauthorized` on a public route, where nobody was asked. */
    readonly identity: Identity
  }
  interface FastifyContextConfig {
    /** Takes a form with one file, `file`. */
    upload?: boolean
    /** Needs no token. */
    public?: boolean
    /** `false`: does not count in the general limit, because it has one of its own or is nobody's burden. */
    rateLimit?: false
    /** The token may also come as `?token=`: for what cannot send a header. */
    tokenInQuery?: true
  }
}

const who = Symbol('identity')
type Known = FastifyRequest & { [who]?: Identity }

/** The token of `Authorization: Bearer …`. Throws `unauthorized`. */
export function bearerToken(header: string | undefined): string {
  const token = /^Bearer +(\S+) *$/i.exec(header ?? '')?.[1]
  if (token === undefined) throw new AppError('unauthorized')
  return token
}

/** The access token of a request, where its route takes it from. Throws `unauthorized`. */
export function tokenOf({ headers, query, routeOptions }: FastifyRequest): string {
  const { token } = query as { token?: unknown }
  const isInQuery = routeOptions.config.tokenInQuery === true && headers.authorization === undefined && typeof token === 'string'
  return isInQuery ? token : bearerToken(headers.authorization)
}

/** Tells where the caller stands in a limit; a rule that is off tells nothing. */
export function limitHeaders(reply: FastifyReply, state: LimitState): void {
  if (state.limit === Infinity) return
  reply.headers({
    'RateLimit-Limit': String(state.limit),
    'RateLimit-Remaining': String(state.remaining),
    'RateLimit-Reset': String(seconds(state.resetMs)),
  })
}

export interface AccessOptions {
  authenticate: Authenticate
  limits: Limits
  rules: { general: LimitRule; premium: LimitRule }
}

/** Every route asks for a token and counts in the general limit, unless its `config` says otherwise. */
export function addAccess(app: App, { authenticate, limits, rules }: AccessOptions): void {
  app.decorateRequest('identity', {
    getter(this: FastifyRequest): Identity {
      const identity = (this as Known)[who]
      if (!identity) throw new AppError('unauthorized')
      return identity
    },
  })

  async function count(reply: FastifyReply, key: string, rule: LimitRule): Promise<void> {
    const state = await limits.hit('general', key, rule)
    limitHeaders(reply, state)
    if (!state.allowed) throw new AppError('rate_limited', { retryAfter: seconds(state.resetMs) })
  }

  app.addHook('onRequest', async (request, reply) => {
    const { config } = request.routeOptions
    const byAddress = () => count(reply, addressKey(request.ip), rules.general)
    if (request.is404) return byAddress()
    if (config.public) return config.rateLimit === false ? undefined : byAddress()
    let identity: Identity
    try {
      identity = await authenticate(tokenOf(request))
    } catch (error) {
      // Guessing tokens is not free either.
      await byAddress()
      throw error
    }
    ;(request as Known)[who] = identity
    if (config.rateLimit !== false) await count(reply, identity.user_id, identity.is_premium ? rules.premium : rules.general)
  })
}
