import { readdir, readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import type { DbOptions } from './db.ts'

/** Where operators' commands tell running servers what they have changed. */
export const noticeChannel = 'parley_notices'

/** A start that must not go on; the message is one line for the operator. */
export class StartError extends Error {}

// Arbitrary, but fixed for ever: all instances of all versions must mean the same lock.
const migrationLock = 7_265_389_001
const singleLock = 7_265_389_002

const migrationsDir = fileURLToPath(new URL('../../../migrations/', import.meta.url))

interface Migration {
  number: number
  file: string
}

async function readMigrations(dir: string): Promise<Migration[]> {
  const files = (await readdir(dir)).filter((file) => file.endsWith('.sql')).sort()
  return files.map((file, index) => {
    const number = Number(/^(\d{4})_[a-z0-9_]+\.sql$/.exec(file)?.[1])
    if (number !== index + 1) throw new StartError(`Migration ${file} does not follow on the one before it.`)
    return { number, file }
  })
}

/**
 * Brings the schema up to this code's version: numbered SQL files, each in a transaction of its own, forward only.
 * An advisory lock makes instances that start together do it once. A database newer than the code is refused; an older one
 * too where it is not the caller's to change (`older`), unless it is empty.
 */
export async function migrate(
  connection: DbOptions['connection'],
  { dir = migrationsDir, older = 'upgrade' }: { dir?: string; older?: 'upgrade' | 'refuse' } = {},
): Promise<number> {
  const migrations = await readMigrations(dir)
  const client = new pg.Client({ ...connection, application_name: 'parley-migrate' })
  await client.connect().catch((cause: Error) => {
    // Where a name has several addresses, each has failed in its own way.
    const { message } = cause instanceof AggregateError ? (cause.errors[0] as Error) : cause
    throw new StartError(`The database that DATABASE_URL names cannot be reached: ${message}`, { cause })
  })
  try {
    await client.query('SELECT pg_advisory_lock($1)', [migrationLock])
    await client.query(
      'CREATE TABLE IF NOT EXISTS migrations (number int PRIMARY KEY, file text NOT NULL, applied_at timestamptz(3) NOT NULL DEFAULT now())',
    )
    const { rows } = await client.query<{ at: number }>('SELECT coalesce(max(number), 0) AS at FROM migrations')
    const at = rows[0]!.at
    const newest = migrations.length
    if (at > newest) {
      throw new StartError(
        `The database is at version ${at}, newer than this server (${newest}). Start a newer Parley, or restore the backup made before the upgrade.`,
      )
    }
    if (older === 'refuse' && at > 0 && at < newest) {
      throw new StartError(
        `The database is at version ${at}, older than this program (${newest}). Start the server once, which brings it up to date.`,
      )
    }
    for (const { number, file } of migrations.slice(at)) {
      const text = await readFile(`${dir}/${file}`, 'utf8')
      await client.query('BEGIN')
      try {
        await client.query(text)
        await client.query('INSERT INTO migrations (number, file) VALUES ($1, $2)', [number, file])
        await client.query('COMMIT')
      } catch (error) {
        await client.query('ROLLBACK')
        throw new StartError(`Migration ${file} failed: ${(error as Error).message}`, { cause: error })
      }
    }
    return newest
  } finally {
    // Ending the connection gives the lock back.
    await client.end()
  }
}

export interface InstanceLock {
  /** Told of each notification on `noticeChannel`. One listener, which must not throw. */
  onNotice(listener: (payload: string) => void): void
  /** Called when notifications may have been missed, once they come again. One listener. */
  onGap(listener: () => void): void
  close(): Promise<void>
}

/**
 * Without Redis an instance is alone: a second one on the same database would be a silent split. Such an instance
 * holds this lock exclusively, those with Redis share it. `onLost` is called when another took it over an outage. The
 * connection that holds it also listens to what operators' commands tell.
 */
export async function lockInstance(
  connection: DbOptions['connection'],
  mode: 'alone' | 'shared',
  onLost: (why: string) => void,
): Promise<InstanceLock> {
  let closing = false
  let client: pg.Client | undefined
  let notice: ((payload: string) => void) | undefined
  let gap: (() => void) | undefined

  async function take(): Promise<boolean> {
    const fresh = new pg.Client({
      ...connection,
      application_name: 'parley-lock',
      keepAlive: true,
      connectionTimeoutMillis: 5_000,
    })
    fresh.on('error', () => {})
    await fresh.connect()
    const { rows } = await fresh.query<{ held: boolean }>(
      mode === 'alone' ? 'SELECT pg_try_advisory_lock($1) AS held' : 'SELECT pg_try_advisory_lock_shared($1) AS held',
      [singleLock],
    )
    if (!rows[0]!.held) {
      await fresh.end()
      return false
    }
    fresh.on('notification', ({ payload = '' }) => notice?.(payload))
    await fresh.query(`LISTEN ${noticeChannel}`)
    client = fresh
    fresh.once('end', () => void retake())
    return true
  }

  // The server's going away frees the lock; it is taken again as soon as the server is back.
  async function retake(): Promise<void> {
    while (!closing) {
      try {
        if (await take()) return gap?.()
        // The former connection's server process may need a moment to notice that it is dead.
        await new Promise((resolve) => setTimeout(resolve, 2_000).unref())
        if (closing) return
        if (await take()) return gap?.()
        onLost(refusal)
        return
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 500).unref())
      }
    }
  }

  const refusal =
    mode === 'alone'
      ? 'Another Parley instance uses this database. Several instances need REDIS_URL on each of them.'
      : 'A Parley instance without REDIS_URL uses this database. Stop it, or give it the same REDIS_URL.'

  // A predecessor that was killed may hold it until its connection is noticed dead.
  for (let attempt = 0; !(await take()); attempt += 1) {
    if (attempt >= 5) throw new StartError(refusal)
    await new Promise((resolve) => setTimeout(resolve, 300))
  }
  return {
    onNotice: (listener) => {
      notice = listener
    },
    onGap: (listener) => {
      gap = listener
    },
    async close() {
      closing = true
      await client?.end()
    },
  }
}
