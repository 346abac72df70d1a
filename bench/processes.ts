import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { undoLater } from './ending.ts'

/** Processes that end with the benchmark, however it ends. */

export const root = fileURLToPath(new URL('../', import.meta.url))

/** Nothing of the environment but what finds programs: a DATABASE_URL that lies around must not be used. */
export const plainEnv = { PATH: process.env.PATH, HOME: process.env.HOME, TMPDIR: process.env.TMPDIR, LANG: 'C' }

export interface Running {
  pid: number
  child: ChildProcess
  /** What it wrote; the last part of it. */
  output(): string
  stop(): Promise<void>
}

let setpriv: boolean | undefined
/** `kill -9` of the benchmark takes its processes along, where the system has the means. */
function dieWithUs(command: string[]): string[] {
  setpriv ??= spawnSync('setpriv', ['--pdeathsig', 'KILL', '--', 'true']).status === 0
  return setpriv ? ['setpriv', '--pdeathsig', 'KILL', '--', ...command] : command
}

export interface StartOptions {
  env?: Record<string, string>
  /** What it writes once it is ready; its first group is answered. */
  ready: RegExp
  /** With a channel for messages. */
  ipc?: boolean
}

/** Starts a program of Node's and waits until it is ready. */
export async function startNode(args: string[], options: StartOptions): Promise<Running & { said: string }> {
  const [file, ...rest] = dieWithUs([process.execPath, ...args])
  const child = spawn(file!, rest, {
    cwd: root,
    env: { ...plainEnv, ...options.env } as NodeJS.ProcessEnv,
    stdio: options.ipc ? ['ignore', 'pipe', 'pipe', 'ipc'] : ['ignore', 'pipe', 'pipe'],
    serialization: 'advanced',
    // Ctrl-C is for the benchmark, which then stops its processes in order.
    detached: true,
  })
  let text = ''
  let ended: string | undefined
  const gone = once(child, 'close').then(([code, signal]) => {
    ended = `${code ?? signal}`
  })
  const kill = () => void child.kill('SIGKILL')
  process.once('exit', kill)
  const stop = undoLater(async () => {
    process.off('exit', kill)
    if (ended !== undefined) return
    child.kill('SIGTERM')
    const late = setTimeout(kill, 8_000)
    await gone
    clearTimeout(late)
  })
  const said = new Promise<string>((resolve, reject) => {
    const read = (chunk: Buffer) => {
      text = (text + String(chunk)).slice(-20_000)
      const match = options.ready.exec(text)
      if (match) resolve(match[1] ?? '')
    }
    child.stdout!.on('data', read)
    child.stderr!.on('data', read)
    void gone.then(() => reject(new Error(`${args[0]} ended with ${ended}:\n${text}`)))
    setTimeout(() => reject(new Error(`${args[0]} was not ready in 60 s:\n${text}`)), 60_000).unref()
  })
  try {
    return { said: await said, pid: child.pid!, child, output: () => text, stop }
  } catch (error) {
    await stop()
    throw error
  }
}
