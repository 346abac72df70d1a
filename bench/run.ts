import { parseArgs } from 'node:util'
import { isEnding, undoAll, undoOnSignals } from './ending.ts'
import { append, createReport } from './report.ts'
import type { Scenario } from './scenario.ts'
import { scenarios, summary } from './scenarios/index.ts'

/** `npm run bench -- [scenario …] [--url http://…] [--seconds n] [--no-save]` */

const usage = `npm run bench -- [scenario …] [--url http://127.0.0.1:8080] [--seconds n] [--no-save]

${scenarios.map(({ name, about }) => `  ${name.padEnd(10)} ${about}`).join('\n')}

Without a scenario: all of them, shortened. --url aims at a server that runs already, with RATE_LIMIT_*=off.
--seconds is the length of a step. Figures are appended to bench/RESULTS.md, unless --no-save.`

function readArguments() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    allowNegative: true,
    options: {
      url: { type: 'string' },
      seconds: { type: 'string' },
      save: { type: 'boolean', default: true },
      help: { type: 'boolean' },
    },
  })
  const seconds = values.seconds === undefined ? undefined : Number(values.seconds)
  if (seconds !== undefined && !(seconds >= 1 && seconds <= 3_600)) throw new Error('--seconds must be from 1 to 3600')
  if (values.url !== undefined) checkLocal(values.url)
  const unknown = positionals.find((name) => !scenarios.some((scenario) => scenario.name === name))
  if (unknown !== undefined) throw new Error(`there is no scenario ${unknown}`)
  const chosen = positionals.length > 0 ? scenarios.filter(({ name }) => positionals.includes(name)) : scenarios
  const here = chosen.filter((scenario: Scenario) => values.url === undefined || scenario.elsewhere)
  if (here.length === 0) throw new Error(`${positionals.join(', ')}: needs a server of its own; leave out --url`)
  return {
    help: values.help === true,
    save: values.save,
    url: values.url,
    seconds,
    short: positionals.length === 0,
    chosen: here,
  }
}

/** A load generator is no toy: it goes nowhere but to this machine. */
function checkLocal(url: string): void {
  const host = URL.canParse(url) ? new URL(url).hostname : ''
  if (!/^(127\.\d+\.\d+\.\d+|localhost|\[::1\])$/.test(host)) throw new Error('--url must be an address of this machine')
}

async function main(): Promise<number> {
  let given: ReturnType<typeof readArguments>
  try {
    given = readArguments()
  } catch (error) {
    console.error(`${(error as Error).message}\n\n${usage}`)
    return 2
  }
  if (given.help) {
    console.log(usage)
    return 0
  }
  undoOnSignals()
  const report = createReport()
  const { chosen, ...options } = given
  let broken = false
  const began = performance.now()
  for (const scenario of chosen) {
    report.title(scenario.name, scenario.about)
    const from = performance.now()
    try {
      await scenario.run(report, options)
    } catch (error) {
      if (isEnding()) return new Promise(() => {})
      broken = true
      console.error(error)
      report.note(`**Broke off**: ${(error as Error).message.split('\n')[0]}`)
    }
    // Whatever a scenario leaves behind must not disturb the next one.
    await undoAll()
    console.log(`(${Math.round((performance.now() - from) / 1_000)} s)`)
  }
  summary(report)
  console.log(`\n${Math.round((performance.now() - began) / 1_000)} s in all`)
  const command = ['npm run bench', ...(process.argv.length > 2 ? ['--', ...process.argv.slice(2)] : [])].join(' ')
  if (options.save) append(report.text(), command)
  return broken ? 1 : 0
}

const code = await main()
process.exit(code)
