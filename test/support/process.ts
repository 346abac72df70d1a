import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { root } from './tools.ts'
import { until } from './wire.ts'

/** The server as it is run: a process of its own, started by `src/main.ts`, told what to do by its environment alone. */

export interface Process {
  readonly pid: number
  readonly child: ChildProcess
  /** Where it answers; known once `ready` has resolved. */
  readonly url: string
  /** What it wrote to its two outputs. */
  readonly stdout: string
  readonly stderr: string
  /** Resolves with the exit code, or with the signal that ended it. */
  readonly exited: Promise<number | string>
  /** Resolves once it takes connections; rejects with what it wrote if it ends before. */
  ready(): Promise<Process>
  kill(signal?: NodeJS.Signals): void
}

const running = new Set<ChildProcess>()
process.once('exit', () => {
  for (const child of running) child.kill('SIGKILL')
})

/** Nothing of the environment of the tests but what finds programs. */
const plain = { PATH: process.env.PATH, HOME: process.env.HOME, TMPDIR: process.env.TMPDIR, LANG: 'C' }

/** Limits are off and passwords cheap, unless `env` says otherwise. */
export function launch(env: Record<string, string>): Process {
  const off = Object.fromEntries(
    ['GENERAL', 'PREMIUM', 'REGISTER', 'MESSAGE', 'FRAME'].map((name) => [`RATE_LIMIT_${name}`, 'off']),
  )
  const child = spawn(process.execPath, ['src/main.ts'], {
    cwd: root,
    env: { ...plain, PORT: '0', BCRYPT_COST: '4', LOG_LEVEL: 'warn', ...off, ...env } as NodeJS.ProcessEnv,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  running.add(child)
  let stdout = ''
  let stderr = ''
  let url = ''
  let ended: number | string | undefined
  child.stdout.on('data', (chunk) => {
    stdout += chunk
    url ||= /Parley is ready on (\S+)/.exec(stdout)?.[1] ?? ''
  })
  child.stderr.on('data', (chunk) => {
    stderr += chunk
  })
  // `close` comes when the outputs are read to their end, too.
  const exited = once(child, 'close').then(([code, signal]) => {
    running.delete(child)
    ended = (code ?? signal) as number | string
    return ended
  })
  const made: Process = {
    pid: child.pid!,
    child,
    get url() {
      return url
    },
    get stdout() {
      return stdout
    },
    get stderr() {
      return stderr
    },
    exited,
    async ready() {
      await until(() => url !== '' || ended !== undefined, 'the server is ready', 60_000)
      if (url === '') throw new Error(`the server ended with ${ended}: ${stdout}${stderr}`)
      return made
    },
    kill: (signal = 'SIGKILL') => void child.kill(signal),
  }
  return made
}

/** The pid of the embedded PostgreSQL of this folder. */
export function postgresPid(dataDir: string): number {
  return Number(readFileSync(join(dataDir, 'postgres', 'postmaster.pid'), 'utf8').split('\n')[0])
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

/** A REST call under `/api/v1`; rejects when no answer came. */
export async function rest<T = Record<string, unknown>>(
  url: string,
  method: string,
  path: string,
  { token, body }: { token?: string; body?: unknown } = {},
): Promise<{ status: number; body: T & { code?: string } }> {
  const response = await fetch(`${url}/api/v1${path}`, {
    method,
    headers: {
      ...(token !== undefined && { authorization: `Bearer ${token}` }),
      ...(body !== undefined && { 'content-type': 'application/json' }),
    },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  })
  return { status: response.status, body: (await response.json()) as T & { code?: string } }
}

let people = 0
export async function account(url: string): Promise<{ user_id: string; token: string }> {
  people += 1
  const body = { username: `person_${process.pid}_${people}`, password: 'Secret123' }
  const answer = await rest<{ user_id: string; token: string }>(url, 'POST', '/auth/register', { body })
  if (answer.status !== 201) throw new Error(JSON.stringify(answer))
  return answer.body
}
