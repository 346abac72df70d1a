import { startGenerator } from '../generator.ts'
import { group, register } from '../people.ts'
import type { Scenario } from '../scenario.ts'
import { openStack } from '../stack.ts'
import { best, climb, step, stepRow } from '../steps.ts'

const members = 300
const counts = [1, 2, 4]

export const instances: Scenario = {
  name: 'instances',
  about:
    'One group of 300 on 1, 2 and 4 instances that share one PostgreSQL and one Redis: what telling each other costs, and whether more of them do more.',
  elsewhere: false,
  async run(report, { seconds, short }) {
    const reached: number[] = []
    for (const count of counts) {
      const stack = await openStack({ instances: count })
      const people = await register(stack.urls[0]!, members)
      const chat = await group(stack.urls[0]!, people)
      const generator = await startGenerator()
      await generator.connect(
        people.map(({ token }, n) => ({ url: stack.urls[n % count]!, token, chat: 0 })),
        [chat],
      )
      // 20 writers, on all instances alike.
      const senders = Array.from({ length: 20 }, (_, n) => n * 15 + (n % count))
      await step(generator, stack, 100, { senders, seconds: 3 })
      const steps = await climb({ from: 200, refine: 1 }, (rate) =>
        step(generator, stack, rate, { senders, seconds: seconds ?? (short ? 2 : 10) }),
      )
      report.note(`**${count} ${count === 1 ? 'instance' : 'instances'}**`)
      report.table(steps.map(stepRow))
      reached.push(best(steps)?.deliveriesPerSecond ?? 0)
      await generator.stop()
      await stack.close()
    }
    report.table(
      counts.map((count, n) => ({
        instances: count,
        'deliveries/s': Math.round(reached[n]!),
        'of one': `${(reached[n]! / reached[0]!).toFixed(2)} ×`,
      })),
    )
  },
}
