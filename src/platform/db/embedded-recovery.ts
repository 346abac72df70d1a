/**
 * What a server that was killed leaves behind: a PostgreSQL without its parent, a postmaster.pid that names nobody, a
 * socket directory. All of this runs while the data directory's lock is held: whatever runs on the data is an orphan.
 */
import { execFile } from 'node:child_process'
import { rmdirSync, unlinkSync } from 'node:fs'
import { chown, lstat, mkdtemp, readdir, readFile, readlink, rm, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import type { Owner } from './embedded-runner.ts'

/** The number in the socket's name; nothing listens on a TCP port. */
export const SOCKET_PORT = 5432
const PREFIX = 'parley-pg-'
const SOCKET = `.s.PGSQL.${SOCKET_PORT}`
/** Says whose data directory the socket belongs to. */
const OWNER_FILE = 'data-dir'
/** A fast shutdown writes a checkpoint; seconds on a slow disk. After this, SIGQUIT: the next start recovers from the log. */
const FAST_SHUTDOWN_MS = 8_000

/** Stops a PostgreSQL left on this data, and removes a postmaster.pid whose pid now belongs to something else. */
export async function stopOrphan(clusterDir: string, log: (line: string) => void): Promise<void> {
  const pidFile = join(clusterDir, 'postmaster.pid')
  const pid = Number((await readFile(pidFile, 'utf8').catch(() => '')).split('\n')[0])
  if (!Number.isInteger(pid) || pid <= 1) return
  const found = await inspect(pid)
  if (found === 'unknown') return
  if (
    found?.command.includes(`/postgres -D ${clusterDir} `) ||
    (found?.cwd === clusterDir && found.command.includes('postgres'))
  ) {
    log(`stopping the PostgreSQL that a killed server left behind (pid ${pid})`)
    await stopProcess(pid)
    return
  }
  // Not ours: a recycled pid, or a zombie that nobody reaps. PostgreSQL would take it for a running server and refuse for good.
  // Its shared memory check still protects the data from backends that live on.
  await rm(pidFile, { force: true })
}

/** Fast shutdown, then immediate, then kill. Resolves when the process is gone. */
export async function stopProcess(pid: number): Promise<void> {
  for (const [signal, patience] of [
    ['SIGINT', FAST_SHUTDOWN_MS],
    ['SIGQUIT', 4_000],
    ['SIGKILL', 4_000],
  ] as const) {
    try {
      process.kill(pid, signal)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ESRCH') return
      throw error
    }
    for (const end = Date.now() + patience; Date.now() < end; await sleep(20)) {
      if (!(await inspect(pid))) return
    }
  }
  throw new Error(`PostgreSQL (pid ${pid}) does not stop`)
}

/** What runs under this pid; undefined if nothing does (a zombie is nothing). */
async function inspect(pid: number): Promise<{ command: string; cwd?: string } | 'unknown' | undefined> {
  try {
    process.kill(pid, 0)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return undefined
  }
  try {
    if (process.platform !== 'linux') {
      const { stdout } = await promisify(execFile)('ps', ['-o', 'stat=,command=', '-p', `${pid}`])
      return stdout.startsWith('Z') ? undefined : { command: `${stdout.trim()} ` }
    }
    const state = /\) (\w)/.exec(await readFile(`/proc/${pid}/stat`, 'utf8'))?.[1]
    if (state === 'Z' || state === 'X') return undefined
    const command = (await readFile(`/proc/${pid}/cmdline`, 'utf8')).replaceAll('\0', ' ')
    return { command, cwd: await readlink(`/proc/${pid}/cwd`).catch(() => '') }
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT' && process.platform === 'linux' ? undefined : 'unknown'
  }
}

/**
 * A private directory for the socket, outside of the data directory because a socket's path is limited to about 100 bytes.
 * First removes those of dead servers.
 */
export async function makeSocketDir(dataDir: string, owner: Owner | undefined): Promise<string> {
  // 107 on Linux, 103 on macOS.
  const longest = 103 - `/${PREFIX}XXXXXX/${SOCKET}`.length
  const folder = Buffer.byteLength(tmpdir()) <= longest ? tmpdir() : '/tmp'
  await sweep(folder, dataDir, owner)
  const dir = await mkdtemp(join(folder, PREFIX))
  await writeFile(join(dir, OWNER_FILE), dataDir, { mode: 0o600 })
  if (owner) await chown(dir, owner.uid, owner.gid)
  return dir
}

/** Removes a socket directory, by the names we know: as root, never follow what another user may have put there. */
export function removeSocketDir(dir: string): void {
  for (const name of [SOCKET, `${SOCKET}.lock`, OWNER_FILE]) {
    try {
      unlinkSync(join(dir, name))
    } catch {
      // Gone already: PostgreSQL removes its own.
    }
  }
  try {
    rmdirSync(dir)
  } catch {
    // Swept by somebody else.
  }
}

async function sweep(folder: string, dataDir: string, owner: Owner | undefined): Promise<void> {
  const owners = new Set([process.getuid?.(), owner?.uid])
  for (const name of await readdir(folder).catch(() => [])) {
    if (!name.startsWith(PREFIX)) continue
    const dir = join(folder, name)
    const info = await lstat(dir).catch(() => undefined)
    if (!info?.isDirectory() || !owners.has(info.uid)) continue
    const whose = await readFile(join(dir, OWNER_FILE), 'utf8').catch(() => undefined)
    // Ours: we hold the lock, so it is of a former run. Another's: PostgreSQL listens within moments of making the
    // directory, so one that is a minute old and does not answer is dead.
    if (whose === dataDir || (Date.now() - info.mtimeMs > 60_000 && !(await answers(join(dir, SOCKET))))) removeSocketDir(dir)
  }
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ path })
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code !== 'ECONNREFUSED' && error.code !== 'ENOENT'))
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
  })
}
