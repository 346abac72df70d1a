import { createHmac, timingSafeEqual } from 'node:crypto'

/**
 * Links that a browser can follow without a header: `?u=&t=&s=` says who asks, until when (Unix seconds), and that this
 * server said so. What they may see is asked at each request, so that a link is worth no more than the person it was given to.
 */

export const linkTtlMs = 15 * 60_000

const seal = (key: Buffer, user: string, until: string) =>
  createHmac('sha256', key).update(`${user} ${until}`).digest('base64url')

export function signLinks(key: Buffer, userId: string, now = Date.now()): { query: string; expires_at: string } {
  const until = Math.floor((now + linkTtlMs) / 1_000)
  const s = seal(key, userId, String(until))
  return { query: `u=${userId}&t=${until}&s=${s}`, expires_at: new Date(until * 1_000).toISOString() }
}

export interface Link {
  u: string
  t: string
  s: string
}

/** Whose link it is; undefined where it is not ours, or no longer good. */
export function readLink(key: Buffer, { u, t, s }: Link, now = Date.now()): string | undefined {
  const [given, right] = [Buffer.from(s), Buffer.from(seal(key, u, t))]
  return given.length === right.length && timingSafeEqual(given, right) && Number(t) * 1_000 > now ? u : undefined
}
