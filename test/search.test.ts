import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { FoundAll, FoundMessages } from '../src/modules/search/schema.ts'
import { sql } from '../src/platform/db/db.ts'
import { Done } from '../src/platform/http/answers.ts'
import { Message } from '../src/protocol/resources.ts'
import { nobody, ok, refusal, rest } from './support/check.ts'
import { type Account, startServers, type TestServers } from './support/server.ts'

let servers: TestServers
beforeAll(async () => {
  servers = await startServers({ instances: 2 })
})
afterAll(() => servers.close())

const { get, post, patch, remove, people } = rest(() => servers)
const db = () => servers.instances[0]!.context.db
const indexers = () => servers.instances.map(({ server }) => server.indexer)
const stopIndexing = () => Promise.all(indexers().map((indexer) => indexer.close()))
const startIndexing = () => {
  for (const indexer of indexers()) indexer.start()
}

const say = (as: Account, chat_id: string, content: string, at = 0) =>
  ok(post(as, '/messages', { chat_id, content }, at), Message, 201)

function path(q: string, filters: Record<string, string | number> = {}): string {
  const query = new URLSearchParams({ q, ...Object.fromEntries(Object.entries(filters).map(([k, v]) => [k, String(v)])) })
  return `/search/messages?${query}`
}
const search = (as: Account, q: string, filters: Record<string, string | number> = {}, at = 0) =>
  ok(get(as, path(q, filters), at), FoundMessages)
/** Contents of the hits, the best first. */
const found = async (as: Account, q: string, filters: Record<string, string | number> = {}, at = 0) =>
  (await search(as, q, filters, at)).results.map(({ message }) => message.content)

/** What is in the index of this chat, in words. */
const indexed = async (chatId: string) =>
  (
    await db().query<{ word: string }>(
      sql`SELECT DISTINCT word FROM search_words WHERE chat_id = ${chatId} AND word >= '!' ORDER BY word`,
    )
  ).map(({ word }) => word)

/** Waits until everything of this chat is in the index, whoever puts it there. */
async function isIndexed(chatId: string): Promise<void> {
  for (let n = 0; n < 400; n += 1) {
    const [row] = await db().query(sql`
      SELECT 1 FROM search_positions p JOIN chat_counters k ON k.chat_id = p.chat_id WHERE p.chat_id = ${chatId} AND p.indexed_seq = k.last_seq`)
    if (row) return
    await sleep(25)
  }
  throw new Error('was not indexed')
}

/** The same from the messages themselves, before they are indexed, and from the index. */
async function inBothWays(chatId: string, check: () => Promise<void>): Promise<void> {
  await check()
  await isIndexed(chatId)
  await check()
}

test('words in any order, their beginnings, any case, accents ignored, in any script', async () => {
  const [x, y] = await people(2)
  const id = await servers.dm(x, y)
  const texts = [
    'Der Zug nach Köln fährt um 18:30 Uhr',
    'Viele Grüße aus der Hauptstraße in Łódź, Ærø und Málaga',
    'Завтра идём на ёлку с Андреем',
    'كِتَابٌ جديد عن التاريخ',
    '今日は東京都でラーメンを食べました',
    'พรุ่งนี้เราจะไปเที่ยวทะเล',
    '안녕하세요 내일 만나요',
    'नमस्ते दुनिया',
    'Party 🎉 tonight',
  ]
  for (const text of texts) await say(x, id, text)
  const finds: [string, number][] = [
    ['koln', 0],
    ['KÖLN zug', 0],
    ['fahr nach', 0],
    ['18:30', 0],
    ['hauptstras', 1],
    ['HAUPTSTRASSE', 1],
    ['lodz', 1],
    ['aero malaga', 1],
    ['елк', 2],
    ['ЗАВТРА андре', 2],
    ['كتاب', 3],
    ['تاريخ', 3],
    ['東京', 4],
    ['京都', 4],
    ['京', 4],
    ['ラーメン', 4],
    ['ﾗｰﾒﾝ 今日', 4],
    ['ทะเล', 5],
    ['안녕', 6],
    ['नमस्', 7],
    ['🎉', 8],
    ['party 🎉', 8],
  ]
  await inBothWays(id, async () => {
    for (const [q, n] of finds) expect(await found(y, q), q).toEqual([texts[n]])
    for (const q of ['京東', 'zug morgen', 'x', 'nze', '🎊', 'лодз']) expect(await found(y, q), q).toEqual([])
    // The end of a word and its middle, where no word begins so.
    expect(await found(y, 'tstraß')).toEqual([texts[1]])
    expect(await found(y, 'дреем ёлк')).toEqual([texts[2]])
  })
})

test('what means something to SQL, to a query or to HTML is text like any other', async () => {
  const [x, y] = await people(2)
  const id = await servers.dm(x, y)
  const text = `<script>alert("it's 100%")</script> a_b c\\d & 'quoted' tail:*`
  await say(x, id, text)
  await say(x, id, 'nothing of this')
  await inBothWays(id, async () => {
    for (const q of ['script', '<script>', 'a_b', 'c\\d', "'quoted'", 'tail:*', '100%', 'alert & it', `"it's"`])
      expect(await found(y, q), q).toEqual([text])
    for (const q of ['%', '_', '\\', ':*', '&|!', "' OR 1=1 --", '()', '🙃', '\u0001', '\u0002']) {
      expect((await found(y, q)).length, q).toBe(0)
    }
    const [hit] = (await search(y, 'quoted script')).results
    expect(hit!.highlight).toBe(
      '&lt;<mark>script</mark>&gt;alert(&quot;it&#39;s 100%&quot;)&lt;/<mark>script</mark>&gt; a_b c\\d &amp; &#39;<mark>quoted</mark>&#39; tail:*',
    )
  })
})

test('the words side by side come first, then whole words, then the newest', async () => {
  const [x, y] = await people(2)
  const id = await servers.dm(x, y)
  const texts = ['green tea', 'tea in a green cup', 'greenish teapot', 'tea, green', 'greens and teas']
  for (const text of texts) await say(x, id, text)
  await inBothWays(id, async () => {
    expect(await found(y, 'green tea')).toEqual([
      'green tea',
      'greenish teapot',
      'tea, green',
      'tea in a green cup',
      'greens and teas',
    ])
    expect(await found(y, 'tea')).toEqual(['tea, green', 'tea in a green cup', 'green tea', 'greens and teas', 'greenish teapot'])
  })
})

test('filters: chat, sender, time or seq; what is refused', async () => {
  const [x, y, z] = await people(3)
  const group = await servers.group(x, [y, z])
  const dm = await servers.dm(x, y)
  const sent: Message[] = []
  for (const [n, [who, chat]] of (
    [
      [x, group],
      [y, group],
      [x, dm],
      [z, group],
      [y, dm],
    ] as const
  ).entries()) {
    sent.push(await say(who, chat, `apple ${n}`))
    await sleep(5)
  }
  await inBothWays(group, async () => {
    await isIndexed(dm).catch(() => {})
    expect(await found(x, 'apple')).toEqual(['apple 4', 'apple 3', 'apple 2', 'apple 1', 'apple 0'])
    expect(await found(x, 'apple', { chat_id: group })).toEqual(['apple 3', 'apple 1', 'apple 0'])
    expect(await found(x, 'apple', { from: y.id })).toEqual(['apple 4', 'apple 1'])
    expect(await found(x, 'apple', { from: y.id, chat_id: dm })).toEqual(['apple 4'])
    expect(await found(x, 'apple', { from: nobody })).toEqual([])
    expect(await found(x, 'apple', { before: sent[2]!.created_at })).toEqual(['apple 1', 'apple 0'])
    expect(await found(x, 'apple', { before: '2000-01-01' })).toEqual([])
    expect(await found(x, 'apple', { before: '2500-12-31T23:59:59+14:00' })).toHaveLength(5)
    expect(await found(x, 'apple', { before: sent[3]!.seq, chat_id: group })).toEqual(['apple 1', 'apple 0'])
    expect(await found(x, 'app', { from: z.id, before: sent[4]!.created_at })).toEqual(['apple 3'])
    expect(await found(x, 'pple', { from: z.id })).toEqual(['apple 3'])
    const [hit] = (await search(x, 'apple', { chat_id: dm })).results
    expect(hit!.chat).toMatchObject({ id: dm, type: 'dm', name: y.username, peer: { id: y.id } })
  })
  for (const bad of [
    path('', {}),
    path('   '),
    path('x'.repeat(201)),
    path('a', { limit: 0 }),
    path('a', { limit: 101 }),
    path('a', { before: 'yesterday' }),
    path('a', { before: '12' }),
    path('a', { before: '2026-13-01' }),
    path('a', { cursor: 'x' }),
    path('a', { sort: 'time' }),
    '/search/messages',
    '/search',
  ])
    expect(await refusal(get(x, bad)), bad).toBe('400 invalid_input')
  expect(await refusal(get(x, path('apple', { chat_id: nobody })))).toBe('404 chat_not_found')
  expect(await refusal(get({ ...x, token: 'x' }, path('apple')))).toBe('401 invalid_token')
})

test('page by page, each hit once, whatever is sent meanwhile', async () => {
  const [x, y] = await people(2)
  const chats = [await servers.dm(x, y), await servers.group(x, [y])]
  for (let n = 0; n < 60; n += 1) await say(x, chats[n % 2]!, n % 3 ? `pears ${n}` : `pear ${n}`)
  await isIndexed(chats[1]!)
  const seen: string[] = []
  let cursor: string | undefined
  do {
    const page = await search(y, 'pear', { limit: 7, ...(cursor !== undefined && { cursor }) })
    seen.push(...page.results.map(({ message }) => message.content))
    expect(page.has_more).toBe(page.next_cursor !== null)
    cursor = page.next_cursor ?? undefined
    await say(x, chats[0]!, 'pear of a later time')
  } while (cursor !== undefined)
  const whole = Array.from({ length: 60 }, (_, n) => 59 - n)
  expect(seen).toEqual([
    ...whole.filter((n) => n % 3 === 0).map((n) => `pear ${n}`),
    ...whole.filter((n) => n % 3 !== 0).map((n) => `pears ${n}`),
  ])
  expect(await found(y, 'pear', { limit: 100 })).toHaveLength(69)
})

test('only chats that one is in now, and only what one may see there', async () => {
  const [owner, member, stranger] = await people(3)
  const group = await servers.group(owner, [member])
  await say(owner, group, 'secret plans')
  await inBothWays(group, async () => {
    expect(await found(member, 'secret')).toEqual(['secret plans'])
    expect(await found(stranger, 'secret')).toEqual([])
    expect(await found(stranger, 'ecret')).toEqual([])
    expect(await refusal(get(stranger, path('secret', { chat_id: group })))).toBe('404 chat_not_found')
  })
  // Removed: at once, on every instance.
  await ok(remove(owner, `/chats/${group}/members/${member.id}`), Done)
  for (const at of [0, 1]) {
    expect(await found(member, 'secret', {}, at)).toEqual([])
    expect(await refusal(get(member, path('secret', { chat_id: group }), at))).toBe('404 chat_not_found')
    expect((await ok(get(member, '/search?q=secret', at), FoundAll)).messages).toEqual([])
  }
  await say(owner, group, 'more secret plans')
  // Back again, with the whole history.
  expect((await post(owner, `/chats/${group}/members`, { user_ids: [member.id] })).status).toBe(200)
  expect(await found(member, 'secret')).toEqual(['more secret plans', 'secret plans'])
  await ok(post(member, `/chats/${group}/leave`), Done)
  expect(await found(member, 'secret')).toEqual([])
  // A system message has no text, but it has names.
  expect((await patch(owner, `/chats/${group}`, { name: 'Zanzibar' })).status).toBe(200)
  expect(await found(owner, 'zanzibar')).toEqual([])
  // A group that was deleted.
  await ok(remove(owner, `/chats/${group}`), Done)
  expect(await found(owner, 'secret')).toEqual([])
})

test('a direct chat deleted for oneself: what came before is gone, for the one alone', async () => {
  const [x, y] = await people(2)
  const dm = await servers.dm(x, y)
  await say(x, dm, 'walnut one')
  await isIndexed(dm)
  await say(x, dm, 'walnut two')
  await ok(remove(y, `/chats/${dm}`), Done)
  await inBothWays(dm, async () => {
    expect(await found(y, 'walnut')).toEqual([])
    expect(await found(x, 'walnut')).toEqual(['walnut two', 'walnut one'])
  })
  await say(x, dm, 'walnut three')
  await inBothWays(dm, async () => expect(await found(y, 'walnut')).toEqual(['walnut three']))
  expect(await found(y, 'walnut', { chat_id: dm, before: 4 })).toEqual(['walnut three'])
})

test('the messages of a deleted account stay, and are found', async () => {
  const [x, y] = await people(2)
  const dm = await servers.dm(x, y)
  await say(x, dm, 'farewell everybody')
  expect((await servers.call('DELETE', '/users/me', { as: x, body: { password: 'Secret123' } })).status).toBe(200)
  const { results } = await search(y, 'farewell')
  expect(results.map(({ message, chat }) => [message.content, message.sender.display_name, chat.name])).toEqual([
    ['farewell everybody', 'Deleted account', 'Deleted account'],
  ])
})

test('an edit and a delete are in the index at once, in the same transaction', async () => {
  const [x, y] = await people(2)
  const dm = await servers.dm(x, y)
  const { id } = await say(x, dm, 'the password is swordfish')
  const other = await say(x, dm, 'the swordfish was delicious')
  await isIndexed(dm)
  expect(await indexed(dm)).toEqual(['delicious', 'is', 'password', 'swordfish', 'the', 'was'])
  expect((await patch(x, `/messages/${id}`, { content: 'the password is élsewhere' })).status).toBe(200)
  expect(await indexed(dm)).toEqual(['delicious', 'elsewhere', 'is', 'password', 'swordfish', 'the', 'was'])
  expect(await found(y, 'swordfish')).toEqual(['the swordfish was delicious'])
  expect(await found(y, 'password else')).toEqual(['the password is élsewhere'])
  expect(await found(y, 'sewher')).toEqual(['the password is élsewhere'])
  await ok(remove(x, `/messages/${other.id}`), Done)
  expect(await indexed(dm)).toEqual(['elsewhere', 'is', 'password', 'the'])
  expect(await found(y, 'swordfish')).toEqual([])
  await ok(remove(x, `/messages/${id}`), Done)
  expect(await indexed(dm)).toEqual([])
  expect(await db().query(sql`SELECT word FROM search_words WHERE chat_id = ${dm}`)).toEqual([])
  expect(await found(y, 'password')).toEqual([])
})

test('a message is found as soon as it is acknowledged, by any instance, with no indexer at all', async () => {
  const [x, y] = await people(2)
  const dm = await servers.dm(x, y)
  await say(x, dm, 'early bird')
  await isIndexed(dm)
  await stopIndexing()
  try {
    for (let n = 0; n < 30; n += 1) {
      await say(n % 2 ? x : y, dm, `quick${n} bird`, n % 2)
      expect(await found(y, `quick${n}`, {}, (n + 1) % 2)).toEqual([`quick${n} bird`])
    }
    expect(await found(x, 'bird')).toHaveLength(31)
    const { id } = await say(x, dm, 'mistaken words')
    expect((await patch(x, `/messages/${id}`, { content: 'corrected words' })).status).toBe(200)
    expect([await found(y, 'mistaken'), await found(y, 'corrected')]).toEqual([[], ['corrected words']])
    await ok(remove(x, `/messages/${id}`), Done)
    expect(await found(y, 'corrected')).toEqual([])
  } finally {
    startIndexing()
  }
  await isIndexed(dm)
  expect(await found(x, 'bird', { limit: 100 })).toHaveLength(31)
  expect(await indexed(dm)).not.toContain('mistaken')
  expect(await indexed(dm)).not.toContain('corrected')
})

test('an index that is gone is made again, by all instances together; nothing is missing meanwhile', async () => {
  const [x, y] = await people(2)
  const chats = await Promise.all([servers.dm(x, y), servers.dm(x, x), servers.group(x, [y]), servers.group(y, [x])])
  const total = 120
  for (let n = 0; n < total; n += 1) await say(x, chats[n % 4]!, `number${n} kiwi${n % 10}`, n % 2)
  for (const id of chats) await isIndexed(id)
  const rows = () => db().query(sql`SELECT chat_id, segment, word, messages FROM search_words ORDER BY chat_id, segment, word`)
  const before = await rows()
  await stopIndexing()
  await db().query(sql`TRUNCATE search_words, search_positions`)
  const mine = (await found(y, 'kiwi3', { limit: 100 })).length
  startIndexing()
  for (const id of chats) {
    await isIndexed(id)
    expect((await found(y, 'kiwi3', { limit: 100 })).length).toBe(mine)
  }
  await Promise.all(indexers().map((indexer) => indexer.settled()))
  expect(await rows()).toEqual(before)
  expect(indexers().map(({ behind }) => behind)).toEqual([0, 0])
})

test('more than a segment of messages, common words in all of them', async () => {
  const [x, y] = await people(2)
  const dm = await servers.dm(x, y)
  const total = 2_500
  await stopIndexing()
  for (let n = 0; n < total; n += 100)
    await Promise.all(
      Array.from({ length: 100 }, (_, k) => say(x, dm, `common r${(n + k) % 50} ${(n + k) % 1_000 ? '' : 'rarity'}`)),
    )
  startIndexing()
  await isIndexed(dm)
  expect(await found(y, 'rarity common')).toHaveLength(3)
  expect(await found(y, 'arit')).toHaveLength(3)
  const { results, has_more } = await search(y, 'common', { limit: 100 })
  expect([results.length, has_more]).toEqual([100, true])
  const seqs = results.map(({ message }) => message.seq)
  expect(seqs).toEqual(Array.from({ length: 100 }, (_, n) => total - n))
  expect(await found(y, 'r49', { limit: 100 })).toHaveLength(50)
  expect((await search(y, 'r7 common', { before: 1_500, chat_id: dm })).results.every(({ message }) => message.seq < 1_500)).toBe(
    true,
  )
  // One of a full segment's common word.
  const { message } = results[10]!
  await ok(remove(x, `/messages/${message.id}`), Done)
  expect((await search(y, 'common', { limit: 100 })).results.map((hit) => hit.message.seq)).not.toContain(message.seq)
}, 60_000)

test('of many hits in many chats, the newest of all of them', async () => {
  const [x, y] = await people(2)
  const chats = await Promise.all(Array.from({ length: 9 }, (_, n) => servers.group(x, [y], `Group ${n}`)))
  // Some talk all the time, some in bursts, some fell silent long ago.
  const chatOf = (n: number) => chats[n < 40 ? 8 : n % 50 > 40 ? 7 : n > 500 && n < 560 ? 6 : (n * n) % 6]!
  const sent: Message[] = []
  for (let n = 0; n < 700; n += 5)
    sent.push(...(await Promise.all(Array.from({ length: 5 }, (_, k) => say(x, chatOf(n + k), `melon ${n + k}`)))))
  for (const id of new Set(sent.map(({ chat_id }) => chat_id))) await isIndexed(id)
  const times = sent
    .map((message) => message.created_at)
    .sort()
    .reverse()
  // All of them, though the newest hundred, the next hundred and so on are ranked among themselves.
  const pages = async () => {
    const shown: Message[] = []
    let cursor: string | null | undefined
    while (cursor !== null) {
      const page = await search(y, 'melon', { limit: 40, ...(cursor && { cursor }) })
      shown.push(...page.results.map(({ message }) => message))
      cursor = page.next_cursor
    }
    return shown
  }
  expect((await pages()).map((message) => message.created_at)).toEqual(times)
  // Before a time, in all chats at once.
  const before = times[300]!
  const earlier = await search(y, 'melon', { limit: 100, before })
  expect(earlier.results.map(({ message }) => message.created_at)).toEqual(times.filter((time) => time < before).slice(0, 100))
  // Sent in the same moment, all but the first hundred and fifty.
  await db().query(sql`
    UPDATE messages SET created_at = ${times[500]} WHERE chat_id = ANY(${chats}::uuid[]) AND created_at < ${times[150]}`)
  const shown = await pages()
  expect(shown.slice(0, 150).map((message) => message.created_at)).toEqual(times.slice(0, 150))
  expect(new Set(shown.map(({ id }) => id))).toEqual(new Set(sent.map(({ id }) => id)))
  expect(shown).toHaveLength(700)
}, 60_000)

test('edits and deletes against the indexers of two instances: in the end the index is what the messages are', async () => {
  const [x, y] = await people(2)
  const dm = await servers.dm(x, y)
  const state = new Map<string, string>()
  for (let round = 0; round < 12; round += 1) {
    // Two indexers at once, in a hurry.
    const hurry = Promise.all(
      indexers().map(async (indexer) => {
        await indexer.close()
        indexer.start()
      }),
    )
    const made = await Promise.all(Array.from({ length: 12 }, (_, n) => say(x, dm, `first${round}x${n}z draft`, n % 2)))
    await Promise.all(
      made.map(async ({ id }, n) => {
        await sleep((n * 7) % 60)
        if (n % 3 === 0) {
          await ok(remove(x, `/messages/${id}`, n % 2), Done)
          return
        }
        for (const [k, content] of [`second${round}x${n}z draft`, `third${round}x${n}z final`].entries()) {
          expect((await patch(x, `/messages/${id}`, { content })).status).toBe(200)
          expect((await found(y, content.split(' ')[0]!, {}, k)).length).toBe(1)
        }
        state.set(id, `third${round}x${n}z final`)
      }),
    )
    await hurry
  }
  await isIndexed(dm)
  const expected = new Set([...state.values()].flatMap((text) => text.split(' ')))
  expect(await indexed(dm)).toEqual([...expected].sort())
  expect(await found(y, 'draft')).toEqual([])
  expect(await found(y, 'final', { limit: 100 })).toHaveLength(96)
}, 60_000)

test('who is removed while they search finds nothing after the answer to the removal', async () => {
  const [owner, out] = await people(2)
  const group = await servers.group(owner, [out])
  await say(owner, group, 'confidential matters')
  for (let round = 0; round < 15; round += 1) {
    const searching = Promise.all(Array.from({ length: 8 }, (_, n) => sleep(n).then(() => found(out, 'confidential', {}, n % 2))))
    await sleep(round % 5)
    await ok(remove(owner, `/chats/${group}/members/${out.id}`, round % 2), Done)
    expect([await found(out, 'confidential', {}, 0), await found(out, 'confidential', {}, 1)]).toEqual([[], []])
    await searching
    expect((await post(owner, `/chats/${group}/members`, { user_ids: [out.id] })).status).toBe(200)
  }
})

test('people, chats and messages at once, the first few of each', async () => {
  const [x, y, z] = await people(3)
  const group = await servers.group(x, [y, z], 'Ferienhaus Ärmelkanal')
  await servers.group(y, [z], 'Ferienhaus ohne mich')
  const dm = await servers.dm(x, y)
  await say(x, dm, 'hello')
  for (let n = 0; n < 7; n += 1) await say(x, group, `ferienhaus ${n}`)
  const all = await ok(get(x, '/search?q=FERIEN'), FoundAll)
  expect([all.users.length, all.chats.map((chat) => chat.name), all.messages.length]).toEqual([0, ['Ferienhaus Ärmelkanal'], 5])
  expect((await ok(get(x, '/search?q=armel%20haus'), FoundAll)).chats.map((chat) => chat.id)).toEqual([group])
  const people3 = await ok(get(x, `/search?q=${y.username}`), FoundAll)
  expect([people3.users[0]!.id, people3.chats.map((chat) => chat.id)]).toEqual([y.id, [dm]])
  expect(await ok(get(x, `/search?q=${encodeURIComponent('%_')}`), FoundAll)).toMatchObject({ chats: [], messages: [] })
  // A direct chat that I deleted is not listed; the person is.
  await ok(remove(x, `/chats/${dm}`), Done)
  expect((await ok(get(x, `/search?q=${y.username}`), FoundAll)).chats).toEqual([])
})
