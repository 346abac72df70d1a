/**
 * One server per data directory. The lock is a flock(2): the kernel drops it with its process, however that dies,
 * so there is no stale lock to judge, and two servers that start at the same moment cannot both get it. It also holds
 * between containers that share a volume, where process ids mean nothing.
 */
import { spawnSync } from 'node:child_process'
import { closeSync, constants, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

/** Another server holds the data directory; the message is one line for the person who started this one. */
export class DataDirInUseError extends Error {
  override name = 'DataDirInUseError'
}

export interface DataDirLock {
  release(): void
}

/** Takes the lock of `dataDir` or throws DataDirInUseError at once. The lock file stays: removing it would reopen the race. */
export async function lockDataDir(dataDir: string): Promise<DataDirLock> {
  const file = join(dataDir, 'parley.lock')
  const fd = openLocked(file)
  if (fd === undefined) {
    // The holder writes its pid a moment after taking the lock.
    await sleep(100)
    const pid = readFileSync(file, 'utf8').trim()
    throw new DataDirInUseError(
      `Another Parley server is using ${dataDir} (pid ${pid || 'unknown'}). Stop it, or set DATA_DIR to another folder.`,
    )
  }
  ftruncateSync(fd)
  writeSync(fd, `${process.pid}\n`, 0)
  return { release: () => closeSync(fd) }
}

/** The locked file's descriptor, or undefined if another process holds it. Node opens with O_CLOEXEC: no child keeps the lock. */
function openLocked(file: string): number | undefined {
  const flags = constants.O_RDWR | constants.O_CREAT
  // macOS and the BSDs take the lock while opening (O_EXLOCK); Linux has no such flag, and Node has no flock.
  if (process.platform !== 'linux') {
    const O_EXLOCK = 0x20
    try {
      return openSync(file, flags | O_EXLOCK | constants.O_NONBLOCK, 0o600)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return undefined
      throw error
    }
  }
  const fd = openSync(file, flags, 0o600)
  // The lock belongs to the open file, which the helper shares as its descriptor 3: it stays when the helper has ended.
  const helper = spawnSync('flock', ['--nonblock', '3'], { stdio: ['ignore', 'ignore', 'pipe', fd], encoding: 'utf8' })
  if (helper.status === 0) return fd
  closeSync(fd)
  if (helper.status === 1) return undefined
  throw new Error(`Cannot lock ${file}: ${helper.error?.message ?? helper.stderr.trim()} (flock is part of util-linux)`)
}
