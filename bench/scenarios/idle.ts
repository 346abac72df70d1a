import { setTimeout as sleep } from 'node:timers/promises'
import { startGenerator } from '../generator.ts'
import { each, group, register } from '../people.ts'
import { meter, rss } from '../proc.ts'
import { megabytes } from '../report.ts'
import type { Scenario } from '../scenario.ts'
import { openStack } from '../stack.ts'
import { shareCells } from '../steps.ts'

const sockets = 12_500
const chatsEach = 5
const membersEach = 100

export const idle: Scenario = {
  name: 'idle',
  about: '12,500 authenticated sockets, each in 5 groups of 100, that do nothing for 60 s.',
  elsewhere: true,
  async run(report, { url, seconds }) {
    const stack = await openStack({ url })
    const [seeding = ''] = stack.urls
    const people = await register(seeding, sockets)
    const groups = (sockets * chatsEach) / membersEach
    // The same step through the crowd with another start for each of a person's chats: neighbours share one chat, not five.
    await each(Array.from({ length: groups }), (_, n) => {
      const start = (n * membersEach) % sockets
      const stride = 1 + 2 * Math.floor((n * membersEach) / sockets)
      return group(
        seeding,
        Array.from({ length: membersEach }, (_, m) => people[(start * stride + m * stride) % sockets]!),
      )
    })
    // Memory is counted from a server that has done nothing yet: one that made the accounts has room from that.
    await stack.restart()
    const generator = await startGenerator()
    const [server = ''] = stack.urls
    const specs = people.map(({ token }) => ({ url: server, token, chat: -1 }))
    await generator.connect(specs.slice(0, 100), [])
    const pid = stack.pids.server![0]
    const memory = () => (pid === undefined ? Number.NaN : rss(pid))
    const before = memory()
    const connecting = meter(stack.pids)
    const { ms, ready } = await generator.connect(specs.slice(100), [], 200)
    const whileConnecting = connecting()
    const full = memory()
    const holding = meter(stack.pids)
    const holdSeconds = seconds ?? 60
    await sleep(holdSeconds * 1_000)
    const after = memory()
    const heap = await heapOf(server)
    const whileIdle = holding()
    const { open, closes } = await generator.ask('state', null)
    const each_ = (bytes: number) => (bytes - before) / (sockets - 100) / 1_024
    report.table([
      {
        when: 'connecting',
        sockets,
        'per second': Math.round((sockets - 100) / (ms / 1_000)),
        'ready p95 ms': ready.p95,
        rss: megabytes(full),
        'KB each': each_(full),
        ...shareCells({ shares: whileConnecting }),
      },
      {
        when: `after ${holdSeconds} s`,
        sockets: open,
        rss: megabytes(after),
        'KB each': each_(after),
        ...shareCells({ shares: whileIdle }),
      },
    ])
    const parts = heap
      ? ` JavaScript heap at the end: ${megabytes(heap.used)} in use of ${megabytes(heap.total)}; outside of it: ${megabytes(heap.external)}.`
      : ''
    report.note(`Memory before: ${megabytes(before)}, with 100 sockets.${parts} Closed meanwhile: ${JSON.stringify(closes)}.`)
    report.verdict(`held ${holdSeconds} s`, `${open.toLocaleString('en')} sockets`, 'all 12,500', open === sockets)
    if (pid !== undefined) report.verdict('memory', `${each_(after).toFixed(1)} KB per connection`, '≤ 14 KB', each_(after) <= 14)
    await generator.stop()
    await stack.close()
  },
}

/** Undefined where /metrics is not ours to read. */
async function heapOf(server: string): Promise<{ used: number; total: number; external: number } | undefined> {
  const response = await fetch(`${server}/metrics`)
  if (!response.ok) return undefined
  const text = await response.text()
  const value = (name: string) => Number(new RegExp(`^${name} (\\S+)`, 'm').exec(text)?.[1] ?? Number.NaN)
  return {
    used: value('nodejs_heap_size_used_bytes'),
    total: value('nodejs_heap_size_total_bytes'),
    external: value('nodejs_external_memory_bytes'),
  }
}
