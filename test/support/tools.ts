import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { accessSync, constants } from 'node:fs'
import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The checkout's root, with a trailing slash. */
export const root = fileURLToPath(new URL('../../', import.meta.url))

function isOnPath(command: string): boolean {
  return (process.env.PATH ?? '').split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, command), constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}

/**
 * Makes sure that a program from Debian is there: as root it is installed, otherwise the test fails with one
 * sentence that says what to install. Takes up to some minutes the first time, nothing later.
 */
export function ensureTool(command: string, debianPackage: string): void {
  if (isOnPath(command)) return
  const ask = `The program ${command} is not there; install it with: apt-get install ${debianPackage}`
  if (process.getuid?.() !== 0 || !isOnPath('apt-get') || !isOnPath('flock')) throw new Error(ask)
  try {
    // Test files run side by side, apt allows one at a time. The second look finds what another one installed meanwhile.
    const script = `command -v "$1" >/dev/null && exit 0
      apt-get update -qq && apt-get install -y -qq --no-install-recommends "$2"`
    const lock = join(tmpdir(), 'parley-apt.lock')
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
    execFileSync('flock', [lock, 'sh', '-c', script, 'sh', command, debianPackage], { env, stdio: 'pipe', timeout: 300_000 })
  } catch (error) {
    const said = String((error as { stderr?: Buffer }).stderr ?? error)
    throw new Error(`${ask} (tried, and failed: ${said.trim().split('\n').at(-1)})`)
  }
}

/**
 * A temporary folder and the way to remove it. Others may enter it (0755): PostgreSQL and the like run as another user.
 */
export async function scratch(name: string): Promise<{ dir: string; remove: () => Promise<void> }> {
  const dir = await mkdtemp(join(tmpdir(), `parley-${name}-`))
  await chmod(dir, 0o755)
  return { dir, remove: () => rm(dir, { recursive: true, force: true, maxRetries: 5 }) }
}

export type Running = { child: ChildProcess; output: () => string; stop: () => Promise<void> }

/**
 * Starts a program and resolves once its output matches `ready`, or `ready` answers true; rejects with what it wrote when it ends before that
 * or is not ready within 15 s. `stop` sends SIGTERM, after 5 s SIGKILL, and resolves when it is gone.
 */
export async function start(
  command: string,
  args: string[],
  options: { env?: NodeJS.ProcessEnv; cwd?: string; ready: RegExp | (() => Promise<boolean>) },
): Promise<Running> {
  const child = spawn(command, args, {
    env: options.env ?? process.env,
    cwd: options.cwd ?? root,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let text = ''
  const ended = once(child, 'exit').catch(() => undefined)
  const stop = async () => {
    if (child.exitCode === null && child.signalCode === null && child.pid) {
      child.kill('SIGTERM')
      const late = setTimeout(() => child.kill('SIGKILL'), 5_000)
      await ended
      clearTimeout(late)
    }
  }
  // A failing hook of the runner must not leave the program behind.
  const lastResort = () => child.kill('SIGKILL')
  process.once('exit', lastResort)
  ended.then(() => process.off('exit', lastResort))
  try {
    await new Promise<void>((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`${command} was not ready in 15 s:\n${text}`)), 15_000)
      const done = () => {
        clearTimeout(late)
        clearInterval(asking)
        resolve()
      }
      const { ready } = options
      const asking = setInterval(async () => {
        if (typeof ready === 'function' && (await ready())) done()
      }, 50)
      const read = (chunk: Buffer) => {
        text += chunk
        if (ready instanceof RegExp && ready.test(text)) done()
      }
      child.once('exit', () => clearInterval(asking))
      child.stdout.on('data', read)
      child.stderr.on('data', read)
      child.once('error', reject)
      child.once('exit', (code) => reject(new Error(`${command} ended with ${code}:\n${text}`)))
    })
  } catch (error) {
    await stop()
    throw error
  }
  return { child, output: () => text, stop }
}
