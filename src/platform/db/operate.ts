import { mkdir } from 'node:fs/promises'
import { resolve } from 'node:path'
import type { Logger } from 'pino'
import type { DbOptions } from './db.ts'
import { DataDirInUseError, openEmbedded } from './embedded.ts'
import { attachEmbedded } from './embedded-attach.ts'
import { migrate, StartError } from './migrate.ts'

export interface OperateOptions {
  databaseUrl: string | undefined
  dataDir: string
  log: Pick<Logger, 'info' | 'warn' | 'debug'>
}

/**
 * The server's database for a command beside it, whether or not the server runs. A given one is used as it is; of the
 * embedded one the running server's is used, and otherwise it is started, and stopped again by `close`. The lock that
 * makes an instance is left alone. An older database is brought up to date only where no server can be using it.
 * Throws StartError.
 */
export async function openForCommand({ databaseUrl, dataDir, log }: OperateOptions): Promise<{
  connection: DbOptions['connection']
  close(): Promise<void>
}> {
  if (databaseUrl !== undefined) {
    const connection = { connectionString: databaseUrl }
    await migrate(connection, { older: 'refuse' })
    return { connection, close: async () => {} }
  }
  const dir = resolve(dataDir)
  await mkdir(dir, { recursive: true })
  try {
    const embedded = await openEmbedded({ dataDir: dir, log })
    try {
      await migrate(embedded.connection)
    } catch (error) {
      await embedded.close()
      throw error
    }
    return { connection: embedded.connection, close: () => embedded.close() }
  } catch (error) {
    if (!(error instanceof DataDirInUseError)) throw error
  }
  const connection = await attachEmbedded(dir)
  if (!connection)
    throw new StartError(`A server uses ${dir}, but its database does not answer. Is it starting or stopping? Try again.`)
  await migrate(connection, { older: 'refuse' })
  return { connection, close: async () => {} }
}
