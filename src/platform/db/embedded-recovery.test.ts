import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, expect, test, vi } from 'vitest'
import {
  closeAll,
  end,
  newDataDir,
  openHere,
  postmaster,
  processesOn,
  query,
  recall,
  remember,
  removeAll,
  spawnServer,
  warnings,
} from './embedded.fixture.ts'
import { findRunner } from './embedded-runner.ts'

afterEach(closeAll)
afterAll(async () => expect(await removeAll(), 'left behind').toEqual([]))

test('kill -9 of Node ends its PostgreSQL too, and the next start finds the data', async () => {
  const dataDir = await newDataDir()
  const { child, ready } = spawnServer(dataDir)
  await remember(await ready, 'one')
  await end(child, 'SIGKILL')
  await vi.waitFor(() => expect(processesOn(dataDir)).toEqual([]), { timeout: 10_000 })
  const next = await openHere(dataDir)
  expect(await recall(next.connection)).toBe('one')
})

test('a start right after kill -9 of Node does not trip over the PostgreSQL that is still stopping', async () => {
  const dataDir = await newDataDir()
  const { child, ready } = spawnServer(dataDir)
  await remember(await ready, 'two')
  await end(child, 'SIGKILL')
  expect(await recall((await openHere(dataDir)).connection)).toBe('two')
})

test('kill -9 of Node and PostgreSQL together is recovered from', async () => {
  const dataDir = await newDataDir()
  const { child, ready } = spawnServer(dataDir)
  await remember(await ready, 'three')
  process.kill(postmaster(dataDir), 'SIGKILL')
  await end(child, 'SIGKILL')
  expect(await recall((await openHere(dataDir)).connection)).toBe('three')
})

test('kill -9 of PostgreSQL alone is told, once, and the data can be opened again', async () => {
  const dataDir = await newDataDir()
  const postgres = await openHere(dataDir)
  await remember(postgres.connection, 'four')
  const told: string[] = []
  const why = new Promise<string>((resolve) => postgres.onExit((line) => told.push(line) && resolve(line)))
  process.kill(postmaster(dataDir), 'SIGKILL')
  expect(await why).toMatch(/ended unexpectedly \(signal SIGKILL\)/)
  const late = new Promise((resolve) => postgres.onExit(resolve))
  expect(await late).toBe(await why)
  await postgres.close()
  expect(told).toHaveLength(1)
  expect(await recall((await openHere(dataDir)).connection)).toBe('four')
})

test('closing is not told as an accident', async () => {
  const postgres = await openHere(await newDataDir())
  const listener = vi.fn()
  postgres.onExit(listener)
  await Promise.all([postgres.close(), postgres.close()])
  await sleep(50)
  expect(listener).not.toHaveBeenCalled()
})

test('an orphan that outlived its server is stopped; a postmaster.pid that names somebody else is no obstacle', async () => {
  const dataDir = await newDataDir()
  const first = await openHere(dataDir)
  await remember(first.connection, 'five')
  await first.close()

  const cluster = join(dataDir, 'postgres')
  const { command } = await findRunner(cluster)
  const [file, args, options] = command('postgres', [
    '-D',
    cluster,
    '-c',
    'listen_addresses=',
    '-c',
    `unix_socket_directories=${cluster}`,
  ])
  const orphan = spawn(file, args, { ...options, stdio: 'ignore' })
  const gone = once(orphan, 'exit')
  await vi.waitFor(() => expect(readFileSync(join(cluster, 'postmaster.pid'), 'utf8')).toContain('ready'), { timeout: 10_000 })
  const second = await openHere(dataDir)
  await gone
  expect(warnings.at(-1)).toContain(`pid ${orphan.pid}`)
  expect(await recall(second.connection)).toBe('five')
  await second.close()

  writeFileSync(join(cluster, 'postmaster.pid'), `${process.pid}\n${cluster}\n`)
  expect(await recall((await openHere(dataDir)).connection)).toBe('five')
})

test('a first start that was killed in the middle is begun again', async () => {
  const dataDir = await newDataDir()
  const { child, ready } = spawnServer(dataDir)
  ready.catch(() => undefined)
  const unfinished = () => readdirSync(dataDir).filter((name) => name.startsWith('postgres.init-'))
  await vi.waitFor(() => expect(unfinished()).toHaveLength(1), { timeout: 10_000, interval: 5 })
  await end(child, 'SIGKILL')
  expect(unfinished()).toHaveLength(1)
  const next = await openHere(dataDir)
  expect(await query(next.connection, 'SELECT 1')).toBe(1)
  expect(unfinished()).toEqual([])
})

test('Ctrl-C reaches Node, not PostgreSQL, which outlives the graceful stop', async () => {
  const { child, line, ready } = spawnServer(await newDataDir())
  const connection = await ready
  const interrupted = line()
  process.kill(-child.pid!, 'SIGINT')
  expect(await interrupted).toBe('interrupted\n')
  await sleep(100)
  expect(await query(connection, 'SELECT 1')).toBe(1)
})
