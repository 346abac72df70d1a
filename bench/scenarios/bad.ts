import { setTimeout as sleep } from 'node:timers/promises'
import type { LoadResult } from '../calls.ts'
import { undoLater } from '../ending.ts'
import { type Generator, startGenerator } from '../generator.ts'
import { dm, each, group, register } from '../people.ts'
import { isStopped, rss } from '../proc.ts'
import { megabytes, type Report } from '../report.ts'
import type { Options, Scenario } from '../scenario.ts'
import { openStack, type Stack } from '../stack.ts'
import { shareCells, step, stepRow, usualBytes } from '../steps.ts'

/** Of these, none may lose a message of those who behave. */
const parts = [slowReader, busySender, stalledDatabase]

const allArrived = ({ streams, unordered }: LoadResult): boolean =>
  unordered === 0 &&
  streams.every((stream) => stream.delivered === stream.expected && stream.duplicates === 0 && stream.stray === 0)

async function inPairs(stack: Stack, generator: Generator, pairs: number): Promise<void> {
  const [server = ''] = stack.urls
  const people = await register(server, 2 * pairs)
  const chats = await each(Array.from({ length: pairs }), (_, n) => dm(server, people[2 * n]!, people[2 * n + 1]!))
  await generator.connect(
    people.map(({ token }, n) => ({ url: server, token, chat: Math.floor(n / 2) })),
    chats,
  )
}

/** How often the server has closed a connection because it did not read; undefined where that cannot be asked. */
async function closedAsSlow(server: string): Promise<number | undefined> {
  const response = await fetch(`${server}/metrics`)
  if (!response.ok) return undefined
  return Number(/^parley_websocket_closes_total\{reason="too_slow"\} (\d+)/m.exec(await response.text())?.[1] ?? 0)
}

/** One of 50 members stops reading. Long messages, so that its bound is reached soon behind the kernel's own buffers. */
async function slowReader(report: Report, { url, seconds = 15 }: Options): Promise<void> {
  const stack = await openStack({ url })
  const generator = await startGenerator()
  const [server = ''] = stack.urls
  const people = await register(server, 50)
  const chat = await group(server, people)
  await generator.connect(
    people.map(({ token }) => ({ url: server, token, chat: 0 })),
    [chat],
  )
  // Some megabytes are in the kernel's buffers before the server notices anything.
  const options = { senders: [0, 1, 2, 3], seconds: Math.max(12, seconds), bytes: 4_000 }
  await step(generator, stack, 200, { ...options, seconds: 3 })
  const before = await step(generator, stack, 200, options)
  await generator.ask('pause', { peers: [49] })
  const closedBefore = await closedAsSlow(server)
  const from = performance.now()
  let closedAfter = Number.NaN
  const watch = setInterval(async () => {
    if (Number.isNaN(closedAfter) && ((await closedAsSlow(server)) ?? 0) > (closedBefore ?? 0))
      closedAfter = (performance.now() - from) / 1_000
  }, 250)
  const stop = undoLater(() => clearInterval(watch))
  const during = await step(generator, stack, 200, options)
  await stop()
  report.note('**One of 50 members stops reading; 200 messages of 4,000 characters a second**')
  report.table([
    { who: 'all read', ...stepRow(before) },
    { who: 'one does not', ...stepRow(during) },
  ])
  report.verdict('the others lose', during.kept ? 'nothing' : during.why, 'nothing', during.kept)
  if (closedBefore !== undefined)
    report.verdict('the one is closed', `after ${closedAfter.toFixed(1)} s`, 'at its bound', closedAfter > 0)
  await generator.stop()
  await stack.close()
}

/** 200 people in pairs at an even rate; then one of another pair sends as much as it can. */
async function busySender(report: Report, { url, seconds = 6 }: Options): Promise<void> {
  const stack = await openStack({ url })
  const generator = await startGenerator()
  await inPairs(stack, generator, 101)
  const others = { name: 'others', rate: 500, senders: Array.from({ length: 200 }, (_, n) => n), bytes: usualBytes }
  const busy = { name: 'busy', rate: 4_000, senders: [200], bytes: usualBytes }
  const load = (streams: (typeof others)[], length: number) =>
    generator.ask('load', { seconds: length, streams, pids: stack.pids })
  await load([others], 3)
  const without = await load([others], seconds)
  const withBusy = await load([others, busy], seconds)
  const row = (who: string, result: LoadResult, n: number) => ({
    who,
    'msg/s': result.streams[n]!.rate,
    'p50 ms': result.streams[n]!.delivery.p50,
    'p95 ms': result.streams[n]!.delivery.p95,
    'p99 ms': result.streams[n]!.delivery.p99,
    ...shareCells(result),
  })
  report.note('**One sender in one chat, eight times as much as 200 others together**')
  report.table([
    row('the others, alone', without, 0),
    row('the others, beside it', withBusy, 0),
    row('the busy one', withBusy, 1),
  ])
  const [a, b] = [without.streams[0]!.delivery.p95, withBusy.streams[0]!.delivery.p95]
  report.verdict(
    "the others' p95",
    `${a.toFixed(1)} ms, then ${b.toFixed(1)} ms`,
    '≤ 100 ms, all delivered',
    b <= 100 && allArrived(withBusy),
  )
  await generator.stop()
  await stack.close()
}

/** PostgreSQL stands still for five seconds, connections open, as under a stalled disk. */
async function stalledDatabase(report: Report, { url }: Options): Promise<void> {
  if (url !== undefined) return
  const stack = await openStack()
  const generator = await startGenerator()
  await inPairs(stack, generator, 100)
  const load = (length: number) =>
    generator.ask('load', {
      seconds: length,
      streams: [{ name: 'all', rate: 500, senders: Array.from({ length: 200 }, (_, n) => n), bytes: usualBytes }],
      pids: stack.pids,
      drainMs: 20_000,
    })
  await load(3)
  const before = await load(4)
  const [server = 0] = stack.pids.server ?? []
  const memoryBefore = rss(server)
  let most = memoryBefore
  const watch = setInterval(() => {
    most = Math.max(most, rss(server))
  }, 50)
  const stopped = new Set<number>()
  const resume = undoLater(() => {
    clearInterval(watch)
    for (const pid of stopped) if (isStopped(pid)) process.kill(pid, 'SIGCONT')
  })
  const during = load(10)
  await sleep(1_000)
  // The postmaster first, so that it starts no other.
  for (const pid of [...stack.postgresPids(), ...stack.postgresPids()]) {
    if (stopped.has(pid)) continue
    process.kill(pid, 'SIGSTOP')
    stopped.add(pid)
  }
  await sleep(5_000)
  await resume()
  const stalled = await during
  const after = await load(4)
  const row = (when: string, result: LoadResult) => {
    const { sent, acked, refused, expected, delivered, delivery } = result.streams[0]!
    return {
      when,
      sent,
      acked,
      refused,
      expected,
      delivered,
      'p50 ms': delivery.p50,
      'p95 ms': delivery.p95,
      'max ms': delivery.max,
      ...shareCells(result),
    }
  }
  report.note('**PostgreSQL stopped for 5 s under 500 messages a second**')
  report.table([row('before', before), row('5 of 10 s stopped', stalled), row('after', after)])
  const { sent, acked, refused } = stalled.streams[0]!
  report.verdict(
    'answered',
    `${acked} committed, ${refused} refused of ${sent}`,
    'all, and none lost',
    acked + refused === sent && allArrived(stalled),
  )
  report.verdict(
    'memory',
    `${megabytes(memoryBefore)}, ${megabytes(most)} at most`,
    '≤ 100 MB more',
    most - memoryBefore <= 100 * 2 ** 20,
  )
  const p95 = after.streams[0]!.delivery.p95
  report.verdict('afterwards', `p95 ${p95.toFixed(1)} ms`, '≤ 100 ms, all delivered', p95 <= 100 && allArrived(after))
  await generator.stop()
  await stack.close()
}

export const bad: Scenario = {
  name: 'bad',
  about: 'What must not harm the others: a peer that does not read, one that writes without end, a database that stands still.',
  elsewhere: true,
  async run(report, options) {
    for (const part of parts) await part(report, options)
  },
}
