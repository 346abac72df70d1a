import { setTimeout as sleep } from 'node:timers/promises'
import { violatedUnique } from '../../platform/db/db.ts'
import { AppError, isUnavailable } from '../../platform/errors.ts'
import { lockCounters } from '../chats/index.ts'
import { messageRow, type Send, type WriterDeps, type Written, writeBatch } from './batch.ts'
import { messagesByClientId } from './rows.ts'

/** So long it goes on while chats are busy, lists of members change under it, or the database is away. */
const patienceMs = 8_000
/** After so long it waits for busy chats with the others' locks in its hand: several that are always busy are never free at once. */
const politeMs = 2_000

/**
 * Writes sends to several chats, all of them or none: past the queues, in one statement that takes all their locks, each
 * by the list of members that holds there. A chat that is busy is waited for without holding the others'. What was written before is answered as it stands. Rejects as `Writer.send` does.
 */
export async function writeTogether(deps: Omit<WriterDeps, 'onError'>, sends: readonly Send[]): Promise<Written[]> {
  const answers = new Map<Send, Written>()
  let looks = false
  for (const begun = Date.now(); ; ) {
    try {
      if (looks) for (const [send, written] of await writtenBefore(deps, sends)) answers.set(send, written)
      looks = false
      const rest = sends.filter((send) => !answers.has(send))
      if (rest.length > 0)
        for (const [n, written] of (await attempt(deps, rest, Date.now() - begun > politeMs)).entries())
          answers.set(rest[n]!, written)
      return sends.map((send) => answers.get(send)!)
    } catch (error) {
      if (error instanceof NotYet) {
        // Tries again at once.
      } else if (violatedUnique(error) === 'messages_client_id') looks = true
      else if (isUnavailable(error)) {
        // A commit whose answer was lost may have happened: looks before it tries again.
        looks = true
        await sleep(200)
      } else throw error
      if (Date.now() - begun > patienceMs) throw new AppError('unavailable', { retryAfter: 1, cause: error })
    }
  }
}

/** Nothing was written: a chat was busy, or its list of members another. */
class NotYet extends Error {}

async function attempt(
  { db, acl, check, told }: Omit<WriterDeps, 'onError'>,
  sends: readonly Send[],
  patient: boolean,
): Promise<Written[]> {
  const versions = new Map<string, number>()
  for (const { chat_id, sender_id } of sends) {
    const list = await acl.get(db, chat_id)
    check(list, sender_id)
    versions.set(chat_id, list!.acl_version)
  }
  const locked = await writeBatch(db, versions, sends, { patient, together: true })
  const counters = new Map(locked.map((row) => [row.chat_id, row]))
  const busy = sends.find(({ chat_id }) => !counters.has(chat_id))
  // Outside of a transaction: the lock is let go as soon as it is had.
  if (busy) await lockCounters(db, busy.chat_id)
  const stale = locked.filter(({ chat_id, acl_version }) => versions.get(chat_id) !== acl_version)
  for (const { chat_id } of stale) acl.forget(chat_id)
  if (busy || stale.length > 0) throw new NotYet()
  const rows = sends.map((send) => {
    const { last_seq, version, ...rest } = counters.get(send.chat_id)!
    return messageRow(send, { ...rest, last_seq: last_seq + 1, version: version + 1 })
  })
  const events = await told(rows)
  return rows.map((row) => ({ row, event: events.get(row.id), duplicate: false }))
}

/** Told again: the first telling may have been lost. */
async function writtenBefore({ db, told }: Omit<WriterDeps, 'onError'>, sends: readonly Send[]): Promise<Map<Send, Written>> {
  const rows = await messagesByClientId(db, sends)
  await told(rows)
  return new Map(
    sends.flatMap((send) => {
      const row = rows.find(({ chat_id }) => chat_id === send.chat_id)
      return row ? [[send, { row, event: undefined, duplicate: row.id !== send.id }]] : []
    }),
  )
}
