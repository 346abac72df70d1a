import { isIPv6 } from 'node:net'
import { AppError } from '../errors.ts'
import type { LimitRule, LimitState, Limits } from './limits.ts'

/** Seconds, at least 1: what `Retry-After` and `RateLimit-Reset` say. */
export const seconds = (ms: number): number => Math.max(1, Math.ceil(ms / 1000))

/** Counts a hit, or `cost` of them; throws `rate_limited` with the seconds to wait when the rule refuses it. */
export async function takeLimit(limits: Limits, name: string, key: string, rule: LimitRule, cost = 1): Promise<LimitState> {
  const state = await limits.hit(name, key, rule, cost)
  if (!state.allowed) throw new AppError('rate_limited', { retryAfter: seconds(state.resetMs), limit: state })
  return state
}

/**
 * What is counted for an address. One subscriber has a whole /64 of IPv6, so addresses of one /64 count together;
 * an IPv4 address written as IPv6 counts as what it is.
 */
export function addressKey(ip: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(ip)
  if (mapped) return mapped[1]!
  if (!isIPv6(ip)) return ip
  const [head = '', tail] = ip.split('%')[0]!.toLowerCase().split('::')
  const left = head === '' ? [] : head.split(':')
  const right = tail === undefined || tail === '' ? [] : tail.split(':')
  // An IPv4 address at the end stands for two groups; it is beyond the first four in any case.
  const missing = Math.max(0, 8 - left.length - right.length - (right.at(-1)?.includes('.') ? 1 : 0))
  const groups = tail === undefined ? left : [...left, ...Array<string>(missing).fill('0'), ...right]
  return `${groups
    .slice(0, 4)
    .map((group) => group.replace(/^0+(?=.)/, ''))
    .join(':')}::/64`
}
