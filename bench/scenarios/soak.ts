import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Progress } from '../calls.ts'
import { undoLater } from '../ending.ts'
import { startGenerator } from '../generator.ts'
import { dm, each, register } from '../people.ts'
import { plot } from '../plot.ts'
import { root } from '../processes.ts'
import { megabytes } from '../report.ts'
import type { Scenario } from '../scenario.ts'
import { openStack } from '../stack.ts'
import { shareCells, usualBytes } from '../steps.ts'

const sockets = 500
const rate = 200

interface Sample {
  seconds: number
  rss: number
  heap: number
  lagP99: number
  /** Callers that wait for a connection of the pool, and everything whose metric says queue. */
  waiting: number
  outstanding: number
  p95: number
}

export const soak: Scenario = {
  name: 'soak',
  about: `${sockets} sockets in direct chats and ${rate} messages a second, for long: whether anything grows. The plot is [soak.svg](soak.svg).`,
  elsewhere: true,
  async run(report, { url, seconds, short, save }) {
    const length = seconds ?? (short ? 20 : 600)
    const stack = await openStack({ url })
    const [server = ''] = stack.urls
    const people = await register(server, sockets)
    const chats = await each(Array.from({ length: sockets / 2 }), (_, n) => dm(server, people[2 * n]!, people[2 * n + 1]!))
    const generator = await startGenerator()
    await generator.connect(
      people.map(({ token }, n) => ({ url: server, token, chat: Math.floor(n / 2) })),
      chats,
    )
    const samples: Sample[] = []
    let progress: Progress = { seconds: 0, sent: 0, outstanding: 0, p95: Number.NaN }
    generator.onProgress((news) => {
      progress = news
    })
    const began = performance.now()
    const sampler = setInterval(async () => {
      const metrics = await readMetrics(server)
      const at = (performance.now() - began) / 1_000
      if (metrics) samples.push({ seconds: at, ...metrics, outstanding: progress.outstanding, p95: progress.p95 })
    }, 1_000)
    const stop = undoLater(() => clearInterval(sampler))
    const senders = Array.from({ length: sockets }, (_, n) => (n * 7) % sockets)
    const load = { seconds: length, streams: [{ name: 'all', rate, senders, bytes: usualBytes }], pids: stack.pids }
    const result = await generator.ask('load', load)
    await stop()
    const stream = result.streams[0]!
    const median = (from: number, to: number, of: (sample: Sample) => number) => {
      const values = samples.filter(({ seconds: at }) => at >= from && at < to).map(of)
      return values.sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN
    }
    // What a server needs to get going is no growth: two minutes, or a third of a shorter run.
    const settled = Math.min(120, length / 3)
    const span = Math.min(60, length / 4)
    const early = median(settled, settled + span, (sample) => sample.rss)
    const end = median(length - span, length, (sample) => sample.rss)
    report.table([
      {
        seconds: length,
        sent: stream.sent,
        delivered: `${((100 * stream.delivered) / stream.expected).toFixed(3)} %`,
        'p95 ms': stream.delivery.p95,
        'p99 ms': stream.delivery.p99,
        'max ms': stream.delivery.max,
        [`rss at ${Math.round(settled)} s`]: megabytes(early),
        'rss at the end': megabytes(end),
        'loop lag p99 ms': Math.max(0, ...samples.filter((sample) => sample.seconds > settled).map((sample) => sample.lagP99)),
        'most waiting': Math.max(0, ...samples.map((sample) => sample.waiting)),
        ...shareCells(result),
      },
    ])
    // Twenty seconds, as part of the whole, must not take the place of ten minutes.
    if (save && !short && samples.length > 0) writeFileSync(join(root, 'bench', 'soak.svg'), draw(samples))
    const growth = end / early - 1
    // In a shorter run V8 has not yet had reason to collect what is old.
    if (length >= 300)
      report.verdict(
        'memory at the end',
        `${(growth * 100).toFixed(1)} % above that at ${Math.round(settled)} s`,
        'no growth (≤ 5 %)',
        growth <= 0.05,
      )
    report.verdict(
      'delivered',
      `${stream.delivered} of ${stream.expected}`,
      'all',
      stream.delivered === stream.expected && stream.duplicates === 0,
    )
    await generator.stop()
    await stack.close()
  },
}

/** Undefined where /metrics is not ours to read. */
async function readMetrics(server: string): Promise<Pick<Sample, 'rss' | 'heap' | 'lagP99' | 'waiting'> | undefined> {
  const response = await fetch(`${server}/metrics`).catch(() => undefined)
  if (!response?.ok) return undefined
  const text = await response.text()
  const value = (pattern: RegExp) =>
    text
      .split('\n')
      .filter((line) => pattern.test(line))
      .reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0)
  return {
    rss: value(/^process_resident_memory_bytes /),
    heap: value(/^nodejs_heap_size_used_bytes /),
    lagP99: value(/^nodejs_eventloop_lag_p99_seconds /) * 1_000,
    waiting: value(/^parley_database_connections\{state="waiting"\}|^parley_\w*queue\w*[{ ](?!.*bucket)/),
  }
}

function draw(samples: readonly Sample[]): string {
  const line = (name: string, unit: string, of: (sample: Sample) => number) => ({
    name,
    unit,
    points: samples.map((sample): [number, number] => [sample.seconds, of(sample)]),
  })
  return plot('The server over time, under an even load', [
    line('resident memory', 'MB', (sample) => sample.rss / 1_048_576),
    line('heap in use', 'MB', (sample) => sample.heap / 1_048_576),
    line('event-loop lag, p99', 'ms', (sample) => sample.lagP99),
    line('waiting in queues', '', (sample) => sample.waiting),
    line('deliveries outstanding', '', (sample) => sample.outstanding),
    line('delivery, p95', 'ms', (sample) => sample.p95),
  ])
}
