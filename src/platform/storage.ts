import { randomUUID } from 'node:crypto'
import { mkdir, open, readFile, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'

/** Files by the server's own names for them: `uploads/2026/11/21/…`. Never by a name that somebody gave. */
export interface Storage {
  /** Whole or not at all, and on the disk when it resolves. */
  write(path: string, bytes: Buffer): Promise<void>
  /** Undefined where there is no such file. */
  read(path: string): Promise<Buffer | undefined>
  /** What is not there is removed already. */
  remove(path: string): Promise<void>
}

/** Below `root`, which several instances have to share. */
export function createDiskStorage(root: string): Storage {
  const at = (path: string) => {
    if (!/^[\w-]+(\/[\w-]+)*(\.\w+)?$/.test(path)) throw new Error(`${path} is no name for a file`)
    return join(root, path)
  }
  return {
    async write(path, bytes) {
      const target = at(path)
      const folder = dirname(target)
      await mkdir(folder, { recursive: true })
      const draft = join(folder, `.${randomUUID()}`)
      try {
        const file = await open(draft, 'wx')
        try {
          await file.writeFile(bytes)
          await file.sync()
        } finally {
          await file.close()
        }
        await rename(draft, target)
      } catch (error) {
        await rm(draft, { force: true })
        throw error
      }
      // The name is on the disk once its folder is.
      const handle = await open(folder)
      await handle.sync().finally(() => handle.close())
    },
    async read(path) {
      try {
        return await readFile(at(path))
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
        throw error
      }
    },
    remove: (path) => rm(at(path), { force: true }),
  }
}
