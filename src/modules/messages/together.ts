import { setTimeout as sleep } from 'node:timers/promises'
import { violatedUnique } from '../../platform/db/db.ts'
import { AppError, isUnavailable } from '../../platform/errors.ts'
import { messageRow, type Send, type WriterDeps, type Written, writeBatch } from './batch.ts'
import { messagesByClientId } from './rows.ts'

/** So long it goes on while lists of members change under it, or the database is away. */
const patienceMs = 8_000

/**
 * Writes sends to several chats, all of them or none: past the queues, in one statement that takes all their locks, each
 * by the list of members that holds there. What was written before is answered as it stands. Rejects as `Writer.send` does.
 */
export async function writeTogether(deps: Omit<WriterDeps, 'onError'>, sends: readonly Send[]): Promise<Written[]> {
  const answers = new Map<Send, Written>()
  let looks = false
  for (const begun = Date.now(); ; ) {
    try {
      if (looks) for (const [send, written] of await writtenBefore(deps, sends)) answers.set(send, written)
      looks = false
      const rest = sends.filter((send) => !answers.has(send))
      if (rest.length > 0) for (const [n, written] of (await attempt(deps, rest)).entries()) answers.set(rest[n]!, written)
      return sends.map((send) => answers.get(send)!)
    } catch (error) {
      if (error instanceof ListChanged) {
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

class ListChanged extends Error {}

async function attempt({ db, acl, check, told }: Omit<WriterDeps, 'onError'>, sends: readonly Send[]): Promise<Written[]> {
  const versions = new Map<string, number>()
  for (const { chat_id, sender_id } of sends) {
    const list = await acl.get(db, chat_id)
    check(list, sender_id)
    versions.set(chat_id, list!.acl_version)
  }
  const locked = await writeBatch(db, versions, sends, { patient: true, together: true })
  const counters = new Map(locked.map((row) => [row.chat_id, row]))
  const stale = [...versions].filter(([id, version]) => counters.get(id)?.acl_version !== version)
  for (const [id] of stale) acl.forget(id)
  if (stale.length > 0) throw new ListChanged()
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
