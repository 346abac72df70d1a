import { startGenerator } from '../generator.ts'
import { each, group, register } from '../people.ts'
import type { Scenario } from '../scenario.ts'
import { openStack } from '../stack.ts'
import { shareCells, usualBytes } from '../steps.ts'

const clients = 1_000
const perChat = 10
const missed = 10
const jitterMs = 2_000

export const storm: Scenario = {
  name: 'storm',
  about: '1,000 clients lose their connections at once, miss 10 messages each, come back at random moments within 2 s and sync.',
  elsewhere: true,
  async run(report, { url }) {
    const stack = await openStack({ url, settings: { shared_preload_libraries: 'pg_stat_statements' } })
    const [server = ''] = stack.urls
    const chats = clients / perChat
    // One more in each chat stays and writes.
    const people = await register(server, clients + chats)
    const writers = people.slice(clients)
    const ids = await each(writers, (writer, n) => group(server, [writer, ...people.slice(n * perChat, (n + 1) * perChat)]))
    const generator = await startGenerator()
    await generator.connect(
      people.map(({ token }, n) => ({ url: server, token, chat: n < clients ? Math.floor(n / perChat) : n - clients })),
      ids,
    )
    const away = Array.from({ length: clients }, (_, n) => n)
    const senders = ids.map((_, n) => clients + n)
    const load = (rate: number, seconds: number) =>
      generator.ask('load', { seconds, streams: [{ name: 'all', rate, senders, bytes: usualBytes }], pids: stack.pids })
    await load(500, 2)
    await generator.ask('position', { peers: away })
    await generator.ask('cut', { peers: away })
    const missing = await load(1_000, (missed * chats) / 1_000)
    if (stack.database) {
      await stack.query('CREATE EXTENSION IF NOT EXISTS pg_stat_statements')
      await stack.query('SELECT pg_stat_statements_reset()')
    }
    const back = await generator.ask('comeBack', { peers: away, jitterMs, withinMs: 20_000, pids: stack.pids })
    const statements = stack.database
      ? await stack.query<{ calls: number; ms: number }>(`
          SELECT sum(calls)::int AS calls, sum(total_exec_time) AS ms FROM pg_stat_statements
          WHERE query NOT LIKE '%pg_stat_statements%'`)
      : []
    const calls = statements[0]?.calls ?? Number.NaN
    report.table([
      {
        clients,
        'missed each': missing.streams[0]!.sent / chats,
        'caught up': back.caughtUp,
        'all after ms': back.ms,
        'each p50 ms': back.each.p50,
        'each p95 ms': back.each.p95,
        'statements each': calls / clients,
        'database ms each': (statements[0]?.ms ?? Number.NaN) / clients,
        ...shareCells(back),
      },
    ])
    const ok = back.caughtUp === clients && back.duplicates === 0 && back.missing === 0
    if (!ok)
      report.note(`**${clients - back.caughtUp} not caught up, ${back.missing} messages missing, ${back.duplicates} unexpected**`)
    report.verdict(
      'all caught up',
      `${(back.ms / 1_000).toFixed(2)} s after the first came back`,
      '≤ 5 s',
      ok && back.ms <= 5_000,
    )
    await generator.stop()
    await stack.close()
  },
}
