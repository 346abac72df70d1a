import type { Db, Sql } from '../../src/platform/db/db.ts'

/** The next batch of messages meets a database that is lost, and stays away for three questions more. */
export function loseDatabase(db: Db, onBatch: (batch: Sql) => Promise<unknown>) {
  const { query } = db
  const lost = () => Object.assign(new Error('the connection was lost (by the test)'), { code: '08006' })
  const state = { isLost: false, refused: 0 }
  db.query = async <Row extends object>(statement: Sql): Promise<Row[]> => {
    if (state.isLost && state.refused < 3) {
      state.refused += 1
      throw lost()
    }
    if (state.isLost || !statement.text.includes('WITH expected AS')) return query<Row>(statement)
    await onBatch(statement)
    state.isLost = true
    throw lost()
  }
  return Object.assign(state, {
    restore: () => {
      db.query = query
    },
  })
}
