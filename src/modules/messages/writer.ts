import { setTimeout as sleep } from 'node:timers/promises'
import { type PgError, violatedUnique } from '../../platform/db/db.ts'
import { AppError, isUnavailable } from '../../platform/errors.ts'
import type { Acl } from '../chats/index.ts'
import { type LockedCounters, messageRow, type Send, type WriterDeps, type Written, writeBatch } from './batch.ts'
import { type MessageRow, messagesByClientId } from './rows.ts'
import { writeTogether } from './together.ts'

/**
 * The write path. Sends wait in a queue per chat; whenever a statement may start, those of all chats that have none on
 * its way leave together. Idle: a send leaves at once, alone. Busy: batches grow by themselves. A send is acknowledged
 * after its commit, once, in the order in which its sender's sends came.
 */

/** Statements under way at once; commits share their fsync, so more gain little on a small machine. */
const maxStatements = 2
const maxRows = 200
/** Of one chat, so that a busy one leaves room for others. */
const maxRowsOfChat = 100
/** More waiting than this is refused: memory stays bounded while the database stalls. */
const maxQueued = 10_000
/** So long a send waits for a database that is away. */
const patienceMs = 8_000

export interface Writer {
  /** Rejects with what `check` refused with, `overloaded` or `unavailable`. */
  send(send: Send): Promise<Written>
  /** Several chats' at once, all or none, in the order given; each chat once. */
  sendTogether(sends: readonly Send[]): Promise<Written[]>
  readonly queued: number
  /** Resolves when all that was taken is answered. */
  close(): Promise<void>
}

interface Entry {
  send: Send
  since: number
  promise: Promise<Written>
  resolve: (written: Written) => void
  reject: (error: unknown) => void
}

interface Queue {
  chatId: string
  entries: Entry[]
  /** A statement with sends of this chat is under way, or they are being decided again. */
  busy: boolean
  /** Somebody else held the chat's lock: this one waits for it, apart from the others. */
  patient: boolean
}

const keyOf = (send: Pick<Send, 'chat_id' | 'sender_id' | 'client_id'>) => `${send.chat_id} ${send.sender_id} ${send.client_id}`

export function createWriter(deps: WriterDeps): Writer {
  const queues = new Map<string, Queue>()
  const known = new Map<string, Entry>()
  let statements = 0
  let patientStatements = 0
  let scheduled = false
  /** Sends to several chats, which wait in no queue. */
  let together = 0
  let onEmpty: (() => void) | undefined

  function send(send: Send): Promise<Written> {
    const key = keyOf(send)
    const same = known.get(key)
    if (same) return same.promise.then((written) => ({ ...written, duplicate: true }))
    if (isFull()) return Promise.reject(new AppError('overloaded', { retryAfter: 1 }))
    const { promise, resolve, reject } = Promise.withResolvers<Written>()
    const entry: Entry = { send, since: Date.now(), promise, resolve, reject }
    known.set(key, entry)
    let queue = queues.get(send.chat_id)
    if (!queue) {
      queue = { chatId: send.chat_id, entries: [], busy: false, patient: false }
      queues.set(send.chat_id, queue)
    }
    queue.entries.push(entry)
    schedule()
    return promise
  }

  const isFull = () => known.size + together >= maxQueued

  async function sendTogether(sends: readonly Send[]): Promise<Written[]> {
    if (isFull()) throw new AppError('overloaded', { retryAfter: 1 })
    together += sends.length
    try {
      return await writeTogether(deps, sends)
    } finally {
      together -= sends.length
      tellIfEmpty()
    }
  }

  function tellIfEmpty(): void {
    if (queues.size === 0 && together === 0) onEmpty?.()
  }

  /** All sends of this turn of the event loop leave together. */
  function schedule(): void {
    if (scheduled) return
    scheduled = true
    setImmediate(() => {
      scheduled = false
      pump()
    })
  }

  function settle(entry: Entry, outcome: { written: Written } | { error: unknown }): void {
    known.delete(keyOf(entry.send))
    if ('written' in outcome) entry.resolve(outcome.written)
    else entry.reject(outcome.error)
  }

  function pump(): void {
    while (statements < maxStatements) {
      // A chat that waits for a lock must not occupy all statements.
      const ready = [...queues.values()].filter((queue) => !queue.busy && queue.entries.length > 0)
      const patient = ready.length > 0 && ready.every((queue) => queue.patient)
      if (patient && patientStatements > 0) return
      const batch = take(ready.filter((queue) => queue.patient === patient))
      if (batch.size === 0) return
      statements += 1
      if (patient) patientStatements += 1
      void run(batch, patient).finally(() => {
        statements -= 1
        if (patient) patientStatements -= 1
        for (const queue of batch.keys()) {
          queue.busy = false
          if (queue.entries.length === 0) queues.delete(queue.chatId)
          else {
            // To the end of the line: whoever writes much does not starve others.
            queues.delete(queue.chatId)
            queues.set(queue.chatId, queue)
          }
        }
        tellIfEmpty()
        schedule()
      })
    }
  }

  function take(ready: readonly Queue[]): Map<Queue, Entry[]> {
    const batch = new Map<Queue, Entry[]>()
    let room = maxRows
    for (const queue of ready) {
      if (room === 0) break
      const entries = queue.entries.splice(0, Math.min(maxRowsOfChat, room))
      room -= entries.length
      queue.busy = true
      batch.set(queue, entries)
    }
    return batch
  }

  async function run(batch: Map<Queue, Entry[]>, patient: boolean): Promise<void> {
    const admitted: Entry[] = []
    const versions = new Map<string, number>()
    for (const [queue, entries] of batch) {
      try {
        const acl = await deps.acl.get(deps.db, queue.chatId)
        for (const entry of entries) if (admit(entry, acl)) admitted.push(entry)
        if (acl) versions.set(queue.chatId, acl.acl_version)
      } catch (error) {
        for (const entry of entries) settle(entry, { error })
      }
    }
    requeue(await attempt(admitted, versions, patient))
  }

  function admit(entry: Entry, acl: Acl | undefined): boolean {
    try {
      deps.check(acl, entry.send.sender_id)
      return true
    } catch (error) {
      settle(entry, { error })
      return false
    }
  }

  /** Writes these, and answers what has to be tried again, before anything that came later. */
  async function attempt(entries: Entry[], versions: ReadonlyMap<string, number>, patient: boolean): Promise<Entry[]> {
    if (entries.length === 0) return []
    const present = new Set(entries.map((entry) => entry.send.chat_id))
    const chats = new Map([...versions].filter(([id]) => present.has(id)))
    let counters: LockedCounters[]
    try {
      counters = await writeBatch(
        deps.db,
        chats,
        entries.map((entry) => entry.send),
        { patient },
      )
    } catch (error) {
      const rest = await recover(entries, error)
      if (rest !== 'split') return rest
      const half = Math.ceil(entries.length / 2)
      const again = await attempt(entries.slice(0, half), versions, true)
      // A chat of which something has to wait waits with all that follows.
      const waits = new Set(again.map((entry) => entry.send.chat_id))
      const { held = [], free = [] } = Object.groupBy(entries.slice(half), (entry) =>
        waits.has(entry.send.chat_id) ? 'held' : 'free',
      )
      return [...again, ...held, ...(await attempt(free, versions, true))]
    }
    const byChat = new Map(counters.map((row) => [row.chat_id, row]))
    const written: MessageRow[] = []
    const done: Entry[] = []
    const retry: Entry[] = []
    for (const entry of entries) {
      const row = byChat.get(entry.send.chat_id)
      if (row && row.acl_version === versions.get(entry.send.chat_id)) {
        row.last_seq += 1
        row.version += 1
        written.push(messageRow(entry.send, row))
        done.push(entry)
      } else retry.push(entry)
    }
    for (const id of chats.keys()) {
      const row = byChat.get(id)
      const queue = queues.get(id)
      if (queue) queue.patient = row === undefined
      // A chat that was busy says nothing about its list of members.
      if (row && row.acl_version !== chats.get(id)) deps.acl.forget(id)
    }
    const told = await deps.told(written)
    for (const [n, entry] of done.entries()) {
      settle(entry, { written: { row: written[n]!, event: told.get(entry.send.id), duplicate: false } })
    }
    return retry
  }

  /** To the head of their queues, which are there: they are busy until this run ends. */
  function requeue(entries: readonly Entry[]): void {
    for (const [id, mine] of Map.groupBy(entries, (entry) => entry.send.chat_id)) queues.get(id)!.entries.unshift(...mine)
  }

  /** After a failed statement: answers what it can, and says what to try again. */
  async function recover(entries: Entry[], error: unknown): Promise<Entry[] | 'split'> {
    if (violatedUnique(error) === 'messages_client_id') return answerKnown(entries)
    if (isUnavailable(error)) return afterOutage(entries, error)
    const code = (error as Partial<PgError>).code ?? ''
    // Rolled back for lack of time (statement or lock): the database is busy, not the message wrong.
    if (/^(57014|55P03|40001|40P01)$/.test(code)) {
      for (const entry of entries) settle(entry, { error: new AppError('unavailable', { retryAfter: 1, cause: error }) })
      return []
    }
    if (entries.length > 1) return 'split'
    deps.onError(error, 'a message could not be written')
    settle(entries[0]!, { error: new AppError('internal_error', { cause: error }) })
    return []
  }

  /** Sends that had been written before get the first one's message, told again: the first telling may have been lost. */
  async function answerKnown(entries: Entry[]): Promise<Entry[]> {
    try {
      const rows = await messagesByClientId(
        deps.db,
        entries.map((entry) => entry.send),
      )
      const found = new Map(rows.map((row) => [keyOf(row), row]))
      await deps.told(rows.sort((a, b) => a.seq - b.seq))
      const rest: Entry[] = []
      for (const entry of entries) {
        const row = found.get(keyOf(entry.send))
        // The id says whether it was this very send, whose answer had got lost.
        if (row) settle(entry, { written: { row, event: undefined, duplicate: row.id !== entry.send.id } })
        else rest.push(entry)
      }
      return rest
    } catch (error) {
      return isUnavailable(error) ? afterOutage(entries, error) : failAll(entries, error)
    }
  }

  /** The connection broke: the commit may have happened. Looks before it answers, for as long as the senders wait. */
  async function afterOutage(entries: Entry[], error: unknown): Promise<Entry[]> {
    const late = entries.filter((entry) => Date.now() - entry.since > patienceMs)
    if (late.length > 0) failAll(late, new AppError('unavailable', { retryAfter: 2, cause: error }))
    const rest = entries.filter((entry) => !late.includes(entry))
    if (rest.length === 0) return []
    await sleep(200)
    return answerKnown(rest)
  }

  function failAll(entries: readonly Entry[], error: unknown): Entry[] {
    for (const entry of entries) settle(entry, { error })
    return []
  }

  return {
    send,
    sendTogether,
    get queued() {
      return known.size + together
    },
    async close() {
      if (known.size + together === 0) return
      await new Promise<void>((resolve) => {
        onEmpty = resolve
        schedule()
      })
    },
  }
}
