import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { root } from './processes.ts'
import { append, show } from './report.ts'

/**
 * `node bench/medians.ts [n]`: of the last n full runs in RESULTS.md (three), the median of every figure that was promised
 * something, and of the fractions. Appended to RESULTS.md.
 */

const count = Number(process.argv[2] ?? 3)
const text = readFileSync(join(root, 'bench', 'RESULTS.md'), 'utf8')
const runs = text
  .split(/^## /m)
  .slice(1)
  .filter((run) => run.includes('### fractions'))
  .slice(-count)
if (runs.length < count) throw new Error(`there are ${runs.length} full runs, not ${count}`)

interface Line {
  scenario: string
  /** With a placeholder for every number: lines of the same shape are the same figure. */
  shape: string
  numbers: number[]
  met: boolean
}

const number = /\d[\d,]*(?:\.\d+)?/g

function linesOf(run: string): Line[] {
  return run.split(/^### /m).flatMap((section) => {
    const scenario = section.slice(0, section.indexOf('\n'))
    const nth = new Map<string, number>()
    return section
      .split('\n')
      .filter((line) => /^- (met|\*\*missed\*\*): /.test(line) || (scenario === 'fractions' && /^\| .*%\s*\|$/.test(line)))
      .map((line) => {
        const said = line.replace(/^- (met|\*\*missed\*\*): /, '')
        const shape = said.replace(number, '#').replace(/ +/g, ' ')
        const n = nth.get(shape) ?? 0
        nth.set(shape, n + 1)
        return {
          scenario,
          shape: `${shape}${' '.repeat(n)}`,
          numbers: (said.match(number) ?? []).map((found) => Number(found.replaceAll(',', ''))),
          met: !line.startsWith('- **missed**'),
        }
      })
  })
}

const median = (values: number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!

const all = runs.map(linesOf)
const out: string[] = []
let scenario = ''
for (const line of all[0]!) {
  const same = all.map((lines) => lines.find((other) => other.scenario === line.scenario && other.shape === line.shape))
  if (same.some((found) => found === undefined)) continue
  if (line.scenario !== scenario) {
    scenario = line.scenario
    out.push('', `### ${scenario}, medians`, '')
    if (scenario === 'fractions') out.push('| what | reached | limit | fraction |', '| --- | ---: | ---: | --- |')
  }
  const values = line.numbers.map((_, n) => same.map((found) => found!.numbers[n]!))
  let n = 0
  const said = line.shape.trimEnd().replace(/#/g, () => show(median(values[n++]!)))
  if (scenario === 'fractions') out.push(said)
  else out.push(`- met in ${same.filter((found) => found!.met).length} of ${count}: ${said}`)
}
append(out.join('\n'), `node bench/medians.ts ${count}`)
console.log(out.join('\n'))
