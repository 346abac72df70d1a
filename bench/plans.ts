import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Stack } from './stack.ts'

/** The plans that PostgreSQL really used, as auto_explain writes them to its log. */

/** A smaller table is one page or two, and reading it from one end to the other is the best plan. */
const smallRows = 1_000

/** Of PostgreSQL, for `watchPlans`. Until asked it says nothing. */
export const plansSettings = { session_preload_libraries: 'auto_explain' }

export interface Plans {
  /** Each statement's beginning, and what its last plan reads tables by. */
  statements: { text: string; by: string }[]
  /** Those that read a large table from one end to the other, as explained. */
  bad: string[]
}

/** Explains every statement that `work` causes. */
export async function watchPlans(stack: Stack, work: () => Promise<void>): Promise<Plans> {
  const log = openSync(stack.postgresLog, 'r')
  const start = fstatSync(log).size
  const explain = async (ms: number) => {
    await stack.query(`ALTER SYSTEM SET auto_explain.log_min_duration = ${ms}`)
    await stack.query('SELECT pg_reload_conf()')
    await sleep(300)
  }
  await explain(0)
  await work()
  await explain(-1)
  const bytes = Buffer.alloc(fstatSync(log).size - start)
  readSync(log, bytes, 0, bytes.length, start)
  closeSync(log)
  const large = new Set(
    (
      await stack.query<{ relname: string }>(`SELECT relname FROM pg_class WHERE relkind = 'r' AND reltuples >= ${smallRows}`)
    ).map(({ relname }) => relname),
  )
  // An entry goes on as long as its lines begin with a tab.
  const entries = bytes
    .toString()
    .split(/^(?!\t)/m)
    .filter((entry) => / LOG: {2}duration: [\d.]+ ms {2}plan:$/m.test(entry.split('\n', 1)[0]!))
    .map((entry) => entry.split('\n').slice(1).join('\n'))
    .filter((entry) => !/pg_reload_conf|auto_explain|pg_class/.test(entry))
  const byText = new Map(entries.map((entry) => [textOf(entry), entry]))
  const bad = [...byText.values()].filter((entry) =>
    Array.from(entry.matchAll(/Seq Scan on (\w+)/g)).some(([, name]) => large.has(name!)),
  )
  const statements = [...byText.values()].map((entry) => ({ text: beginning(textOf(entry)), by: scansOf(entry) }))
  return { statements, bad: bad.map((entry) => entry.replace(/^\t/gm, '').trim()) }
}

const beginning = (text: string): string => {
  const line = text
    .replace(/^\s*Query Text:/, '')
    .replace(/\s+/g, ' ')
    .trim()
  return line.length > 90 ? `${line.slice(0, 90)}…` : line
}

/** Names of indexes, and of tables that are read whole. */
function scansOf(entry: string): string {
  const indexes = Array.from(
    entry.matchAll(/Index (?:Only )?Scan (?:Backward )?using (\w+)|Bitmap Index Scan on (\w+)/g),
    ([, a, b]) => a ?? b!,
  )
  const whole = Array.from(entry.matchAll(/Seq Scan on (\w+)/g), ([, name]) => `all of ${name}`)
  return [...new Set([...indexes, ...whole])].sort().join(', ')
}

/** The statement, without its parameters and its plan. */
const textOf = (entry: string): string => entry.split(/\n\t(?:Query Parameters:|\S.*\(cost=)/, 1)[0]!
