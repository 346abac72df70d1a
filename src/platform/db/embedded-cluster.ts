/** The files of the embedded PostgreSQL: made once, complete or not at all. */
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { access, chown, mkdtemp, open, readdir, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Runner } from './embedded-runner.ts'

/** The name of our user, who owns everything, and of our database. */
export const NAME = 'parley'

/** Where the password is kept, readable by its owner alone. */
export const passwordFileOf = (dataDir: string) => join(dataDir, 'postgres.password')

/**
 * Creates the cluster if there is none, and says whether it did. initdb works in a folder beside it that is renamed when
 * complete, so that an interrupted first start leaves nothing that looks like a database.
 */
export async function createCluster(dataDir: string, clusterDir: string, { owner, command }: Runner): Promise<boolean> {
  for (const name of await readdir(dataDir)) {
    if (name.startsWith('postgres.init-')) await rm(join(dataDir, name), { recursive: true, force: true, maxRetries: 5 })
  }
  const passwordFile = passwordFileOf(dataDir)
  if ((await readdir(clusterDir).catch(() => [])).length > 0) {
    await checkCluster(clusterDir, passwordFile, owner?.uid ?? process.getuid?.())
    return false
  }
  const fresh = await mkdtemp(join(dataDir, 'postgres.init-'))
  await rm(passwordFile, { force: true })
  await writeFile(passwordFile, `${randomBytes(24).toString('base64url')}\n`, { mode: 0o600, flag: 'wx' })
  if (owner) {
    await chown(fresh, owner.uid, owner.gid)
    await chown(passwordFile, owner.uid, owner.gid)
  }
  // The builtin provider: sorting does not depend on the machine's C library, nor change with its next version.
  const locale = ['--encoding=UTF8', '--locale-provider=builtin', '--builtin-locale=C.UTF-8', '--locale=C']
  const access = ['--auth=scram-sha-256', `--username=${NAME}`, `--pwfile=${passwordFile}`]
  const [file, args, options] = command('initdb', [`--pgdata=${fresh}`, ...access, ...locale, '--no-instructions'])
  try {
    await promisify(execFile)(file, args, { ...options, timeout: 5 * 60_000 })
  } catch (error) {
    await rm(fresh, { recursive: true, force: true, maxRetries: 5 })
    const { stderr, message } = error as Error & { stderr?: string }
    throw new Error(`PostgreSQL could not create its files in ${dataDir}: ${(stderr || message).trim()}`)
  }
  await rename(fresh, clusterDir)
  const folder = await open(dataDir)
  await folder.sync().finally(() => folder.close())
  return true
}

/** Says in words what PostgreSQL would say in riddles. */
async function checkCluster(clusterDir: string, passwordFile: string, uid: number | undefined): Promise<void> {
  const { uid: owner } = await stat(clusterDir)
  if (owner !== uid)
    throw new Error(`${clusterDir} belongs to user ${owner}, and this is user ${uid}. Start Parley as that user, or as root.`)
  const isCluster = await access(join(clusterDir, 'PG_VERSION')).then(
    () => true,
    () => false,
  )
  if (!isCluster)
    throw new Error(
      `${clusterDir} holds something that is not a PostgreSQL database. Move it away, or set DATA_DIR to another folder.`,
    )
  await access(passwordFile).catch(() => {
    throw new Error(`${passwordFile} is missing or unreadable: the database in ${clusterDir} cannot be opened without it.`)
  })
}
