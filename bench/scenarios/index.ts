import type { Report } from '../report.ts'
import type { Scenario } from '../scenario.ts'
import { bad } from './bad.ts'
import { history } from './history.ts'
import { idle } from './idle.ts'
import { instances } from './instances.ts'
import { limit } from './limit.ts'
import { pairs } from './pairs.ts'
import { rest } from './rest.ts'
import { room } from './room.ts'
import { soak } from './soak.ts'
import { storm } from './storm.ts'

/** In the order in which they are run: what is compared stands close together. */
export const scenarios: Scenario[] = [limit, pairs, room, rest, idle, storm, history, instances, bad, soak]

/** What was reached, as a fraction of what this machine can do at all; both from this very run. */
export function summary(report: Report): void {
  const { figures } = report
  const fractions = [
    ['durable ingest (pairs) of bare PostgreSQL', 'pairs', 'limit ingest', 0.3],
    ['fan-out to 300 of bare ws, a write for each frame', 'room 300', 'limit room 300 each', 0.7],
    ['fan-out to 1,500 of bare ws, a write for each frame', 'room 1500', 'limit room 1500 each', 0.7],
    // What nothing can surpass: there is no commit that spreads what is due over several turns.
    ['fan-out to 300 of bare ws, a write for each turn', 'room 300', 'limit room 300 turn', undefined],
    ['fan-out to 1,500 of bare ws, a write for each turn', 'room 1500', 'limit room 1500 turn', undefined],
    ['POST /messages of bare Fastify', 'rest POST /messages', 'limit rest POST /messages', undefined],
    ['GET /chats of bare Fastify', 'rest GET /chats', 'limit rest GET /chats', undefined],
    ['GET /chats/:id/messages of bare Fastify', 'rest GET /chats/:id/messages', 'limit rest GET /chats/:id/messages', undefined],
  ] as const
  const known = fractions.filter(([, reached, limit]) => figures.has(reached) && figures.has(limit))
  if (known.length > 0) {
    report.title('fractions', 'Of what the machine does with nothing of the server, measured in this run.')
    report.table(
      known.map(([what, reached, limit]) => ({
        what,
        reached: Math.round(figures.get(reached)!),
        limit: Math.round(figures.get(limit)!),
        fraction: `${Math.round((100 * figures.get(reached)!) / figures.get(limit)!)} %`,
      })),
    )
    for (const [what, reached, limit, target] of known) {
      if (target === undefined) continue
      const fraction = figures.get(reached)! / figures.get(limit)!
      report.verdict(what, `${Math.round(fraction * 100)} %`, `≥ ${target * 100} %`, fraction >= target)
    }
  }
  if (report.failed.length > 0) console.log(`\nMissed:\n${report.failed.map((line) => `- ${line}`).join('\n')}`)
}
