import { readFile, realpath } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type EmbeddedPostgres, tryQuery } from './embedded.ts'
import { NAME, passwordFileOf } from './embedded-cluster.ts'
import { SOCKET_PORT } from './embedded-recovery.ts'

// PostgreSQL's own file: pid, data directory, start, port, socket directory, address, shared memory, state.
const socketLine = 4
const stateLine = 7

/**
 * The database of the server that runs on `dataDir`, for another process of the same user: it stays that server's own, and
 * ends with it. Waits for one that is starting. Undefined when none answers in time.
 */
export async function attachEmbedded(dataDir: string, withinMs = 20_000): Promise<EmbeddedPostgres['connection'] | undefined> {
  const dir = await realpath(resolve(dataDir))
  for (const until = Date.now() + withinMs; Date.now() < until; await sleep(100)) {
    const lines = (await readFile(join(dir, 'postgres', 'postmaster.pid'), 'utf8').catch(() => '')).split('\n')
    const host = lines[socketLine]?.trim()
    if (!host || lines[stateLine]?.trim() !== 'ready') continue
    const password = (await readFile(passwordFileOf(dir), 'utf8')).trim()
    const connection = { host, port: SOCKET_PORT, user: NAME, password, database: NAME }
    // The file may be that of a server that was killed.
    if ((await tryQuery(connection, 'SELECT 1')) === undefined) return connection
  }
  return undefined
}
