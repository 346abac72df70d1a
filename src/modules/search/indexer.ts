import { type Db, sql } from '../../platform/db/db.ts'
import { indexSome } from './words.ts'

/**
 * Writes what messages are found by, after their commit and apart from it: sends do not wait for it. Whoever writes the
 * words of a chat holds its row in search_positions; several instances share the work by skipping what another holds.
 */

export interface IndexerDeps {
  db: Db
  /** Told of how many messages were indexed. */
  indexed: (count: number) => void
  onError: (error: unknown, what: string) => void
}

export interface Indexer {
  /** These chats have new messages. */
  note(rows: readonly { chat_id: string }[]): void
  start(): void
  /** Seconds since the oldest message was noted that waits to be indexed; 0 when none does. */
  readonly behind: number
  /** Resolves when all that was noted is indexed. */
  settled(): Promise<void>
  /** Resolves when the batch that is under way is done. What is left is found at the next start. */
  close(): Promise<void>
}

/** Messages wait so long for others of their chat, which share most of their words: until then they are searched where they stand. */
const gatherMs = 1_000
/** Between two rounds in which all chats are looked through for what was missed. */
const sweepEveryMs = 60_000
/** More chats than this are not remembered: the sweep finds them. */
const maxNoted = 20_000
/** How long the database is left to others after a batch, in times of how long that took: by the messages that arrive in a second. */
const restFactor = (rate: number): number => (rate > 300 ? 9 : rate > 10 ? 1 : 0.25)
const restMs = 50
const maxRestMs = 30_000

const chatsOfSweep = 500
const chatsOfBatch = 50

const firstId = '00000000-0000-0000-0000-000000000000'

export function createIndexer({ db, indexed, onError }: IndexerDeps): Indexer {
  /** Chats with messages to be indexed, and since when; the longest waiting first. */
  const noted = new Map<string, number>()
  let isOpen = false
  let timer: NodeJS.Timeout | undefined
  /** When it rings. */
  let due = Infinity
  let notBefore = 0
  let running: Promise<void> | undefined
  /** Where the sweep goes on; undefined between two rounds. */
  let sweptTo: string | undefined = firstId
  let nextSweep = 0
  let failures = 0
  let arrived = 0
  let arrivedSince = Date.now()

  /** The next step is so far away, or nearer; but a rest is a rest. */
  function schedule(ms: number): void {
    const at = Math.max(notBefore, Date.now() + ms)
    if (!isOpen || running || at >= due) return
    clearTimeout(timer)
    due = at
    timer = setTimeout(() => void run(), at - Date.now()).unref()
  }

  async function run(): Promise<void> {
    due = Infinity
    let rest = 0
    running = step()
      .then((ms) => {
        rest = ms
        failures = 0
      })
      .catch((error: unknown) => {
        failures += 1
        rest = Math.min(maxRestMs, gatherMs * 2 ** failures)
        onError(error, 'messages could not be indexed')
      })
    await running
    running = undefined
    notBefore = Date.now() + rest
    schedule(noted.size > 0 || sweptTo !== undefined ? 0 : sweepEveryMs)
  }

  /** One batch; resolves with how long to leave the database alone, ms. */
  async function step(): Promise<number> {
    const began = Date.now()
    if (sweptTo === undefined && began >= nextSweep) sweptTo = firstId
    if (sweptTo !== undefined && noted.size < chatsOfBatch) await sweep(sweptTo)
    const batch = Array.from(noted).slice(0, chatsOfBatch)
    if (batch.length > 0) {
      const rate = arrived / Math.max(1, (began - arrivedSince) / 1_000)
      arrived = 0
      arrivedSince = began
      // What is noted from here on may be missed by this batch.
      for (const [chatId] of batch) noted.delete(chatId)
      let done: Awaited<ReturnType<typeof indexSome>>
      try {
        done = await indexSome(
          db,
          batch.map(([chatId]) => chatId),
        )
      } catch (error) {
        for (const [chatId, since] of batch) remember(chatId, since)
        throw error
      }
      indexed(done.messages)
      for (const [chatId, since] of batch) if (!done.complete.has(chatId)) remember(chatId, since)
      // Others hold these chats.
      if (done.messages === 0 && done.complete.size === 0) return gatherMs
      return restMs + (Date.now() - began) * restFactor(rate)
    }
    return restMs
  }

  /** Looks through the next chats, in the order of their ids, for messages that nobody noted. Keys of the two tables. */
  async function sweep(after: string): Promise<void> {
    const [page] = await db.query<{ last: string | null; behind: string[] | null }>(sql`
      SELECT (array_agg(k.chat_id ORDER BY k.chat_id DESC))[1] AS last,
        array_agg(k.chat_id) FILTER (WHERE k.last_seq > coalesce((SELECT indexed_seq FROM search_positions WHERE chat_id = k.chat_id), 0)) AS behind
      FROM (SELECT chat_id, last_seq FROM chat_counters WHERE chat_id > ${after} ORDER BY chat_id LIMIT ${chatsOfSweep}) k`)
    sweptTo = page?.last ?? undefined
    nextSweep = Date.now() + sweepEveryMs
    for (const chatId of page?.behind ?? []) remember(chatId, Date.now())
  }

  function remember(chatId: string, since: number): void {
    if (!noted.has(chatId) && noted.size < maxNoted) noted.set(chatId, since)
  }

  return {
    note(rows) {
      if (rows.length === 0) return
      arrived += rows.length
      const now = Date.now()
      for (const { chat_id } of rows) remember(chat_id, now)
      schedule(gatherMs)
    },
    start() {
      isOpen = true
      sweptTo = firstId
      schedule(restMs)
    },
    get behind() {
      const [oldest] = noted.values()
      return oldest === undefined ? 0 : (Date.now() - oldest) / 1_000
    },
    async settled() {
      while (isOpen && (noted.size > 0 || sweptTo !== undefined || running)) {
        await (running ?? new Promise((resolve) => setTimeout(resolve, restMs)))
      }
    },
    async close() {
      isOpen = false
      clearTimeout(timer)
      due = Infinity
      await running
    },
  }
}
