import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { PinList, ReactionList } from '../src/modules/messages/schema.ts'
import { sql } from '../src/platform/db/db.ts'
import { Done } from '../src/platform/http/answers.ts'
import { Message } from '../src/protocol/resources.ts'
import { checkChat, connect, nobody, ok, refusal, rest, stamps } from './support/check.ts'
import { type Account, startServers, type TestServers } from './support/server.ts'

/** Reactions and pins. */

let servers: TestServers
beforeAll(async () => {
  servers = await startServers({ instances: 2 })
})
afterAll(() => servers.close())

const { get, post, patch, remove, put, people } = rest(() => servers)
const db = () => servers.instances[0]!.context.db
const say = (as: Account, chat_id: string, content = 'x') => ok(post(as, '/messages', { chat_id, content }), Message, 201)
const react = (as: Account, id: string, emoji: unknown, at = 0) => post(as, `/messages/${id}/reactions`, { emoji }, at)
const unreact = (as: Account, id: string, emoji: string, at = 0) =>
  remove(as, `/messages/${id}/reactions/${encodeURIComponent(emoji)}`, at)
const reactions = async (as: Account, id: string) => (await ok(get(as, `/messages/${id}`), Message)).reactions

test('one emoji is one, however it is made; text is none', async () => {
  const [a] = await people(1)
  const { id } = await say(a, await servers.dm(a, a))
  const emojis = ['👍', '👍🏽', '❤️', '👨‍👩‍👧‍👦', '🏳️‍🌈', '🇩🇪', '🏴󠁧󠁢󠁳󠁣󠁴󠁿', '1️⃣', '👩🏿‍🤝‍👨🏻', '🫠', '☺️', '❤️‍🔥', '🕵️‍♀️', '✌🏽']
  for (const emoji of emojis) await ok(react(a, id, emoji), ReactionList)
  expect((await reactions(a, id)).map((r) => r.emoji)).toEqual(emojis)
  // Without its variation selectors, or with more than it needs, it is the same one.
  for (const emoji of ['❤', '☺', '❤\u200d🔥', '🏳\u200d🌈', '🕵\u200d♀\ufe0f', '🕵\u200d♀', '1\u20e3', '👍\ufe0f', '✌\ufe0f🏽'])
    await ok(react(a, id, emoji), ReactionList)
  expect(await reactions(a, id)).toHaveLength(emojis.length)
  for (const emoji of [
    '',
    'a',
    'ok',
    '1',
    '#',
    '👍👍',
    '👍 ',
    ':)',
    '\u200d',
    '\ufe0f',
    '🇩',
    '🏽x',
    '👨‍',
    'é',
    '中',
    1,
    null,
    ['👍'],
    '👍'.repeat(40),
  ])
    expect([emoji, await refusal(react(a, id, emoji))]).toEqual([emoji, '400 invalid_input'])
  expect(await reactions(a, id)).toHaveLength(emojis.length)
})

test('reactions are counted for all and marked for me, live and later, on every device', async () => {
  const [a, b, c, stranger] = await people(4)
  const id = await servers.group(a, [b, c])
  const message = await say(a, id)
  const [mine, other, theirs] = await Promise.all([
    connect(servers, b, { at: 0 }),
    connect(servers, b, { at: 1 }),
    connect(servers, c, { at: 1 }),
  ])
  expect((await ok(react(b, message.id, '🔥'), ReactionList)).reactions).toEqual([{ emoji: '🔥', count: 1, me: true }])
  expect((await theirs.ask({ type: 'react', message_id: message.id, emoji: '🔥' })).reactions).toEqual([
    { emoji: '🔥', count: 2, me: true },
  ])
  await ok(react(a, message.id, '👀', 1), ReactionList)
  const told = await other.waitFor('reaction', (e) => e.emoji === '👀')
  expect(told).toMatchObject({ chat_id: id, message_id: message.id, seq: message.seq, user_id: a.id, removed: false, count: 1 })
  const seen = (client: typeof mine) => client.state.chats.get(id)?.messages.get(message.seq)?.reactions
  for (const device of [mine, other, theirs])
    await vi.waitFor(() => {
      expect(seen(device)).toEqual([
        { emoji: '🔥', count: 2, me: true },
        { emoji: '👀', count: 1, me: false },
      ])
    }, 5_000)
  expect(await reactions(a, message.id)).toEqual([
    { emoji: '🔥', count: 2, me: false },
    { emoji: '👀', count: 1, me: true },
  ])
  // Adding what is there, and taking back what is not, changes nothing.
  const { version } = await checkChat(db(), id)
  await ok(react(b, message.id, '🔥', 1), ReactionList)
  await ok(unreact(b, message.id, '👀'), ReactionList)
  expect((await checkChat(db(), id)).version).toBe(version)
  // Taken back on one device, it is gone on the other.
  await ok(unreact(b, message.id, '🔥'), ReactionList)
  await other.waitFor('reaction', (e) => e.removed)
  expect(seen(other)?.[0]).toEqual({ emoji: '🔥', count: 1, me: false })
  await theirs.ask({ type: 'react', message_id: message.id, emoji: '🔥', remove: true })
  await vi.waitFor(() => expect(seen(mine)).toEqual([{ emoji: '👀', count: 1, me: false }]), 5_000)

  for (const target of [message.id, nobody]) {
    expect(await refusal(react(stranger, target, '👍'))).toBe('404 message_not_found')
    expect(await refusal(unreact(stranger, target, '👀'))).toBe('404 message_not_found')
  }
  const gone = await connect(servers, stranger)
  await expect(gone.ask({ type: 'react', message_id: message.id, emoji: '👍' })).rejects.toMatchObject({
    code: 'message_not_found',
  })
  await expect(mine.ask({ type: 'react', message_id: message.id, emoji: 'x' })).rejects.toMatchObject({ code: 'invalid_input' })
})

test('reactions stay in the order of their first use, whoever takes theirs back', async () => {
  const [a, b] = await people(2)
  const id = await servers.dm(a, b)
  const message = await say(a, id)
  const device = await connect(servers, a, { at: 1 })
  for (const emoji of ['🔥', '👀', '🎉']) await ok(react(a, message.id, emoji), ReactionList)
  await ok(react(b, message.id, '🔥'), ReactionList)
  await ok(unreact(a, message.id, '🔥'), ReactionList)
  await device.waitFor('reaction', (e) => e.removed)
  const order = (shown: readonly { emoji: string }[] = []) => shown.map(({ emoji }) => emoji)
  expect(order(await reactions(a, message.id))).toEqual(['🔥', '👀', '🎉'])
  expect(order(device.state.chats.get(id)?.messages.get(message.seq)?.reactions)).toEqual(['🔥', '👀', '🎉'])
})

test('the same reaction from two devices at once is one, with one version', async () => {
  const [a, b] = await people(2)
  const id = await servers.dm(a, b)
  const device = await connect(servers, b, { at: 1 })
  for (let round = 0; round < 20; round += 1) {
    const { id: message, version } = await say(a, id)
    await Promise.all([0, 1, 0, 1].map((at) => ok(react(b, message, '👍', at), ReactionList)))
    expect(await reactions(a, message)).toEqual([{ emoji: '👍', count: 1, me: false }])
    expect((await checkChat(db(), id)).version).toBe(version + 1)
    await Promise.all([0, 1].map((at) => ok(unreact(b, message, '👍', at), ReactionList)))
    expect((await checkChat(db(), id)).version).toBe(version + 2)
    await device.waitFor('reaction', (e) => e.message_id === message && e.removed)
  }
  expect(stamps(device, id).every(([version, prev]) => version === prev + 1)).toBe(true)
})

test('a message has fifty different reactions at most', async () => {
  const [a, b] = await people(2)
  const id = await servers.dm(a, b)
  const message = await say(a, id)
  const emojis = Array.from({ length: 51 }, (_, n) => String.fromCodePoint(0x1f400 + n))
  for (const emoji of emojis.slice(0, 50)) await ok(react(a, message.id, emoji), ReactionList)
  const { version } = await checkChat(db(), id)
  expect(await refusal(react(b, message.id, emojis[50]!))).toBe('409 too_many_reactions')
  await ok(react(b, message.id, emojis[0]!), ReactionList)
  expect(await reactions(b, message.id)).toHaveLength(50)
  expect((await checkChat(db(), id)).version).toBe(version + 1)
})

test('pins: owner and admins of a group, both of a direct chat', async () => {
  const [owner, admin, member, stranger] = await people(4)
  const id = await servers.group(owner, [admin, member])
  await patch(owner, `/chats/${id}/members/${admin.id}`, { role: 'admin' })
  const [one, two] = [await say(member, id, 'one'), await say(member, id, 'two')]
  const pin = (as: Account, message: string, chat = id) => put(as, `/chats/${chat}/pins/${message}`)
  const unpin = (as: Account, message: string, chat = id) => remove(as, `/chats/${chat}/pins/${message}`)
  const pins = async (as: Account) => (await ok(get(as, `/chats/${id}/pins`), PinList)).messages.map((m) => m.content)
  const device = await connect(servers, member, { at: 1 })
  expect((await ok(pin(owner, one.id), Message)).pinned_at).not.toBeNull()
  await ok(pin(admin, two.id), Message)
  await device.waitFor('message_edited', (e) => e.message.id === two.id && e.message.pinned_at !== null)
  expect(await pins(member)).toEqual(['two', 'one'])
  const { version } = await checkChat(db(), id)
  await ok(pin(owner, one.id), Message)
  expect((await checkChat(db(), id)).version).toBe(version)
  expect(await refusal(pin(member, one.id))).toBe('403 forbidden')
  expect(await refusal(unpin(member, one.id))).toBe('403 forbidden')
  await ok(unpin(owner, two.id), Message)
  expect(await pins(member)).toEqual(['one'])
  const dm = await servers.dm(member, stranger)
  const theirs = await say(member, dm)
  expect((await ok(pin(stranger, theirs.id, dm), Message)).pinned_at).not.toBeNull()
  // A message of another chat, a chat of others, nothing at all.
  expect(await refusal(pin(owner, theirs.id))).toBe('404 message_not_found')
  expect(await refusal(pin(stranger, one.id))).toBe('404 message_not_found')
  expect(await refusal(pin(member, one.id, dm))).toBe('404 message_not_found')
  expect(await refusal(pin(owner, nobody))).toBe('404 message_not_found')
  expect(await refusal(get(stranger, `/chats/${id}/pins`))).toBe('404 chat_not_found')
})

test('a chat has a hundred pinned messages at most', async () => {
  const [a] = await people(1)
  const id = await servers.dm(a, a)
  const messages: string[] = []
  for (let n = 0; n < 101; n += 1) messages.push((await say(a, id, `${n}`)).id)
  for (const message of messages.slice(0, 100)) await ok(put(a, `/chats/${id}/pins/${message}`), Message)
  expect(await refusal(put(a, `/chats/${id}/pins/${messages[100]}`))).toBe('409 too_many_pins')
  const [{ n } = { n: 0 }] = await db().query<{ n: number }>(
    sql`SELECT count(*)::int AS n FROM messages WHERE chat_id = ${id} AND pinned_at IS NOT NULL`,
  )
  expect(n).toBe(100)
  await ok(remove(a, `/messages/${messages[0]}`), Done)
  await ok(put(a, `/chats/${id}/pins/${messages[100]}`), Message)
})
