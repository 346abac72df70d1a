import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { ReadAnswer } from '../src/modules/chats/schema.ts'
import { ReceiptList } from '../src/modules/messages/schema.ts'
import { Done } from '../src/platform/http/answers.ts'
import { ChatWithMembers, Me, Message } from '../src/protocol/resources.ts'
import { connect, nobody, ok, refusal, rest } from './support/check.ts'
import { type Account, startServers, type TestServers } from './support/server.ts'

/** Who is called by name, how many unread messages there are, and who read what when. */

let servers: TestServers
beforeAll(async () => {
  servers = await startServers({ instances: 2 })
})
afterAll(() => servers.close())

const { get, post, patch, remove, people } = rest(() => servers)
const say = (as: Account, chat_id: string, content = 'x') => ok(post(as, '/messages', { chat_id, content }), Message, 201)
const read = (as: Account, id: string, seq?: number) =>
  ok(post(as, `/chats/${id}/read`, seq === undefined ? {} : { seq }), ReadAnswer)
const counts = async (as: Account, id: string) => {
  const { unread_count, mention_count } = await ok(get(as, `/chats/${id}`), ChatWithMembers)
  return [unread_count, mention_count]
}
const receipts = (as: Account, id: string, query = '') => ok(get(as, `/messages/${id}/receipts${query}`), ReceiptList)

test('a name is one of a member, whole, in any case, and once', async () => {
  const [a, b, c, stranger] = await people(4)
  const id = await servers.group(a, [b, c])
  const mentions = async (content: string) => (await say(a, id, content)).mentions
  expect(await mentions(`@${b.username} hello @${c.username.toUpperCase()}, and @${b.username}!`)).toEqual([b.id, c.id])
  expect(await mentions(`(@${c.username}) "@${b.username}"`)).toEqual([c.id, b.id])
  // Oneself, strangers, nobody; a part of a longer name or of an address.
  for (const text of [
    `@${a.username}`,
    `@${stranger.username}`,
    '@nobody_here',
    `@${b.username}x`,
    `me@${b.username}`,
    `@@${b.username}`,
    `@${b.username}@home`,
  ])
    expect([text, await mentions(text)]).toEqual([text, []])
  // Who has left is not called any more; a new name is that of the same person.
  await ok(post(c, `/chats/${id}/leave`), Done)
  expect(await mentions(`@${c.username}`)).toEqual([])
  const renamed = `renamed_${b.username}`
  await ok(patch(b, '/users/me', { username: renamed }), Me)
  expect(await mentions(`@${renamed} @${b.username}`)).toEqual([b.id])
})

test('mentions are counted apart, and follow edits, deletes and reading on every device', async () => {
  const [a, b, c] = await people(3)
  const id = await servers.group(a, [b, c])
  const [one, two] = await Promise.all([connect(servers, b, { at: 0 }), connect(servers, b, { at: 1 })])
  const shows = (...expected: [unread: number, mentions: number]) =>
    Promise.all([
      ...[one, two].map((device) =>
        vi.waitFor(() => expect([device.state.unread(id), device.state.mentions(id)]).toEqual(expected), 5_000),
      ),
      vi.waitFor(async () => expect(await counts(b, id)).toEqual(expected), 5_000),
    ])
  const first = await say(a, id, `@${b.username}`)
  const second = await say(c, id, 'nobody')
  const third = await say(a, id, `@${b.username} @${c.username}`)
  await shows(3, 2)
  await ok(patch(c, `/messages/${second.id}`, { content: `oh, @${b.username}` }), Message)
  await shows(3, 3)
  await ok(patch(a, `/messages/${first.id}`, { content: 'nobody' }), Message)
  await shows(3, 2)
  await ok(remove(a, `/messages/${third.id}`), Done)
  await shows(2, 1)
  // Reading on one device clears the badge on the other, at once.
  await one.ask({ type: 'read', chat_id: id, seq: second.seq })
  await shows(0, 0)
  // What was read before is not unread by an edit.
  await ok(patch(c, `/messages/${second.id}`, { content: `again, @${b.username}` }), Message)
  await shows(0, 0)
  expect(await counts(c, id)).toEqual([1, 0])
  // Mentioned by a message that nobody holds any more: only the server can tell.
  const away = await connect(servers, c)
  away.close()
  const early = await say(a, id, 'early')
  for (let n = 0; n < 60; n += 1) await say(a, id, `${n}`)
  await away.connect()
  const late = await connect(servers, c)
  expect(late.state.chats.get(id)!.messages.has(early.seq)).toBe(false)
  await ok(patch(a, `/messages/${early.id}`, { content: `@${c.username}` }), Message)
  for (const device of [away, late]) await vi.waitFor(() => expect(device.state.mentions(id)).toBe(1), 5_000)
  await ok(remove(a, `/messages/${early.id}`), Done)
  for (const device of [away, late])
    await vi.waitFor(async () => {
      expect([device.state.unread(id), device.state.mentions(id)]).toEqual(await counts(c, id))
    }, 5_000)
})

test('unread counts after leaving and rejoining, own messages, deletes and two devices that read at once', async () => {
  const [a, b, c] = await people(3)
  const id = await servers.group(a, [b, c])
  for (let n = 0; n < 4; n += 1) await say(a, id, `@${b.username} ${n}`)
  await say(b, id, 'mine')
  expect(await counts(b, id)).toEqual([4, 4])
  await ok(post(b, `/chats/${id}/leave`), Done)
  await say(a, id, 'without you')
  await ok(post(a, `/chats/${id}/members`, { user_ids: [b.id] }), ChatWithMembers)
  // Whoever comes back has read what was there.
  expect(await counts(b, id)).toEqual([0, 0])
  const sent: Message[] = []
  for (let n = 0; n < 6; n += 1) sent.push(await say(c, id, `${n}`))
  await Promise.all([read(b, id, sent[3]!.seq), post(b, `/chats/${id}/read`, { seq: sent[1]!.seq }, 1)])
  expect(await counts(b, id)).toEqual([2, 0])
  await ok(remove(c, `/messages/${sent[5]!.id}`), Done)
  expect(await counts(b, id)).toEqual([1, 0])
  await ok(remove(c, `/messages/${sent[0]!.id}`), Done)
  expect(await counts(b, id)).toEqual([1, 0])
})

test('the sender sees who has it and who has read it, and when', async () => {
  const [a, b, c, d, stranger] = await people(5)
  const id = await servers.group(a, [b, c])
  const early = await say(a, id, 'early')
  const before = Date.now()
  const first = await say(a, id, 'first')
  const second = await say(a, id, 'second')
  await ok(post(a, `/chats/${id}/members`, { user_ids: [d.id] }), ChatWithMembers)
  const of = async (message: string, who: Account) => (await receipts(a, message)).receipts.find(({ user }) => user.id === who.id)
  expect(await of(first.id, b)).toMatchObject({ delivered_at: null, read_at: null })
  await read(b, id, first.seq)
  const device = await connect(servers, c, { at: 1 })
  await device.ask({ type: 'delivered', chat_id: id, seq: second.seq })
  expect(await of(first.id, b)).toMatchObject({ delivered_at: expect.any(String), read_at: expect.any(String) })
  expect(await of(second.id, b)).toMatchObject({ delivered_at: null, read_at: null })
  expect(await of(second.id, c)).toMatchObject({ delivered_at: expect.any(String), read_at: null })
  const readAt = (await of(first.id, b))!.read_at!
  expect(Date.parse(readAt)).toBeGreaterThanOrEqual(before - 1_000)
  // What is read later does not move it; what was covered by it has its time.
  await read(b, id, second.seq)
  expect((await of(first.id, b))!.read_at).toBe(readAt)
  expect((await of(early.id, b))!.read_at).toBe(readAt)
  expect(Date.parse((await of(second.id, b))!.read_at!)).toBeGreaterThanOrEqual(Date.parse(readAt))
  // Who joined later is not asked after.
  expect((await receipts(a, first.id)).receipts.map(({ user }) => user.id).sort()).toEqual([b.id, c.id].sort())
  const page = await receipts(a, first.id, '?limit=1')
  expect([page.receipts.length, page.has_more]).toEqual([1, true])
  const rest = await receipts(a, first.id, `?limit=1&cursor=${page.next_cursor}`)
  expect([rest.receipts.length, rest.has_more, rest.next_cursor]).toEqual([1, false, null])

  expect(await refusal(get(b, `/messages/${first.id}/receipts`))).toBe('403 forbidden')
  for (const message of [first.id, nobody])
    expect(await refusal(get(stranger, `/messages/${message}/receipts`))).toBe('404 message_not_found')
})

test('of many moves the newest are remembered, and older messages have a time that is never too early', async () => {
  const [a, b] = await people(2)
  const id = await servers.dm(a, b)
  const sent: Message[] = []
  const times: number[] = []
  for (let n = 0; n < 80; n += 1) {
    sent.push(await say(a, id, `${n}`))
    await read(b, id, sent[n]!.seq)
    times.push(Date.now())
  }
  for (const [n, message] of sent.entries()) {
    const [receipt] = (await receipts(a, message.id)).receipts
    const at = Date.parse(receipt!.read_at!)
    expect(at).toBeGreaterThanOrEqual(Date.parse(message.created_at))
    // The last 64 moves are exact (to the precision of the clocks); those before have that of a later one.
    if (n >= 80 - 64) expect(at).toBeLessThanOrEqual(times[n]! + 5)
    expect(Date.parse(receipt!.delivered_at!)).toBeLessThanOrEqual(at)
  }
})
