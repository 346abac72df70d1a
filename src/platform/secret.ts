import { randomBytes } from 'node:crypto'
import { link, mkdir, open, readFile, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { StartError } from './db/migrate.ts'

const minLength = 32

/**
 * The secret kept in `file`; made on the first call, readable by the owner alone. Callers that come at once, from other
 * processes too, get the same one. Throws StartError when the file holds something too short to be it.
 */
export async function keepSecret(file: string): Promise<string> {
  const kept = await read(file)
  if (kept !== undefined) return kept
  await mkdir(dirname(file), { recursive: true })
  // Written whole under another name, then linked: a link is never half a file and never replaces one.
  const draft = `${file}.${randomBytes(6).toString('hex')}`
  try {
    const handle = await open(draft, 'wx', 0o600)
    try {
      await handle.writeFile(`${randomBytes(48).toString('base64url')}\n`)
      await handle.sync()
    } finally {
      await handle.close()
    }
    await link(draft, file).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error
    })
  } finally {
    await rm(draft, { force: true })
  }
  return (await read(file))!
}

async function read(file: string): Promise<string | undefined> {
  try {
    const secret = (await readFile(file, 'utf8')).trim()
    if (secret.length < minLength) {
      throw new StartError(`${file} must hold at least ${minLength} characters; restore it, or remove it to sign everybody out.`)
    }
    return secret
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}
