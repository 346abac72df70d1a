import type { Report } from './report.ts'

export interface Options {
  /** A server that runs already. */
  url: string | undefined
  /** How long each step takes; by default what the scenario thinks right. */
  seconds: number | undefined
  /** As part of the whole: shortened, so that everything is done in a quarter of an hour. */
  short: boolean
  /** Whether anything is to be written into the repository. */
  save: boolean
}

export interface Scenario {
  name: string
  about: string
  /** Whether `--url` makes sense. */
  elsewhere: boolean
  run(report: Report, options: Options): Promise<void>
}
