import { readFileSync } from 'node:fs'

/** What processes cost, by Linux's own count in /proc. Elsewhere, and for processes of others, nothing is known: NaN. */

/** Of /proc's times; fixed in the kernel's interface for programs. */
const ticksPerSecond = 100

/** Which processes are watched, by what they are. The shares of one kind are added up. */
export type Pids = Record<string, number[]>

const read = (path: string): string | undefined => {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return undefined
  }
}

/** utime, stime, and those of children that have ended: after the name, which may hold anything. */
function ticks(pid: number, withEnded: boolean): number {
  const fields = read(`/proc/${pid}/stat`)
    ?.replace(/^.*\) /s, '')
    .split(' ')
  if (!fields) return 0
  return Number(fields[11]) + Number(fields[12]) + (withEnded ? Number(fields[13]) + Number(fields[14]) : 0)
}

export const childrenOf = (pid: number): number[] =>
  (read(`/proc/${pid}/task/${pid}/children`) ?? '').split(' ').filter(Boolean).map(Number)

/** Seconds of processor that a process, and what it has started, has used so far. PostgreSQL has a process per connection. */
const used = (pid: number): number =>
  (ticks(pid, true) + childrenOf(pid).reduce((sum, child) => sum + ticks(child, false), 0)) / ticksPerSecond

/** Seconds that all processors together were busy, those stolen by other machines of the same host too. */
function usedByAll(): number {
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0, steal = 0] = (read('/proc/stat') ?? '')
    .split('\n', 1)[0]!
    .split(/\s+/)
    .slice(1)
    .map(Number)
  return (user + nice + system + irq + softirq + steal) / ticksPerSecond
}

/** Bytes in memory. */
export function rss(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(read(`/proc/${pid}/status`) ?? '')?.[1] ?? Number.NaN) * 1_024
}

export const isStopped = (pid: number): boolean => /^State:\s+T/m.test(read(`/proc/${pid}/status`) ?? '')

/** Shares of one processor since the start of the meter, by kind; `other` is what the rest of the machine took. */
export type Shares = Record<string, number>

export function meter(pids: Pids): () => Shares {
  const kinds = Object.entries(pids)
  const sum = (of: number[]) => of.reduce((total, pid) => total + used(pid), 0)
  const before = kinds.map(([, of]) => sum(of))
  const allBefore = usedByAll()
  const at = performance.now()
  return () => {
    const seconds = (performance.now() - at) / 1_000
    const shares = kinds.map(([kind, of], n) => [kind, of.length === 0 ? Number.NaN : (sum(of) - before[n]!) / seconds] as const)
    const known = shares.reduce((total, [, share]) => total + (Number.isNaN(share) ? 0 : share), 0)
    return { ...Object.fromEntries(shares), other: Math.max(0, (usedByAll() - allBefore) / seconds - known) }
  }
}
