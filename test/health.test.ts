import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { databaseCheck } from '../src/modules/health/checks.ts'
import { type Harness, refused, startHarness } from './support/harness-auth.ts'

/** What an operator looks at. */

let h: Harness
beforeAll(async () => {
  h = await startHarness()
  await h.person('somebody')
})
afterAll(() => h.stop())

test('health says what it stands on, and many probes ask the database once', async () => {
  const answer = await h.app.inject('/health')
  expect(answer.statusCode).toBe(200)
  expect(answer.headers['cache-control']).toBe('no-store')
  expect(answer.json()).toEqual({
    status: 'ok',
    timestamp: expect.closeTo(Date.now() / 1000, -1),
    service: 'messenger-api',
    version: '0.0.0-test',
    uptime: expect.any(Number),
    services: { database: 'connected', redis: 'in-process', websocket: 'running' },
  })
  expect((await h.app.inject({ method: 'HEAD', url: '/health' })).statusCode).toBe(200)
  expect((await h.app.inject('/health/live')).json()).toEqual({ status: 'ok' })
})

test('a database that hangs is answered for within 2 s, by one question; one that fails at once', async () => {
  vi.useFakeTimers()
  let settle: (() => void)[] = []
  const query = vi.fn(() => new Promise<never[]>((resolve) => settle.push(() => resolve([]))))
  const check = databaseCheck({ query })
  const probes = Promise.all(Array.from({ length: 50 }, check))
  await vi.advanceTimersByTimeAsync(2_000)
  expect(await probes).toEqual(Array(50).fill(false))
  const later = check()
  expect(query).toHaveBeenCalledTimes(1)
  for (const done of settle.splice(0)) done()
  expect(await later).toBe(true)
  expect(await check()).toBe(true)
  expect(query).toHaveBeenCalledTimes(1)
  await vi.advanceTimersByTimeAsync(1_000)
  settle = []
  query.mockRejectedValueOnce(new Error('gone'))
  expect(await check()).toBe(false)
  vi.useRealTimers()
})

test('metrics: from this machine alone, never through a proxy, without a token', async () => {
  const scrape = (harness: Harness, headers: Record<string, string> = {}, remoteAddress = '127.0.0.1') =>
    harness.app.inject({ url: '/metrics', headers, remoteAddress })
  const text = (await scrape(h)).payload
  expect(text).toMatch(/parley_http_request_seconds_count\{method="POST",route="\/api\/v1\/auth\/register",status="201"\} \d+/)
  expect(text).toContain('nodejs_eventloop_lag_seconds')
  expect((await scrape(h, {}, '::1')).statusCode).toBe(200)
  refused(await scrape(h, {}, '10.0.0.1'), 404, 'not_found')
  for (const name of ['x-forwarded-for', 'x-forwarded-proto', 'forwarded', 'via', 'x-real-ip']) {
    refused(await scrape(h, { [name]: '127.0.0.1' }), 404, 'not_found')
  }

  const guarded = await startHarness({ metricsToken: 'scrape me!' })
  refused(await scrape(guarded), 401, 'unauthorized')
  refused(await scrape(guarded, { authorization: 'Bearer wrong' }), 401, 'invalid_token')
  expect((await scrape(guarded, { authorization: 'Bearer scrape' }, '10.0.0.1')).statusCode).toBe(401)
  await guarded.stop()
})
