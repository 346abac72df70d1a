import { randomUUID } from 'node:crypto'
import { closeSync, fdatasyncSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { migrate } from '../../src/platform/db/migrate.ts'
import { meter, type Shares } from '../proc.ts'
import type { openPostgres } from '../stack.ts'

/** What PostgreSQL can do at all here: batches of messages from one client, each batch one durable commit, nothing else. */

const chats = 500
const batch = 50

const insert = `
  WITH moved AS (
    UPDATE chat_counters k SET last_seq = k.last_seq + 1, version = k.version + 1
    FROM unnest($1::uuid[]) AS t(chat_id) WHERE k.chat_id = t.chat_id RETURNING k.chat_id, k.last_seq, k.version
  )
  INSERT INTO messages (chat_id, seq, version, id, sender_id, client_id, created_at, reply_to_seq, message_type, content)
  SELECT m.chat_id, m.last_seq, m.version, i.id, i.sender_id, i.client_id, now(), NULL, 'text', i.content
  FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[]) AS i(chat_id, id, sender_id, client_id, content)
  JOIN moved m ON m.chat_id = i.chat_id`

export async function bareIngest(
  { postgres, pid }: Awaited<ReturnType<typeof openPostgres>>,
  seconds: number,
  bytes: number,
): Promise<{ perSecond: number; commits: number; shares: Shares }> {
  await migrate(postgres.connection)
  const client = new pg.Client(postgres.connection)
  await client.connect()
  const ids = Array.from({ length: chats }, () => randomUUID()).sort()
  await client.query(`INSERT INTO chats (id, type) SELECT id, 'dm' FROM unnest($1::uuid[]) AS t(id)`, [ids])
  await client.query('INSERT INTO chat_counters (chat_id) SELECT id FROM unnest($1::uuid[]) AS t(id)', [ids])
  const senders = ids.map(() => randomUUID())
  const content = 'x'.repeat(bytes)
  let at = 0
  async function one(): Promise<void> {
    const own = Array.from({ length: batch }, (_, n) => ids[(at + n) % chats]!)
    const from = Array.from({ length: batch }, (_, n) => senders[(at + n) % chats]!)
    at += batch
    const values = [own, own.map(() => randomUUID()), from, own.map(() => randomUUID()), own.map(() => content)]
    await client.query({ name: 'insert', text: insert, values })
  }
  for (const until = performance.now() + 1_500; performance.now() < until; ) await one()
  const shares = meter({ generator: [process.pid], postgres: [pid] })
  const began = performance.now()
  let commits = 0
  for (; performance.now() - began < seconds * 1_000; commits += 1) await one()
  const took = (performance.now() - began) / 1_000
  const used = shares()
  await client.end()
  return { perSecond: (commits * batch) / took, commits: commits / took, shares: used }
}

/** Median ms of writing 8 KB and having it on the disk. In the microseconds, an fsync stops at a cache that power may take away. */
export function fsyncMs(): number {
  const folder = mkdtempSync(join(tmpdir(), 'parley-bench-'))
  const file = openSync(join(folder, 'fsync'), 'w')
  const page = Buffer.alloc(8_192, 1)
  const times = Array.from({ length: 101 }, () => {
    const from = performance.now()
    writeSync(file, page, 0, page.length, 0)
    fdatasyncSync(file)
    return performance.now() - from
  })
  closeSync(file)
  rmSync(folder, { recursive: true })
  return times.sort((a, b) => a - b)[50]!
}
