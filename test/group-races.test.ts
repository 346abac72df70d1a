import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { MemberList } from '../src/modules/chats/schema.ts'
import { Done } from '../src/platform/http/answers.ts'
import { ChatWithMembers } from '../src/protocol/resources.ts'
import { checkChat, connect, ok, refusal, rest, stamps } from './support/check.ts'
import { type Account, startServers, type TestServers } from './support/server.ts'

/** What two people do to a group at the same moment, each at another instance. */

const limit = 12
let servers: TestServers
beforeAll(async () => {
  servers = await startServers({ instances: 2, env: { GROUP_MAX_MEMBERS: String(limit) } })
})
afterAll(() => servers.close())

const { get, post, patch, remove, people } = rest(() => servers)
const check = (id: string) => checkChat(servers.instances[0]!.context.db, id)
const add = (as: Account, id: string, who: readonly Account[], at = 0) =>
  post(as, `/chats/${id}/members`, { user_ids: who.map((p) => p.id) }, at)
const expel = (as: Account, id: string, who: Account, at = 0) => remove(as, `/chats/${id}/members/${who.id}`, at)
const role = (as: Account, id: string, who: Account, role: string, at = 0) =>
  patch(as, `/chats/${id}/members/${who.id}`, { role }, at)
const leave = (as: Account, id: string, at = 0) => post(as, `/chats/${id}/leave`, undefined, at)
const transfer = (as: Account, id: string, to: Account, at = 0) => post(as, `/chats/${id}/transfer`, { user_id: to.id }, at)
const statuses = async (answers: ReturnType<typeof leave>[]) =>
  (await Promise.all(answers)).map(({ status, body }) => (status === 200 ? '200' : `${status} ${body.code}`))

test('a group is full at its limit, and not one later', async () => {
  const everybody = await people(limit + 8)
  const [owner, admin] = everybody
  const others = everybody.slice(2)
  const id = await servers.group(owner, [admin, ...others.slice(0, limit - 3)])
  await ok(role(owner, id, admin, 'admin'), Done)
  expect((await check(id)).member_count).toBe(limit - 1)
  const waiting = others.slice(limit - 3)
  // Two at once are one too many: all of a call, or none.
  expect(await refusal(add(owner, id, waiting.slice(0, 2)))).toBe('409 group_full')
  // One place, eight who want it.
  const given = await statuses(waiting.slice(0, 8).map((who, n) => add(n % 2 ? owner : admin, id, [who], n % 2)))
  expect(given.toSorted()).toEqual(['200', ...Array(7).fill('409 group_full')])
  expect((await check(id)).member_count).toBe(limit)
  // Who is in already takes no place.
  await ok(add(owner, id, others.slice(0, 3)), ChatWithMembers)
  await ok(expel(owner, id, others[0]!), Done)
  await ok(add(owner, id, [others[1]!, others[0]!]), ChatWithMembers)
  expect((await check(id)).member_count).toBe(limit)
})

test('the same person added ten times at once joins once', async () => {
  const [owner, late] = await people(2)
  const id = await servers.group(owner, [])
  const device = await connect(servers, late, { at: 1 })
  expect(new Set(await statuses(Array.from({ length: 10 }, (_, n) => add(owner, id, [late], n % 2))))).toEqual(new Set(['200']))
  expect(await check(id)).toMatchObject({ member_count: 2, last_seq: 2, version: 4 })
  await vi.waitFor(() => expect(device.state.chats.get(id)?.version).toBe(4), 5_000)
})

test('admins who remove each other: neither may, and the owner wins against both', async () => {
  const [owner, a, b] = await people(3)
  const id = await servers.group(owner, [a, b])
  for (const who of [a, b]) await ok(role(owner, id, who, 'admin'), Done)
  expect(await statuses([expel(a, id, b), expel(b, id, a, 1)])).toEqual(Array(2).fill('403 forbidden'))
  const [theirs, mine, self] = await statuses([expel(a, id, owner), expel(owner, id, a, 1), leave(a, id, 1)])
  expect(['403 forbidden', '404 chat_not_found']).toContain(theirs)
  // One of the two ways out was first.
  expect([mine, self].toSorted()).toEqual(mine === '200' ? ['200', '404 chat_not_found'] : ['200', '404 member_not_found'])
  expect((await check(id)).member_count).toBe(2)
})

test('two owners to be: whoever hands over first does, and removing crosses handing over', async () => {
  for (let round = 0; round < 15; round += 1) {
    const [owner, a, b] = await people(3)
    const id = await servers.group(owner, [a, b])
    const at = round % 2
    const done = await statuses([transfer(owner, id, a, at), transfer(owner, id, b, 1 - at), expel(owner, id, a, at)])
    const state = await check(id)
    expect([1, 2].includes(done.filter((s) => s === '200').length), done.join()).toBe(true)
    expect([a.id, b.id]).toContain(state.owner_id)
  }
})

test('the last two leave at once: the group is gone', async () => {
  const [a, b] = await people(2)
  for (let round = 0; round < 20; round += 1) {
    const id = await servers.group(a, [b])
    expect(await statuses([leave(a, id, round % 2), leave(b, id, 1 - (round % 2))])).toEqual(['200', '200'])
    expect((await check(id)).deleted).toBe(true)
    expect(await refusal(get(a, `/chats/${id}`))).toBe('404 chat_not_found')
  }
})

test('the owner leaves while they promote others', async () => {
  const [owner, ...others] = await people(4)
  for (let round = 0; round < 15; round += 1) {
    const id = await servers.group(owner, others)
    const done = await statuses([
      ...others.map((who, n) => role(owner, id, who, 'admin', n % 2)),
      leave(owner, id, round % 2),
      ...others.map((who, n) => role(owner, id, who, 'member', n % 2)),
      transfer(owner, id, others[round % 3]!, 1),
    ])
    // Who is out may do nothing; who handed over before may no longer promote.
    for (const status of done) expect(['200', '403 forbidden', '404 chat_not_found', '404 member_not_found']).toContain(status)
    const state = await check(id)
    expect([state.member_count, others.map((p) => p.id).includes(state.owner_id!)]).toEqual([3, true])
  }
})

test('an account is deleted while its groups are, and while it is removed from others', async () => {
  for (let round = 0; round < 10; round += 1) {
    const [gone, owner, other] = await people(3)
    const ids = await Promise.all(Array.from({ length: 12 }, () => servers.group(owner, [gone, other])))
    const deletion = servers.call('DELETE', '/users/me', { as: gone, body: { password: 'Secret123' } })
    const others = ids.map(async (id, n) => {
      // The last ones first, since it leaves them from the first on.
      await sleep(round * 2 + ids.length - n)
      return n % 3 === 0 ? remove(owner, `/chats/${id}`, 1) : n % 3 === 1 ? expel(owner, id, gone, 1) : leave(owner, id, 1)
    })
    expect((await deletion).status).toBe(200)
    for (const status of await statuses(others)) expect(['200', '404 member_not_found']).toContain(status)
    for (const [n, id] of ids.entries()) {
      // One that is gone stopped nobody from leaving the next.
      const owner_id = n % 3 === 2 ? other.id : owner.id
      expect(await check(id)).toMatchObject({ deleted: n % 3 === 0, owner_id, ...(n % 3 > 0 && { member_count: 3 - (n % 3) }) })
    }
  }
})

test('handing over while everybody reads: nothing waits for the other for ever', async () => {
  const [a, b, c, d] = await people(4)
  const id = await servers.group(a, [b, c, d])
  let over = false
  // Reads that come at once are written in one statement, which locks the rows of several members.
  const readers = [a, b, c, d, a, b, c, d].map(async (who, n) => {
    const given = new Set<number>()
    while (!over) given.add((await post(who, `/chats/${id}/read`, {}, n < 4 ? 0 : 1)).status)
    return [...given]
  })
  const pairs = [
    [a, b],
    [b, a],
  ] as const
  const done: string[] = []
  for (let round = 0; round < 60; round += 1) {
    const [from, to] = pairs[round % 2]!
    done.push(...(await statuses([transfer(from, id, to, round % 2)])))
  }
  over = true
  expect([...new Set([...done, ...(await Promise.all(readers)).flat().map(String)])]).toEqual(['200'])
  await check(id)
})

test('a storm of changes: no number is lost or given twice, and all who watch agree with the database', async () => {
  const everybody = await people(7)
  const [owner] = everybody
  const others = everybody.slice(1)
  const id = await servers.group(owner, others)
  const watchers = await Promise.all([0, 1].map((at) => connect(servers, owner, { at })))
  const from = (await check(id)).version
  const pick = <T>(list: readonly T[]): T => list[Math.floor(Math.random() * list.length)]!
  const act = (n: number): (() => Promise<{ status: number }>) => {
    const who = pick(others)
    const as = n % 3 ? owner : pick(others)
    const at = n % 2
    return pick([
      () => add(as, id, [who, pick(others)], at),
      () => expel(as, id, who, at),
      () => leave(who, id, at),
      () => role(as, id, who, pick(['admin', 'member']), at),
      () => patch(as, `/chats/${id}`, { name: `n${n}` }, at),
      () => post(as, '/messages', { chat_id: id, content: `${n}` }, at),
      () => post(who, `/chats/${id}/read`, {}, at),
    ])
  }
  for (let wave = 0; wave < 12; wave += 1) {
    const answers = await Promise.all(Array.from({ length: 15 }, (_, n) => act(wave * 15 + n)()))
    expect(answers.filter(({ status }) => status >= 500)).toEqual([])
  }
  const end = await check(id)
  const { members } = await ok(get(owner, `/chats/${id}/members`), MemberList)
  const truth = Object.fromEntries(members.map((m) => [m.user_id, m.role]))
  for (const watcher of watchers) {
    await vi.waitFor(() => expect(watcher.state.chats.get(id)?.version).toBe(end.version), 10_000)
    const state = watcher.state.chats.get(id)!
    expect(Object.fromEntries(Array.from(state.members.values(), (m) => [m.user_id, m.role]))).toEqual(truth)
    expect([state.messages.size, state.lastSeq]).toEqual([end.last_seq, end.last_seq])
    // Each version told once and in its order, none missing (what was read from the database may join several).
    let known = from
    for (const [version, prev] of stamps(watcher, id).filter(([version]) => version > from)) {
      expect([prev, version > prev]).toEqual([known, true])
      known = version
    }
    expect(known).toBe(end.version)
  }
})
