import { execFileSync } from 'node:child_process'
import { appendFileSync } from 'node:fs'
import { cpus, totalmem } from 'node:os'
import { join } from 'node:path'
import { root } from './processes.ts'

/** What is shown on the screen and written to RESULTS.md: the same. */

export type Cell = string | number | undefined
export type Row = Record<string, Cell>

/** Shared by the scenarios of one run, so that one can be told as a fraction of another. */
export type Figures = Map<string, number>

export interface Report {
  /** A heading; what follows belongs to it. */
  title(name: string, about: string): void
  table(rows: readonly Row[]): void
  note(line: string): void
  /** A figure beside what it should be; `met` undefined where nothing was promised. */
  verdict(what: string, value: string, target: string, met: boolean): void
  figures: Figures
  /** Lines for RESULTS.md. */
  text(): string
  readonly failed: string[]
}

/** Three digits that matter, and no more. */
export function show(cell: Cell): string {
  if (cell === undefined || (typeof cell === 'number' && Number.isNaN(cell))) return '–'
  if (typeof cell === 'string') return cell
  if (Number.isInteger(cell)) return cell.toLocaleString('en')
  const size = Math.abs(cell)
  if (size >= 100) return Math.round(cell).toLocaleString('en')
  return cell.toFixed(size >= 10 ? 1 : 2)
}

export const percent = (share: number): string => (Number.isNaN(share) ? '–' : `${Math.round(share * 100)} %`)
export const megabytes = (bytes: number): string => (Number.isNaN(bytes) ? '–' : `${Math.round(bytes / 1_048_576)} MB`)

function markdown(rows: readonly Row[]): string[] {
  const names = [...new Set(rows.flatMap((row) => Object.keys(row)))]
  const cells = [names, ...rows.map((row) => names.map((name) => show(row[name])))]
  const widths = names.map((_, n) => Math.max(...cells.map((line) => line[n]!.length)))
  const isText = names.map((name) => rows.every((row) => typeof row[name] === 'string'))
  const line = (of: string[]) =>
    `| ${of.map((cell, n) => (isText[n] ? cell.padEnd(widths[n]!) : cell.padStart(widths[n]!))).join(' | ')} |`
  const rule = `| ${widths.map((width, n) => (isText[n] ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`)).join(' | ')} |`
  return [line(cells[0]!), rule, ...cells.slice(1).map(line)]
}

export function createReport(): Report {
  const lines: string[] = []
  const failed: string[] = []
  let current = ''
  const add = (...more: string[]) => {
    lines.push(...more)
    console.log(more.join('\n'))
  }
  return {
    figures: new Map(),
    failed,
    title(name, about) {
      current = name
      add('', `### ${name}`, '', about, '')
    },
    table: (rows) => add(...markdown(rows), ''),
    note: (line) => add(...(lines.at(-1) === '' ? [] : ['']), line, ''),
    verdict(what, value, target, met) {
      if (!met) failed.push(`${current}: ${what} ${value}, target ${target}`)
      add(`- ${met ? 'met' : '**missed**'}: ${what} ${value} (target: ${target})`)
    },
    text: () => lines.join('\n'),
  }
}

const git = (...args: string[]): string => {
  try {
    return execFileSync('git', args, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim()
  } catch {
    return ''
  }
}

/** What the figures depend on. */
export function circumstances(command: string): string {
  const commit = git('rev-parse', '--short', 'HEAD') || 'unknown'
  const changed = git('status', '--porcelain', '--untracked-files=no', '--', 'src', 'bench', 'migrations', 'package-lock.json')
    ? ' with changes'
    : ''
  const [cpu] = cpus()
  return [
    `Commit ${commit}${changed}; ${cpus().length} × ${cpu?.model.trim() ?? 'unknown processor'}, ${Math.round(totalmem() / 2 ** 30)} GB; Node ${process.version}; \`${command}\``,
  ].join('\n')
}

export function append(text: string, command: string): void {
  const date = new Date().toISOString().slice(0, 16).replace('T', ' ')
  appendFileSync(join(root, 'bench', 'RESULTS.md'), `\n## ${date} UTC\n\n${circumstances(command)}\n${text}\n`)
}
