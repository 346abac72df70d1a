import type { Row } from './report.ts'
import type { Stack } from './stack.ts'
import { newHistogram, percentiles, record } from './tally.ts'

/**
 * The same searches by PostgreSQL's own full text over the same messages: a GIN index over all of them, of which those of
 * the asker's chats are kept and the newest 200 told. What the server's own index is measured against.
 */

export interface Search {
  name: string
  queries: readonly string[]
}

const times = 20

export async function fullText(stack: Stack, chatIds: readonly string[], searches: readonly Search[]): Promise<Row[]> {
  const vector = `to_tsvector('simple', content)`
  await stack.query(`CREATE INDEX bench_full_text ON messages USING gin ((${vector}))`)
  await stack.query('VACUUM ANALYZE messages')
  const rows: Row[] = []
  for (const { name, queries } of searches) {
    const took = newHistogram()
    let hits = 0
    for (let n = -1; n < times; n += 1) {
      const query = queries[(n + queries.length) % queries.length]!.replaceAll(' ', ':* & ')
      const from = performance.now()
      const found = await stack.query(
        `SELECT chat_id, seq, created_at FROM messages
         WHERE ${vector} @@ to_tsquery('simple', $1) AND chat_id = ANY($2::uuid[]) ORDER BY created_at DESC LIMIT 200`,
        [`${query}:*`, chatIds],
      )
      hits = found.length
      if (n >= 0) record(took, performance.now() - from)
    }
    const { p50, p95, max } = percentiles(took)
    rows.push({ 'in PostgreSQL full text': name, hits, 'p50 ms': p50, 'p95 ms': p95, 'max ms': max })
  }
  return rows
}
