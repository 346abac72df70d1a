import type { Report } from '../report.ts'
import type { Scenario } from '../scenario.ts'
import { idle } from './idle.ts'
import { instances } from './instances.ts'
import { limit } from './limit.ts'
import { pairs } from './pairs.ts'
import { room } from './room.ts'
import { storm } from './storm.ts'

/** In the order in which they are run. */
export const scenarios: Scenario[] = [limit, pairs, room, idle, storm, instances]

/** What was reached, as a fraction of what this machine can do at all; both from this very run. */
export function summary(_report: Report): void {}
