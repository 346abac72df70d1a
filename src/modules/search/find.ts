import type { Queryable } from '../../platform/db/db.ts'
import { type MessageRow, messagesAt } from '../messages/index.ts'
import { emptySets, inAll, packedSets, segmentOf, segmentSize } from './posts.ts'
import * as store from './store.ts'
import {
  bySender,
  exactly,
  hasPieces,
  isPhrase,
  type Mode,
  matches,
  type Range,
  rangesOf,
  type Term,
  type Token,
  tokens,
} from './text.ts'

/**
 * Finds messages: in the index what is indexed, and in the messages themselves what is not yet, so that the answer holds
 * at any moment. The newest hits are ranked by their texts, which also proves that each one is (still) a hit.
 */

export interface Wanted {
  terms: readonly Term[]
  /** Messages of this person alone. */
  from: string | undefined
  /** So many of the newest hits were told before. */
  skip: number
}

export interface Hit {
  row: MessageRow
  words: readonly Token[]
  /** When it was sent, in microseconds since 1970. */
  at: number
  rank: number
}

/** Hits that are ranked among each other, the best first, and where the older ones begin. */
export interface Found {
  hits: Hit[]
  /** When the newest of them was sent; undefined where there is none. */
  newest: number | undefined
  next: Edge | undefined
}

/** Hits sent at `at` or before, without the newest `skip` of them. */
export interface Edge {
  at: number
  skip: number
}

/** So many of the newest are ranked, then the next ones. */
const maxRanked = 100
/** Of more that were sent in the same microsecond (by an import, say), the rest is not told. */
const maxSkip = 9_999
/** 1,024 messages each; of more, the newest of each chat. */
const maxSegments = 2_000
/** In these, every word is looked at for a part that is part of too many. */
const segmentsReadWhole = 8
const maxRanges = 20

/** `seq`s by chat, the newest first. */
type Lists = Map<string, number[]>

export async function findMessages(q: Queryable, chats: readonly store.Searched[], wanted: Wanted, mode: Mode): Promise<Found> {
  const end = wanted.skip + maxRanked
  // One more says whether there are older ones.
  const lists = await inIndex(q, chats, wanted, mode, end + 1)
  const unindexed = (await store.unindexed(q, chats)).filter(
    ({ sender_id, content }) =>
      (wanted.from === undefined || sender_id === wanted.from) && matches(tokens(content), wanted.terms, mode),
  )
  for (const [chatId, rows] of Map.groupBy(unindexed, (row) => row.chat_id)) {
    const seqs = lists.get(chatId) ?? []
    // Some may have been indexed between the two statements.
    const later = rows.map(({ seq }) => seq).filter((seq) => seq > (seqs[0] ?? 0))
    lists.set(chatId, [...later.sort((x, y) => y - x), ...seqs])
  }
  const newest = await newestOf(q, lists, end + 1)
  const told = newest.slice(0, end)
  const at = told.at(-1)?.at
  const skip = told.filter((hit) => hit.at === at).length
  return {
    hits: await rank(q, told.slice(wanted.skip), wanted.terms, mode),
    newest: told[0]?.at,
    next: newest.length > end && skip <= maxSkip ? { at: at!, skip } : undefined,
  }
}

/** Segments with what may be seen and is indexed: the newest of each chat first, then the second newest of each. */
function segmentsOf(chats: readonly store.Searched[]): (store.Segment & { chat: store.Searched })[] {
  const all = chats.flatMap((chat) => {
    const first = segmentOf(chat.after_seq + 1)
    const last = segmentOf(Math.min(chat.indexed_seq, chat.until_seq))
    return Array.from({ length: Math.max(0, last - first + 1) }, (_, age) => ({
      chat,
      chat_id: chat.chat_id,
      segment: last - age,
      age,
    }))
  })
  return all.sort((a, b) => a.age - b.age).slice(0, maxSegments)
}

/** Of each chat the newest, as many as are wanted or a few more. */
async function inIndex(
  q: Queryable,
  chats: readonly store.Searched[],
  { terms, from }: Wanted,
  mode: Mode,
  wanted: number,
): Promise<Lists> {
  const segments = segmentsOf(chats)
  const ranges: Range[] = from === undefined ? [] : [exactly(bySender(from))]
  const parts: string[] = []
  for (const term of terms) {
    if (mode === 'within' && hasPieces(term)) parts.push(term.text)
    else ranges.push(...rangesOf(term))
  }
  ranges.splice(maxRanges)
  const found: Lists = new Map()
  if (segments.length === 0) return found
  const packed = ranges.length > 0 ? [packedSets(await store.wordsInRanges(q, segments, ranges))] : []
  for (const [n, part] of parts.entries()) {
    const place = ranges.length + n
    const withPart =
      (await store.wordsWithPart(q, segments, part, place)) ??
      (await store.wordsWithPartIn(q, segments.slice(0, segmentsReadWhole), part, place))
    packed.push(packedSets(withPart))
  }
  const sets = emptySets(ranges.length + parts.length)
  // The newest segments of a chat come first, and of one that has hits enough the older ones are left out.
  for (const [n, { chat, segment }] of segments.entries()) {
    sets.fill(0)
    for (const some of packed) some.take(n + 1, sets)
    const seqs = found.get(chat.chat_id) ?? []
    if (seqs.length >= wanted) continue
    for (const offset of inAll(sets)) {
      const seq = segment * segmentSize + offset
      if (seq > chat.after_seq && seq <= chat.until_seq) seqs.push(seq)
    }
    if (seqs.length > 0) found.set(chat.chat_id, seqs)
  }
  return found
}

interface Timed extends store.Place {
  at: number
}

const newestFirst = (a: Timed, b: Timed): number =>
  b.at - a.at || (a.chat_id < b.chat_id ? -1 : a.chat_id > b.chat_id ? 1 : b.seq - a.seq)

interface List {
  chat_id: string
  seqs: readonly number[]
  /** How many of them have been looked up, and how many are to be next. */
  known: number
  wanted: number
  /** When the first and the last were sent that were looked up. */
  first: number
  last: number
}

/** Of each chat, in the first look. */
const firstLook = 2

/**
 * The newest of all chats. Within a chat the order is that of `seq`, so that the times of a few hits tell which chats can
 * have more of the newest: those alone are asked for more, as many as they had in the same time so far.
 */
async function newestOf(q: Queryable, found: Lists, count: number): Promise<Timed[]> {
  const total = Array.from(found.values()).reduce((sum, seqs) => sum + seqs.length, 0)
  const wanted = total <= 2 * count ? total : Math.max(firstLook, Math.ceil(count / found.size))
  let open = Array.from(found, ([chat_id, seqs]): List => ({ chat_id, seqs, known: 0, wanted, first: 0, last: 0 }))
  let merged: Timed[] = []
  while (open.length > 0) {
    const asked = open.map(({ chat_id, seqs, known, wanted }) => ({ chat_id, seqs: seqs.slice(known, known + wanted) }))
    const times = (await store.timesOf(q, asked)).values()
    for (const [n, { chat_id, seqs }] of asked.entries()) {
      const list = open[n]!
      list.known += seqs.length
      for (const seq of seqs) {
        const at = times.next().value!
        if (Number.isNaN(at)) continue
        list.last = at
        list.first ||= at
        merged.push({ chat_id, seq, at })
      }
    }
    merged = merged.sort(newestFirst).slice(0, count)
    const edge = merged.length < count ? 0 : merged.at(-1)!.at
    open = open.filter((list) => list.known < list.seqs.length && list.last >= edge)
    for (const list of open) list.wanted = Math.ceil(Math.min(count, expected(list, edge)))
  }
  return merged
}

/** How many more a chat has until `edge`, if it goes on as it went so far, and some to spare. */
function expected({ known, first, last }: List, edge: number): number {
  const rate = known / Math.max(1, first - last)
  return 1 + 1.25 * rate * (last - edge)
}

/** Those with the words side by side first, then those with the most words as they were asked for, then the newest. */
async function rank(q: Queryable, newest: readonly Timed[], terms: readonly Term[], mode: Mode): Promise<Hit[]> {
  const rows = new Map((await messagesAt(q, newest)).map((row) => [`${row.chat_id} ${row.seq}`, row]))
  const hits: Hit[] = []
  for (const { chat_id, seq, at } of newest) {
    const row = rows.get(`${chat_id} ${seq}`)
    const words = tokens(row?.content ?? '')
    // Characters of a run are indexed in pairs, which may stand apart; and a text may have changed meanwhile.
    if (!row || row.deleted_at !== null || !matches(words, terms, mode)) continue
    const phrase = terms.length > 1 && isPhrase(words, terms, mode)
    const whole = terms.filter((term) => words.some(({ kind, text }) => kind === term.kind && text === term.text)).length
    hits.push({ row, words, at, rank: whole + (phrase ? terms.length + 1 : 0) })
  }
  // Of the same rank they stay in their order, the newest first.
  return hits.sort((a, b) => b.rank - a.rank)
}
