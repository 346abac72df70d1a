import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { ensureTool } from '../../test/support/tools.ts'
import { bareIngest, fsyncMs } from '../bare/postgres.ts'
import { startGenerator } from '../generator.ts'
import { startNode } from '../processes.ts'
import type { Report } from '../report.ts'
import type { Options, Scenario } from '../scenario.ts'
import { openPostgres, openRedis } from '../stack.ts'
import { best, climb, shareCells, step, stepRow, usualBytes } from '../steps.ts'

async function broadcast(report: Report, how: 'turn' | 'each', size: number, { seconds, short }: Options): Promise<void> {
  const server = await startNode(['bench/bare/broadcast.ts', how], { ready: /is ready on (http\S+)/ })
  const generator = await startGenerator()
  const peers = Array.from({ length: size }, () => ({ url: server.said, token: 'none', chat: 0 }))
  await generator.connect(peers, ['none'])
  const stack = { pids: { server: [server.pid], postgres: [], redis: [] } }
  const senders = Array.from({ length: 20 }, (_, n) => Math.floor((n * size) / 20))
  const from = Math.round(60_000 / size)
  await step(generator, stack, from, { senders, seconds: 2 })
  const steps = await climb({ from }, (rate) => step(generator, stack, rate, { senders, seconds: seconds ?? (short ? 3 : 10) }))
  report.note(`**bare \`ws\`, ${size} sockets, ${how === 'turn' ? 'frames of a turn in one write' : 'a write for each frame'}**`)
  report.table(steps.map(stepRow))
  report.figures.set(`limit room ${size} ${how}`, best(steps)?.deliveriesPerSecond ?? 0)
  await generator.stop()
  await server.stop()
}

async function ingest(report: Report, { seconds, short }: Options): Promise<void> {
  const postgres = await openPostgres()
  const fsync = fsyncMs()
  const made = await bareIngest(postgres, seconds ?? (short ? 5 : 20), usualBytes)
  report.note('**bare PostgreSQL: one client, batches of 50 messages, a durable commit for each batch**')
  const { server: _server, redis: _redis, ...shares } = shareCells(made)
  report.table([
    { 'messages/s': Math.round(made.perSecond), 'commits/s': Math.round(made.commits), 'fsync ms': fsync, ...shares },
  ])
  report.figures.set('limit ingest', made.perSecond)
  await postgres.close()
}

const run = promisify(execFile)

async function publish(report: Report): Promise<void> {
  ensureTool('redis-benchmark', 'redis-tools')
  const redis = await openRedis()
  // As one instance does it: one connection, what is published in a turn in one pipeline.
  const load = ['-c', '1', '-P', '16', '-n', '200000', '--csv', 'PUBLISH', 'parley:chat:00000000', 'x'.repeat(900)]
  const { stdout } = await run('redis-benchmark', ['-h', '127.0.0.1', '-p', String(redis.port), ...load])
  const perSecond = Number(stdout.trim().split('\n').at(-1)!.split('","')[1])
  report.note('**bare Redis: `redis-benchmark` publishing 900 bytes, one connection, pipelines of 16, nobody listening**')
  report.table([{ 'publications/s': Math.round(perSecond) }])
  report.figures.set('limit publish', perSecond)
  await redis.close()
}

export const limit: Scenario = {
  name: 'limit',
  about: 'What the machine can do at all, with nothing of the server: the denominators.',
  elsewhere: false,
  async run(report, options) {
    for (const size of [300, 1_500]) for (const how of ['each', 'turn'] as const) await broadcast(report, how, size, options)
    await ingest(report, options)
    await publish(report)
  },
}
