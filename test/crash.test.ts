import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { account, isAlive, launch, type Process, postgresPid, rest } from './support/process.ts'
import { everything, faults, post, type Sent, sendOverRest, sendOverSocket } from './support/senders.ts'
import { freePort } from './support/services.ts'
import { scratch } from './support/tools.ts'
import { until } from './support/wire.ts'

/** Whatever ends the processes, and whenever: what was acknowledged is there once and in order, what was not can be sent again. */

let folder: Awaited<ReturnType<typeof scratch>>
let port: number
let current: Process | undefined
const start = async () => {
  current = await launch({ DATA_DIR: folder.dir, PORT: String(port) }).ready()
  return current
}

beforeAll(async () => {
  folder = await scratch('crash')
  port = await freePort()
})
afterAll(async () => {
  current?.kill('SIGTERM')
  await current?.exited
  await folder.remove()
})

type Victim = 'server' | 'both' | 'postgres'

/** Ends what is to end with SIGKILL, and waits until the server is gone. */
async function strike(server: Process, victim: Victim): Promise<void> {
  const database = postgresPid(folder.dir)
  if (victim !== 'server') process.kill(database, 'SIGKILL')
  if (victim !== 'postgres') server.kill()
  const ended = await server.exited
  // Without its database the server ends by itself, and says why.
  if (victim === 'postgres') {
    expect(ended).toBe(1)
    expect(server.stderr).toContain('Parley cannot go on: The embedded PostgreSQL ended')
  }
}

test('SIGKILL at any moment loses nothing that was acknowledged and doubles nothing that is sent again', async () => {
  const log: Sent[] = []
  let server = await start()
  const { url } = server
  const [anna, ben, eve] = await Promise.all([account(url), account(url), account(url)])
  const group = await rest<{ id: string }>(url, 'POST', '/chats', {
    token: anna.token,
    body: { type: 'group', name: 'Crash', member_ids: [ben.user_id] },
  })
  const dm = await rest<{ id: string }>(url, 'GET', `/chats/dm/${ben.user_id}`, { token: anna.token })
  const chats = [group.body.id, dm.body.id]
  const counts = { sent: 0, acknowledged: 0, refused: 0, retried: 0, committedBefore: 0, found: 0 }

  for (const victim of ['server', 'both', 'server', 'postgres', 'server'] satisfies Victim[]) {
    let going = true
    const still = () => going
    const before = log.length
    const senders = [
      sendOverSocket(url, log, chats[0]!, anna.token, still),
      sendOverSocket(url, log, chats[0]!, ben.token, still),
      sendOverSocket(url, log, chats[1]!, anna.token, still),
      sendOverRest(url, log, chats[0]!, anna.token, still),
      sendOverRest(url, log, chats[1]!, ben.token, still),
      // Not a member: none of hers may be there.
      sendOverRest(url, log, chats[0]!, eve.token, still, 1),
    ]
    await until(() => log.length > before + 100, 'messages are being sent')
    await sleep(100 + Math.random() * 900)
    await strike(server, victim)
    going = false
    await Promise.all(senders)
    server = await start()
    // What no answer came for is sent again, by whichever of them is first.
    const unknown = log.filter((sent) => sent.outcome === 'unknown')
    const statuses = await Promise.all(unknown.map((sent) => post(url, sent)))
    counts.retried += unknown.length
    counts.committedBefore += statuses.filter((status) => status === 200).length
    expect(statuses.filter((status) => status !== 200 && status !== 201 && status !== 404)).toEqual([])
  }

  for (const chat of chats) {
    const history = await everything(url, ben.token, chat)
    const texts = history.filter((message) => message.message_type === 'text')
    const mine = log.filter((sent) => sent.chat_id === chat)
    expect(faults(mine, history)).toEqual([])
    expect(texts).toHaveLength(mine.filter((sent) => sent.outcome === 'acknowledged').length)
    counts.found += texts.length
  }
  counts.sent = log.length
  counts.acknowledged = log.filter((sent) => sent.outcome === 'acknowledged').length
  counts.refused = log.filter((sent) => sent.outcome === 'refused').length
  console.log(`crash: ${JSON.stringify(counts)}`)
  expect(counts.found).toBe(counts.acknowledged)
  expect(counts.retried).toBeGreaterThan(0)
  // Nobody was refused but her who may not write there.
  expect(log.filter((sent) => sent.outcome === 'refused' && sent.token !== eve.token)).toEqual([])
}, 120_000)

test('SIGTERM while everybody sends: told 4011, nothing lost, over within 10 s', async () => {
  const log: Sent[] = []
  const server = current!
  const { url } = server
  const [anna, ben] = await Promise.all([account(url), account(url)])
  const { body } = await rest<{ id: string }>(url, 'GET', `/chats/dm/${ben.user_id}`, { token: anna.token })
  let going = true
  const still = () => going
  const sockets = [anna, ben, anna].map(({ token }) => sendOverSocket(url, log, body.id, token, still))
  const overRest = [anna, ben].map(({ token }) => sendOverRest(url, log, body.id, token, still))
  await until(() => log.filter((sent) => sent.outcome === 'acknowledged').length > 200, 'messages are acknowledged')
  const database = postgresPid(folder.dir)
  const begun = Date.now()
  server.kill('SIGTERM')
  expect(await Promise.all(sockets)).toEqual([4011, 4011, 4011])
  expect(await server.exited).toBe(0)
  expect(Date.now() - begun).toBeLessThan(10_000)
  expect(isAlive(server.pid)).toBe(false)
  expect(isAlive(database)).toBe(false)
  going = false
  await Promise.all(overRest)
  await start()
  const unknown = log.filter((sent) => sent.outcome === 'unknown')
  for (const sent of unknown) expect([200, 201]).toContain(await post(url, sent))
  expect(faults(log, await everything(url, ben.token, body.id))).toEqual([])
}, 60_000)
