import { vi } from 'vitest'
import type { Bus } from '../../src/platform/bus/bus.ts'

/** What a bus heard, as text, and how often it told a gap. */
export function ears(bus: Bus) {
  const heard: string[] = []
  const raw: Buffer[] = []
  const gaps = vi.fn()
  bus.onMessage((channel, payload) => {
    heard.push(`${channel} ${payload.toString()}`)
    raw.push(payload)
  })
  bus.onGap(gaps)
  return { heard, raw, gaps }
}

export const text = (value: unknown) => Buffer.from(String(value))
export const until = (check: () => void, timeout = 8_000) => vi.waitFor(check, { timeout, interval: 10 })
