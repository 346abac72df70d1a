import type { Control } from './control.ts'
import { type Queryable, sql } from './db/db.ts'
import { noticeChannel } from './db/migrate.ts'

/**
 * How a command of the operator, which is no instance and speaks to no Redis, tells running servers: by a notification of
 * PostgreSQL, which every instance listens for on the connection that holds its lock.
 */
export function createNotices(db: Queryable): Pick<Control, 'announce'> & { told(): Promise<unknown> } {
  const telling: Promise<unknown>[] = []
  return {
    announce(news) {
      const payload = JSON.stringify({ from: 'operator', news })
      const sent = db.query(sql`SELECT pg_notify(${noticeChannel}, ${payload})`)
      // Heard by `told`.
      sent.catch(() => {})
      telling.push(sent)
    },
    /** Resolves when all that was announced is told. */
    told: () => Promise.all(telling),
  }
}
