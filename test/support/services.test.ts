import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { expect, test } from 'vitest'
import { createDatabase, freePort, redisUrl, startRedis } from './services.ts'

async function query(url: string, text: string): Promise<unknown> {
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => undefined)
  await client.connect()
  try {
    return (await client.query({ text, rowMode: 'array' })).rows[0]?.[0]
  } finally {
    await client.end()
  }
}

/** What Redis answers to one command within a second, or how the attempt ended. */
function ask(url: string, command: string): Promise<string> {
  const { hostname, port } = new URL(url)
  return new Promise((resolve) => {
    const socket = connect(Number(port), hostname, () => socket.write(`${command}\r\n`))
    socket.setTimeout(1_000, () => socket.destroy(new Error('silence')))
    socket.once('data', (data) => {
      resolve(data.toString().trim())
      socket.destroy()
    })
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message))
  })
}

test('each database is its own, and can be dropped while somebody is connected', async () => {
  const [one, two] = await Promise.all([createDatabase(), createDatabase()])
  await query(one.url, 'CREATE TABLE only_here (x int)')
  expect(await query(one.url, "SELECT to_regclass('only_here')::text")).toBe('only_here')
  expect(await query(two.url, "SELECT to_regclass('only_here')::text")).toBeNull()
  expect(await query(one.url, 'SHOW server_encoding')).toBe('UTF8')
  const guest = new pg.Client({ connectionString: two.url })
  const cutOff = new Promise((resolve) => guest.on('error', resolve))
  await guest.connect()
  await Promise.all([one.drop(), two.drop()])
  await cutOff
  await expect(query(two.url, 'SELECT 1')).rejects.toThrow(/does not exist/)
})

test('the shared Redis answers', async () => {
  expect(await ask(redisUrl(), 'PING')).toBe('+PONG')
})

test('a private Redis can be killed, started again on its port, and frozen', async () => {
  const redis = await startRedis()
  expect(redis.port).toBeLessThan(32_768)
  await ask(redis.url, 'SET word kept')
  const { pid } = redis
  await redis.stop()
  expect(redis.pid).toBeUndefined()
  expect(await ask(redis.url, 'PING')).toBe('ECONNREFUSED')
  await redis.start()
  expect(redis.pid).not.toBe(pid)
  expect(await ask(redis.url, 'GET word')).toBe('$-1')
  redis.pause()
  await sleep(20)
  expect(await ask(redis.url, 'PING')).toBe('silence')
  redis.resume()
  expect(await ask(redis.url, 'PING')).toBe('+PONG')
  redis.pause()
  await redis.stop()
  expect(await ask(redis.url, 'PING')).toBe('ECONNREFUSED')
})

test('a free port is below those that the kernel gives away', async () => {
  const port = await freePort()
  expect(port).toBeGreaterThanOrEqual(20_000)
  expect(port).toBeLessThan(32_768)
})
