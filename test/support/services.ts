/** The real PostgreSQL and Redis that test/support/global-setup.ts has started, as tests use them. */
import { randomBytes } from 'node:crypto'
import pg from 'pg'
import { inject } from 'vitest'

export { freePort, type PrivateRedis, startRedis } from './redis.ts'

export interface TestDatabase {
  /** For `new pg.Pool({ connectionString })`; may name a unix socket: `postgres://user:password@/name?host=/folder`. */
  url: string
  /** Drops it, whoever is still connected. */
  drop(): Promise<void>
}

/** A new, empty database; one per test file keeps files apart. */
export async function createDatabase(): Promise<TestDatabase> {
  const name = `test_${randomBytes(8).toString('hex')}`
  await administer(`CREATE DATABASE ${name} TEMPLATE template0`)
  return {
    url: withDatabase(inject('databaseUrl'), name),
    drop: () => administer(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`),
  }
}

/** The Redis that all test files share: use keys and channels of your own. To break one, see startRedis. */
export function redisUrl(): string {
  return inject('redisUrl')
}

async function administer(statement: string): Promise<void> {
  const client = new pg.Client({ connectionString: inject('databaseUrl') })
  await client.connect()
  try {
    await client.query(statement)
  } finally {
    await client.end()
  }
}

/** The same server, another database. URL cannot do it: it knows no empty host. */
function withDatabase(url: string, name: string): string {
  return url.replace(/^(\w+:\/\/[^/?]*)(\/[^?]*)?/, `$1/${name}`)
}
