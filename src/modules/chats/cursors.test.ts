import { expect, test } from 'vitest'
import type { Db, Queryable } from '../../platform/db/db.ts'
import { createCursors } from './cursors.ts'
import type { ChatDeps } from './deps.ts'

/** A database that moves what it is asked to move, and notes how many rows each statement had. */
function fakeDeps() {
  const batches: string[][] = []
  const tx: Queryable = {
    query: async ({ values }) => {
      const [chatIds, userIds, read, delivered] = values as [string[], string[], number[], number[]]
      batches.push(chatIds)
      const rows = chatIds.map((chat_id, n) => {
        const to = { read_seq: read[n], delivered_seq: delivered[n] }
        // Nothing moved, so that nobody has to be told.
        return { chat_id, user_id: userIds[n], ...to, read_from: to.read_seq, delivered_from: to.delivered_seq, read_at: null }
      })
      return rows as never[]
    },
  }
  const db = { transaction: <T>(work: (q: Queryable) => Promise<T>) => work(tx) } as Db
  return { deps: { db, onError: expect.unreachable } as unknown as ChatDeps, batches }
}

test('moves that come while a statement is under way share the next one', async () => {
  const { deps, batches } = fakeDeps()
  const cursors = createCursors(deps)
  const first = cursors.move({ chat_id: 'a', user_id: 'u', read: 1 })
  await Promise.resolve()
  const [second, third] = [2, 3].map((read) => cursors.move({ chat_id: 'b', user_id: 'u', read }))
  await Promise.all([first, cursors.move({ chat_id: 'c', user_id: 'u', delivered: 1 })])
  expect(await Promise.all([second, third])).toEqual(Array(2).fill({ read_seq: 3, delivered_seq: 0 }))
  expect(batches).toEqual([['a'], ['b', 'c']])
  await cursors.close()
})

test('a move that comes in the very moment in which the last one is answered does not wait for another', async () => {
  const { deps, batches } = fakeDeps()
  const cursors = createCursors(deps)
  const move = (chat_id: string) => cursors.move({ chat_id, user_id: 'u', read: 1 })
  let chain = move('c0')
  // Each a little later after the answer, in turns of the microtask queue.
  for (let turns = 1; turns <= 8; turns += 1) {
    chain = chain.then(async () => {
      for (let n = 0; n < turns; n += 1) await Promise.resolve()
      return move(`c${turns}`)
    })
  }
  await chain
  expect(batches.flat()).toHaveLength(9)
  await cursors.close()
}, 3_000)
