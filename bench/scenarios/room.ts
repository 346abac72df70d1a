import { startGenerator } from '../generator.ts'
import { group, register } from '../people.ts'
import type { Report } from '../report.ts'
import type { Options, Scenario } from '../scenario.ts'
import { openStack } from '../stack.ts'
import { best, climb, keptMs, step, stepRow } from '../steps.ts'

const sizes = [300, 1_500]
/** Of the members; a group has few who write and many who read. */
const writers = 20

async function one(report: Report, size: number, { url, seconds, short }: Options): Promise<void> {
  const stack = await openStack({ url, env: { GROUP_MAX_MEMBERS: String(size) } })
  const generator = await startGenerator()
  const [server = ''] = stack.urls
  const people = await register(server, size)
  const chat = await group(server, people).catch((error: Error) => {
    if (url !== undefined && error.message.includes('group_full')) return undefined
    throw error
  })
  if (chat === undefined) {
    report.note(`A group of ${size} is refused: start the server with GROUP_MAX_MEMBERS=${size}.`)
    return generator.stop()
  }
  await generator.connect(
    people.map(({ token }) => ({ url: server, token, chat: 0 })),
    [chat],
  )
  const senders = Array.from({ length: writers }, (_, n) => Math.floor((n * size) / writers))
  const warm = Math.round(15_000 / size)
  await step(generator, stack, warm, { senders, seconds: 3 })
  const steps = await climb({ from: warm, refine: 2 }, (rate) =>
    step(generator, stack, rate, { senders, seconds: seconds ?? (short ? 4 : 15) }),
  )
  report.note(`**${size} members, all online**`)
  report.table(steps.map(stepRow))
  const top = best(steps)
  const reached = Math.round(top?.deliveriesPerSecond ?? 0)
  report.figures.set(`room ${size}`, reached)
  report.verdict(
    `${size} members`,
    `${reached.toLocaleString('en')} deliveries/s`,
    `≥ 150,000 with p95 ≤ ${keptMs} ms`,
    reached >= 150_000,
  )
  await generator.stop()
  await stack.close()
}

export const room: Scenario = {
  name: 'room',
  about:
    'One group whose members are all online, 20 of them writing; the rate doubles until p95 passes 100 ms or a delivery is lost.',
  elsewhere: true,
  async run(report, options) {
    for (const size of sizes) await one(report, size, options)
  },
}
