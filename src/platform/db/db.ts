import { createHash } from 'node:crypto'
import pg from 'pg'
import sql, { type Sql } from 'sql-template-tag'
import { AppError, isUnavailable } from '../errors.ts'

export type { Sql }
export { sql }

/** Whatever can run a statement: the pool (each in autocommit) or a transaction. */
export interface Queryable {
  /** Rows of one statement. Statements are prepared once per connection under a name made from their text. */
  query<Row extends object>(statement: Sql): Promise<Row[]>
}

export interface Db extends Queryable {
  /** Commits when `work` resolves, rolls back when it rejects. Retries nothing. */
  transaction<T>(work: (tx: Queryable) => Promise<T>): Promise<T>
  /** One consistent snapshot for several reads. */
  snapshot<T>(work: (tx: Queryable) => Promise<T>): Promise<T>
  readonly waiting: number
  readonly total: number
  readonly idle: number
  close(): Promise<void>
}

// Counters stay far below 2^53, so a number serves; the text of a timestamp is made what the API promises
// (RFC 3339, UTC, milliseconds), so that no row needs mapping.
pg.types.setTypeParser(20, Number)
pg.types.setTypeParser(1184, rfc3339)

/** `2026-01-15 10:05:00.12+00` -> `2026-01-15T10:05:00.120Z`. The session's time zone is UTC. */
export function rfc3339(text: string): string {
  const fraction = text.slice(19, -3)
  return `${text.slice(0, 10)}T${text.slice(11, 19)}${fraction === '' ? '.000' : fraction.slice(0, 4).padEnd(4, '0')}Z`
}

// Names for server-side prepared statements. The set of texts is that of the source; the bound only guards
// against a statement whose text is built from data.
const names = new Map<string, string>()
const maxNames = 1_000

function nameOf(text: string): string | undefined {
  const known = names.get(text)
  if (known !== undefined) return known
  if (names.size >= maxNames) return undefined
  const name = `s${createHash('sha1').update(text).digest('base64url').slice(0, 16)}`
  names.set(text, name)
  return name
}

function runner(client: { query(config: pg.QueryConfig): Promise<pg.QueryResult> }): Queryable {
  return {
    async query<Row extends object>(statement: Sql) {
      const { text, values } = statement
      const name = nameOf(text)
      const result = await client.query(name === undefined ? { text, values } : { name, text, values })
      return result.rows as Row[]
    },
  }
}

export interface DbOptions {
  connection: { connectionString: string } | { host: string; port: number; user: string; password: string; database: string }
  poolSize: number
  /** Told of errors of idle connections, which concern no caller. */
  onError: (error: Error) => void
}

export function openDb({ connection, poolSize, onError }: DbOptions): Db {
  const pool = new pg.Pool({
    ...connection,
    max: poolSize,
    // A stalled server must not queue work without end: waiting for a connection and running a statement are bounded.
    connectionTimeoutMillis: 5_000,
    statement_timeout: 10_000,
    idle_in_transaction_session_timeout: 15_000,
    idleTimeoutMillis: 60_000,
    keepAlive: true,
    options: '-c timezone=UTC -c datestyle=ISO -c intervalstyle=iso_8601',
    application_name: 'parley',
  })
  pool.on('error', onError)
  // A connection may end in the same breath as it is handed over, before its new holder listens: an `error` that nobody
  // hears would end the process. The holder's next statement fails, which says enough.
  pool.on('connect', (client) => client.on('error', () => {}))
  const direct = runner(pool)

  async function within<T>(begin: string, work: (tx: Queryable) => Promise<T>): Promise<T> {
    const client = await pool.connect()
    let broken: Error | undefined
    // A connection lost between two statements emits an error that nobody else listens for.
    const onLost = (error: Error) => {
      broken = error
    }
    client.on('error', onLost)
    try {
      await client.query(begin)
      const result = await work(runner(client))
      await client.query('COMMIT')
      return result
    } catch (error) {
      // A rollback that fails says that the connection is of no more use; it is not what went wrong.
      await client.query('ROLLBACK').catch((lost: Error) => {
        broken = lost
      })
      throw error
    } finally {
      client.off('error', onLost)
      client.release(broken)
    }
  }

  return {
    query: (statement) => direct.query(statement),
    transaction: (work) => within('BEGIN', work),
    snapshot: (work) => within('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY', work),
    get waiting() {
      return pool.waitingCount
    },
    get total() {
      return pool.totalCount
    },
    get idle() {
      return pool.idleCount
    },
    close: () => pool.end(),
  }
}

export type PgError = Error & { code: string; constraint?: string; table?: string }

/** The name of the unique constraint that the statement ran into, if it did. */
export function violatedUnique(error: unknown): string | undefined {
  const { code, constraint } = (error ?? {}) as Partial<PgError>
  return code === '23505' ? constraint : undefined
}

/** What a caller is told of a failed statement: `unavailable` where trying again makes sense. */
export function asAppError(error: unknown): AppError {
  if (error instanceof AppError) return error
  const code = (error as Partial<PgError> | undefined)?.code
  // 57014: statement_timeout; 55P03: lock_timeout; 40001, 40P01: serialization, deadlock.
  if (isUnavailable(error) || (code !== undefined && /^(57014|55P03|40001|40P01)$/.test(code))) {
    return new AppError('unavailable', { retryAfter: 1, cause: error })
  }
  return new AppError('internal_error', { cause: error })
}
