import { execFile } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { scratch } from '../../test/support/tools.ts'
import type { Answer } from '../bare/fastify.ts'
import { undoLater } from '../ending.ts'
import { type Account, dm, each, group, register } from '../people.ts'
import { meter, type Pids } from '../proc.ts'
import { root, startNode } from '../processes.ts'
import type { Row } from '../report.ts'
import type { Scenario } from '../scenario.ts'
import { openStack } from '../stack.ts'
import { shareCells, usualBytes } from '../steps.ts'

const people = 100
const groups = 10
const connections = 20
const text = 'The quick brown fox jumps over the lazy dog. '.repeat(3).slice(0, usualBytes)

interface Call {
  name: string
  method: 'GET' | 'POST'
  /** As Fastify writes it. */
  pattern: string
  /** As this person calls it. */
  path: (n: number) => string
  body?: (n: number) => object
}

interface Measured {
  perSecond: number
  p50: number
  p99: number
  failures: number
}

const run = promisify(execFile)

/** A file in autocannon's language, with one request of each person, which its connections walk through. */
function writeRequests(file: string, origin: string, call: Call, accounts: readonly Account[]): void {
  const entries = accounts.map(({ token }, n) => ({
    request: {
      method: call.method,
      url: `${origin}${call.path(n)}`,
      headers: [
        { name: 'authorization', value: `Bearer ${token}` },
        ...(call.body ? [{ name: 'content-type', value: 'application/json' }] : []),
      ],
      ...(call.body && { postData: { text: JSON.stringify(call.body(n)) } }),
    },
  }))
  writeFileSync(file, JSON.stringify({ log: { entries } }))
}

async function cannon(file: string, origin: string, seconds: number): Promise<Measured> {
  const autocannon = join(root, 'node_modules', 'autocannon', 'autocannon.js')
  const args = [
    '-j',
    '-c',
    String(connections),
    '-d',
    String(seconds),
    '-W',
    '[',
    '-c',
    '20',
    '-d',
    '2',
    ']',
    '--har',
    file,
    origin,
  ]
  const { stdout } = await run(process.execPath, [autocannon, ...args], { maxBuffer: 2 ** 26 })
  const result = JSON.parse(stdout.trim().split('\n').at(-1)!) as {
    requests: { average: number }
    latency: { p50: number; p99: number }
    errors: number
    timeouts: number
    non2xx: number
  }
  const { requests, latency, errors, timeouts, non2xx } = result
  return { perSecond: requests.average, p50: latency.p50, p99: latency.p99, failures: errors + timeouts + non2xx }
}

export const rest: Scenario = {
  name: 'rest',
  about: `REST under autocannon, ${connections} connections that wait for each answer (closed loop), beside a bare Fastify that answers the same bytes.`,
  elsewhere: true,
  async run(report, { url, seconds, short }) {
    const stack = await openStack({ url })
    const [server = ''] = stack.urls
    const accounts = await register(server, people)
    const chats = await each(Array.from({ length: people / 2 }), (_, n) => dm(server, accounts[2 * n]!, accounts[2 * n + 1]!))
    await each(Array.from({ length: groups }), () => group(server, accounts))
    const chatOf = (n: number) => chats[Math.floor(n / 2)]!
    const calls: Call[] = [
      {
        name: 'POST /messages',
        method: 'POST',
        pattern: '/api/v1/messages',
        path: () => '/api/v1/messages',
        body: (n) => ({ chat_id: chatOf(n), content: text }),
      },
      { name: 'GET /chats', method: 'GET', pattern: '/api/v1/chats', path: () => '/api/v1/chats' },
      {
        name: 'GET /chats/:id/messages',
        method: 'GET',
        pattern: '/api/v1/chats/:id/messages',
        path: (n) => `/api/v1/chats/${chatOf(n)}/messages`,
      },
    ]
    const folder = await scratch('bench')
    const remove = undoLater(folder.remove)
    const file = join(folder.dir, 'requests.har')
    const length = seconds ?? (short ? 5 : 15)
    const answers: Answer[] = []
    const measure = async (call: Call, origin: string, pids: Pids) => {
      writeRequests(file, origin, call, accounts)
      const shares = meter(pids)
      return { ...(await cannon(file, origin, length)), shares: shares() }
    }
    const rows: Row[] = []
    for (const call of calls) {
      const made = await measure(call, server, stack.pids)
      const [status, body] = await sample(server, call, accounts[0]!)
      answers.push({ method: call.method, path: call.pattern, status, body })
      rows.push({
        call: call.name,
        'requests/s': made.perSecond,
        'p50 ms': made.p50,
        'p99 ms': made.p99,
        failed: made.failures,
        bytes: body.length,
        ...shareCells(made),
      })
      report.figures.set(`rest ${call.name}`, made.perSecond)
    }
    const answersFile = join(folder.dir, 'answers.json')
    writeFileSync(answersFile, JSON.stringify(answers))
    const bare = await startNode(['bench/bare/fastify.ts', answersFile], { ready: /is ready on (http\S+)/ })
    for (const [n, call] of calls.entries()) {
      const made = await measure(call, bare.said, { server: [bare.pid], postgres: [], redis: [] })
      rows[n]!['bare requests/s'] = made.perSecond
      rows[n]!['bare p99 ms'] = made.p99
      report.figures.set(`limit rest ${call.name}`, made.perSecond)
    }
    report.table(rows)
    report.note(
      'The shares include the warm-up and the start of autocannon, which runs in a process of its own and is part of `other`.',
    )
    await bare.stop()
    await remove()
    await stack.close()
  },
}

/** What the server answers to one such call. */
async function sample(server: string, call: Call, account: Account): Promise<[status: number, body: string]> {
  const response = await fetch(`${server}${call.path(0)}`, {
    method: call.method,
    headers: { authorization: `Bearer ${account.token}`, ...(call.body && { 'content-type': 'application/json' }) },
    ...(call.body && { body: JSON.stringify(call.body(0)) }),
  })
  return [response.status, await response.text()]
}
