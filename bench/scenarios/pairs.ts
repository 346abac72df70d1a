import { startGenerator } from '../generator.ts'
import { dm, each, register } from '../people.ts'
import type { Scenario } from '../scenario.ts'
import { openStack } from '../stack.ts'
import { best, climb, step, stepRow } from '../steps.ts'

const sockets = 1_000
/** Milliseconds at rates that a server of this size sees in its life. */
const targets = [
  [50, 5],
  [1_000, 25],
] as const

export const pairs: Scenario = {
  name: 'pairs',
  about:
    '1,000 sockets in 500 direct chats; the rate doubles until p95 passes 100 ms or a message is lost. Each message is delivered to both.',
  elsewhere: true,
  async run(report, { url, seconds, short }) {
    const stack = await openStack({ url })
    const generator = await startGenerator()
    const [server = ''] = stack.urls
    const people = await register(server, sockets)
    const chats = await each(Array.from({ length: sockets / 2 }), (_, n) => dm(server, people[2 * n]!, people[2 * n + 1]!))
    await generator.connect(
      people.map(({ token }, n) => ({ url: server, token, chat: Math.floor(n / 2) })),
      chats,
    )
    // One side of every chat, then the other: neighbours in the schedule are different chats.
    const senders = [0, 1].flatMap((side) => chats.map((_, chat) => 2 * chat + side))
    const options = { senders, seconds: seconds ?? (short ? 4 : 30) }
    await step(generator, stack, 400, { senders, seconds: 4 })
    const one = (rate: number) => step(generator, stack, rate, options)
    // Doubling passes 800 and 1,600, so that 1,000 is asked for by itself.
    const steps = [await one(1_000), ...(await climb({ from: 50 }, one))]
    report.table(steps.map(stepRow))
    const top = best(steps)
    report.figures.set('pairs', top?.rate ?? 0)
    report.verdict('rate reached', `${top?.rate ?? 0} msg/s`, '≥ 8,000 msg/s', (top?.rate ?? 0) >= 8_000)
    for (const [rate, ms] of targets) {
      const p95 = steps.find((made) => made.rate === rate)?.p95 ?? Number.NaN
      report.verdict(`p95 at ${rate} msg/s`, `${p95.toFixed(1)} ms`, `≤ ${ms} ms`, p95 <= ms)
    }
    await generator.stop()
    await stack.close()
  },
}
