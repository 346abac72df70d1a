import { Agent, request } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { fill, longest, totals } from '../fill.ts'
import { fullText, type Search } from '../full-text.ts'
import { type Account, register } from '../people.ts'
import { plansSettings, watchPlans } from '../plans.ts'
import { meter } from '../proc.ts'
import { megabytes, type Row, show } from '../report.ts'
import type { Scenario } from '../scenario.ts'
import { openStack, type Stack } from '../stack.ts'
import { shareCells } from '../steps.ts'
import { newHistogram, percentiles, record } from '../tally.ts'

const targetMs = 20
/** Besides me. */
const people = 499
const most = 400
const warmUp = 60

interface Look {
  name: string
  request: () => { method: string; path: string; body?: object }
  /** Whether the answer is what it should be: a fast 404 is no good figure. */
  check: (answer: Answer) => boolean
}

interface Answer {
  chats?: unknown[]
  messages?: unknown[]
  results?: unknown[]
}

// A word of the text is in every eighth message; numbers are each in one message of a chat. Each search picks one of
// several queries, so that no answer is always at hand.
const searches: Search[] = [
  { name: 'a rare word', queries: ['99999', '77777', '54321', '12345'] },
  { name: 'a common word', queries: ['water', 'teacher', 'moment', 'history'] },
  { name: 'a prefix', queries: ['te', 'mo', 'his', 'mom'] },
  { name: 'two words', queries: ['water school', 'night story', 'teacher war', 'moment law'] },
  { name: 'a rare and a common word', queries: ['417 water', '333 night', '99 school'] },
]
/** Of which full text knows nothing. */
const partSearches: Search[] = [
  { name: 'a part of a word', queries: ['omen', 'eache', 'istory'] },
  { name: 'a part of a rare word', queries: ['0417', '0999', '0123'] },
]

const searchLook = ({ name, queries }: Search): Look => ({
  name: `search: ${name}`,
  request: () => ({ method: 'GET', path: `/search/messages?q=${encodeURIComponent(pick(queries))}` }),
  check: ({ results }) => (results?.length ?? 0) > 0,
})

const pick = <T>(items: readonly T[]): T => items[Math.floor(Math.random() * items.length)]!

export const history: Scenario = {
  name: 'history',
  about:
    '1,000,000 messages in 2,000 chats, 200 of them mine: what a client asks, one call after the other, and whether every plan is an index plan.',
  elsewhere: false,
  async run(report, { seconds, short }) {
    const stack = await openStack({ settings: plansSettings })
    const [server = ''] = stack.urls
    const [me, ...others] = (await register(server, people + 1)) as [Account, ...Account[]]
    const began = performance.now()
    const { mine, user_version } = await fill(stack, me, others)
    if (short) {
      // As part of the whole, what others said among themselves is left out of the index: that alone takes minutes.
      await stack.query(
        'INSERT INTO search_positions (chat_id, indexed_seq) SELECT chat_id, last_seq FROM chat_counters WHERE chat_id <> ALL($1::uuid[]) ON CONFLICT DO NOTHING',
        [mine.map(({ id }) => id)],
      )
    }
    report.note(`Filled in ${Math.round((performance.now() - began) / 1_000)} s.`)
    // What the server remembered was the empty database.
    await stack.restart()
    const [url = ''] = stack.urls
    const versions = Object.fromEntries(mine.map(({ id, version }) => [id, version]))
    const changed = mine.filter((_, n) => n % 4 === 0)
    const looks: Look[] = [
      {
        name: 'chat list (200)',
        request: () => ({ method: 'GET', path: '/chats' }),
        check: ({ chats }) => chats?.length === totals.mine,
      },
      {
        name: 'newest page',
        request: () => ({ method: 'GET', path: `/chats/${pick(mine).id}/messages` }),
        check: ({ messages }) => messages?.length === 50,
      },
      {
        name: 'a page deep in 100,000',
        request: () => ({
          method: 'GET',
          path: `/chats/${mine[0]!.id}/messages?before=${Math.floor(100 + Math.random() * (longest - 200))}`,
        }),
        check: ({ messages }) => messages?.length === 50,
      },
      {
        name: `sync of ${changed.length} changed chats`,
        request: () => {
          const behind = Object.fromEntries(changed.map(({ id, version }) => [id, version - 5]))
          return { method: 'POST', path: '/sync', body: { chats: { ...versions, ...behind }, user_version } }
        },
        check: ({ chats }) => chats?.length === changed.length,
      },
    ]
    const indexing = await waitForIndex(stack, short)
    report.note(indexing)
    looks.push(...[...searches, ...partSearches].map(searchLook))
    const length = seconds ?? (short ? 4 : 15)
    const rows: Row[] = []
    // Of what is asked a hundred times in a row, the first calls find code that was never run, and plans that are still made anew.
    for (let n = 0; n < warmUp; n += 1) for (const look of looks) await ask(url, me, look)
    for (const look of looks) {
      const took = newHistogram()
      for (let n = 0; n < 20; n += 1) await ask(url, me, look)
      const shares = meter(stack.pids)
      let bytes = 0
      for (const until = performance.now() + length * 1_000; performance.now() < until && took.count < most; ) {
        const answer = await ask(url, me, look)
        bytes = answer.bytes
        record(took, answer.ms)
      }
      const { count, p50, p95, p99, max } = percentiles(took)
      rows.push({
        call: look.name,
        calls: count,
        'p50 ms': p50,
        'p95 ms': p95,
        'p99 ms': p99,
        'max ms': max,
        KB: Math.round(bytes / 1_024),
        ...shareCells({ shares: shares() }),
      })
    }
    report.table(rows)
    for (const row of rows) {
      const p95 = row['p95 ms'] as number
      report.verdict(`${row.call}, p95`, `${p95.toFixed(1)} ms`, `≤ ${targetMs} ms`, p95 <= targetMs)
    }
    const plans = await watchPlans(stack, async () => {
      // A plan is made anew for the first calls of a connection, and may be another one later.
      for (let n = 0; n < 40; n += 1) for (const look of looks) await ask(url, me, look)
    })
    report.verdict(
      'plans',
      `${plans.statements.length} statements, ${plans.bad.length} of them read a large table whole`,
      'none does',
      plans.statements.length > 0 && plans.bad.length === 0,
    )
    report.table(
      plans.statements
        .filter(({ by }) => by !== '')
        .toSorted((a, b) => a.text.localeCompare(b.text))
        .map(({ text, by }) => ({ statement: `\`${text.replaceAll('|', '\\|')}\``, 'reads by': by })),
    )
    report.table(
      await fullText(
        stack,
        mine.map(({ id }) => id),
        searches,
      ),
    )
    for (const plan of plans.bad) report.note(`\n\`\`\`\n${plan}\n\`\`\``)
    await stack.close()
  },
}

/** Until the server has indexed all that is there; resolves with what that took. */
async function waitForIndex(stack: Stack, mineAlone: boolean): Promise<string> {
  const began = performance.now()
  const behind = () =>
    stack.query<{ left: number }>(
      'SELECT coalesce(sum(k.last_seq - coalesce(p.indexed_seq, 0)), 0)::float8 AS left FROM chat_counters k LEFT JOIN search_positions p ON p.chat_id = k.chat_id',
    )
  while ((await behind())[0]!.left > 0) await sleep(1_000)
  const seconds = Math.round((performance.now() - began) / 1_000)
  await stack.query('VACUUM ANALYZE search_words')
  const [size] = await stack.query<{ words: number; rows: number; indexes: number }>(
    `SELECT pg_relation_size('search_words')::float8 AS words, pg_indexes_size('search_words')::float8 AS indexes, (SELECT count(*)::float8 FROM search_words) AS rows`,
  )
  const { words, indexes, rows } = size!
  return `Indexed for search in ${seconds} s, at the pace that leaves room for others: ${show(rows)} rows, ${megabytes(words)} and ${megabytes(indexes)} of indexes${mineAlone ? ', of my chats alone' : `, ${Math.round((words + indexes) / totals.messages)} bytes a message`}.`
}

const agent = new Agent({ keepAlive: true, maxSockets: 1 })

/** By the plainest client there is: `fetch` takes a millisecond or two of its own for such answers. */
function call(url: string, { token }: Account, { method, path, body }: ReturnType<Look['request']>) {
  const content = body && JSON.stringify(body)
  const headers = {
    authorization: `Bearer ${token}`,
    ...(content && { 'content-type': 'application/json', 'content-length': Buffer.byteLength(content) }),
  }
  return new Promise<{ status: number | undefined; body: Buffer[] }>((resolve, reject) => {
    request(`${url}/api/v1${path}`, { agent, method, headers }, (response) => {
      const body: Buffer[] = []
      response.on('data', (chunk: Buffer) => body.push(chunk))
      response.on('end', () => resolve({ status: response.statusCode, body }))
      response.on('error', reject)
    })
      .on('error', reject)
      .end(content)
  })
}

/** Until the whole answer is there; reading it is the client's affair. */
async function ask(url: string, me: Account, { name, request: wanted, check }: Look): Promise<{ ms: number; bytes: number }> {
  const from = performance.now()
  const { status, body } = await call(url, me, wanted())
  const ms = performance.now() - from
  const text = Buffer.concat(body).toString()
  if (status !== 200 || !check(JSON.parse(text) as Answer)) throw new Error(`${name}: ${status} ${text.slice(0, 300)}`)
  return { ms, bytes: text.length }
}
