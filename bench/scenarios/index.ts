import type { Report } from '../report.ts'
import type { Scenario } from '../scenario.ts'
import { limit } from './limit.ts'
import { pairs } from './pairs.ts'
import { room } from './room.ts'

/** In the order in which they are run. */
export const scenarios: Scenario[] = [limit, pairs, room]

/** What was reached, as a fraction of what this machine can do at all; both from this very run. */
export function summary(_report: Report): void {}
