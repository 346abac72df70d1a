/** Servers with an embedded PostgreSQL for its tests: in this process or in one that may be killed; none outlives its test file. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { type EmbeddedOptions, type EmbeddedPostgres, openEmbedded } from './embedded.ts'

export const isRoot = process.getuid?.() === 0
/** What openHere has warned of. */
export const warnings: string[] = []
const log = { info: () => undefined, warn: (line: string) => void warnings.push(line), debug: () => undefined }
const roots: string[] = []
const opened: EmbeddedPostgres[] = []
const children: ChildProcess[] = []

/** A data directory that does not exist yet, in a folder that only we can enter. */
export async function newDataDir(name = 'data'): Promise<string> {
  const root = await mkdtemp(join(tmpdir(), 'parley-test-'))
  roots.push(root)
  return join(root, name)
}

export async function openHere(dataDir: string, options: Partial<EmbeddedOptions> = {}): Promise<EmbeddedPostgres> {
  const postgres = await openEmbedded({ dataDir, log, ...options })
  opened.push(postgres)
  return postgres
}

const SERVER = `
  const [module, dataDir] = process.argv.slice(1)
  const { openEmbedded } = await import(module)
  const log = { info() {}, warn() {}, debug() {} }
  process.on('SIGINT', () => process.stdout.write('interrupted\\n'))
  const postgres = await openEmbedded({ dataDir, log })
  process.on('SIGTERM', () => postgres.close().then(() => process.exit(0)))
  process.stdout.write(JSON.stringify(postgres.connection) + '\\n')
  setInterval(() => {}, 1000)`

interface ChildOptions {
  wrap?: string[]
  env?: NodeJS.ProcessEnv
  cwd?: string
  /** The folder with embedded.ts, if it is not this one. */
  source?: string
}

/** Node with an embedded PostgreSQL, as a process of its own. */
export function spawnServer(dataDir: string, { wrap = [], env = {}, cwd, source = import.meta.dirname }: ChildOptions = {}) {
  const node = [process.execPath, '--input-type=module', '-e', SERVER, join(source, 'embedded.ts'), dataDir]
  const [file, ...args] = [...wrap, ...node]
  const child = spawn(file!, args, {
    env: { PATH: process.env.PATH, ...env },
    cwd,
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  children.push(child)
  let errors = ''
  child.stderr.on('data', (chunk) => {
    errors += chunk
  })
  const line = () =>
    new Promise<string>((resolve, reject) => {
      child.stdout.once('data', (data) => resolve(data.toString()))
      child.once('close', () => reject(new Error(errors)))
    })
  return { child, line, ready: line().then((text) => JSON.parse(text) as EmbeddedPostgres['connection']) }
}

export async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exited = once(child, 'exit')
  child.kill(signal)
  await exited
}

export async function query(connection: pg.ClientConfig, text: string): Promise<unknown> {
  const client = new pg.Client(connection)
  client.on('error', () => undefined)
  await client.connect()
  try {
    const { rows } = await client.query({ text, rowMode: 'array' })
    return rows[0]?.[0]
  } finally {
    await client.end()
  }
}

export const remember = (connection: pg.ClientConfig, word: string) =>
  query(connection, `CREATE TABLE kept AS SELECT '${word}'::text AS word`)
export const recall = (connection: pg.ClientConfig) => query(connection, 'SELECT word FROM kept')
export const postmaster = (dataDir: string) =>
  Number(readFileSync(join(dataDir, 'postgres', 'postmaster.pid'), 'utf8').split('\n')[0])
export const mode = (path: string) => (statSync(path).mode & 0o777).toString(8)

/** Every living PostgreSQL whose data is in this folder. */
export function processesOn(folder: string): string[] {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name))
  // A zombie's command line is empty.
  return pids.filter((pid) => read(`/proc/${pid}/cmdline`).includes(`\0-D\0${folder}`))
}

/** For `afterEach`. */
export async function closeAll(): Promise<void> {
  for (const postgres of opened.splice(0)) await postgres.close()
  for (const child of children.splice(0)) await end(child, 'SIGTERM')
}

/** For `afterAll`: removes the folders, and names what should not be there any more. */
export async function removeAll(): Promise<string[]> {
  const leftovers = roots.flatMap(processesOn)
  for (const root of roots) await rm(root, { recursive: true, force: true, maxRetries: 10 })
  for (const name of readdirSync(tmpdir())) {
    if (!name.startsWith('parley-pg-')) continue
    const whose = read(join(tmpdir(), name, 'data-dir'))
    if (roots.some((root) => whose.startsWith(root))) leftovers.push(name)
  }
  return leftovers
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return '' // gone meanwhile
  }
}
