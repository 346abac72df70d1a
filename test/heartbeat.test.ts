import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { startServers, type TestServers } from './support/server.ts'
import { Stream } from './support/stream.ts'
import { until, Wire } from './support/wire.ts'

/** A peer that is silent for 60 s is dropped. Intervals and the clock are the test's; everything else takes its time. */

let servers: TestServers
beforeAll(async () => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'Date'] })
  servers = await startServers({ env: { CORS_ORIGINS: '*' } })
})
afterAll(async () => {
  await servers.close()
  vi.useRealTimers()
})

test('pings come every 25 s; who answers stays, who does not is cut', async () => {
  const { token } = await servers.register('anna')
  const url = servers.instances[0]!.url
  // Any origin is any.
  const answering = new Wire(url, `/ws?token=${token}`, { origin: 'https://anywhere.example' })
  const speaking = new Wire(url, `/ws?token=${token}`, { autoPong: false })
  const silent = new Wire(url, `/ws?token=${token}`, { autoPong: false })
  const pings: number[] = []
  silent.socket.on('ping', () => pings.push(Date.now()))
  const streaming = await Stream.open(url, token)
  await Promise.all([answering, speaking, silent, streaming].map((wire) => wire.type('ready')))
  const begun = Date.now()
  for (let second = 0; second < 95; second += 1) {
    if (second % 20 === 0) speaking.send({ type: 'ping' })
    vi.advanceTimersByTime(1_000)
    // Frames travel in real time.
    await sleep(5)
  }
  // The clock stands still here, so that no bound on it can be met.
  for (let n = 0; n < 400 && silent.code === undefined; n += 1) await sleep(5)
  expect(silent.code).toBe(1006)
  expect(pings.length).toBeGreaterThanOrEqual(2)
  expect(pings.length).toBeLessThanOrEqual(3)
  expect(pings[1]! - pings[0]!).toBe(25_000)
  expect(Date.now() - begun).toBe(95_000)
  // A stream cannot answer: that what keeps it open is taken is enough.
  expect(streaming.all.filter(({ comment }) => comment !== undefined).length).toBeGreaterThanOrEqual(3)
  expect(streaming.ended).toBe(false)
  streaming.end()
  for (const wire of [answering, speaking]) {
    expect(wire.code).toBeUndefined()
    expect(await wire.ask({ type: 'ping' })).toMatchObject({ type: 'pong' })
    wire.end()
  }
  await until(() => servers.instances[0]!.server.hub.size.users === 0, 'nobody is left')
})
