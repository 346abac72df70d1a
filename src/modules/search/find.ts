import type { Queryable } from '../../platform/db/db.ts'
import { mark, segmentOf, segmentSize } from './posts.ts'
import * as store from './store.ts'
import { bySender, exactly, hasPieces, isPhrase, type Mode, matches, type Range, rangesOf, type Term, tokens } from './text.ts'

/**
 * Finds messages: in the index what is indexed, and in the messages themselves what is not yet, so that the answer holds
 * at any moment. The newest hits are ranked by their texts, which also proves that each one is (still) a hit.
 */

export interface Wanted {
  terms: readonly Term[]
  /** Messages of this person alone. */
  from: string | undefined
  /** No newer ones: what a page follows on from. */
  upTo: string | undefined
}

export interface Hit extends store.Place {
  created_at: string
  rank: number
}

/** Of more hits, the newest are ranked. */
export const maxRanked = 200
/** 1,024 messages each; of more, the newest of each chat. */
const maxSegments = 2_000
const maxHitsOfChat = 2 * maxRanked
/** In these, every word is looked at for a part that is part of too many. */
const segmentsReadWhole = 8
/** With the parts, of which there are ten, there is a bit for each. */
const maxRanges = 20

/** `seq`s by chat, the newest first. */
type Found = Map<string, number[]>

/** The best first; at most `maxRanked`. */
export async function findMessages(q: Queryable, chats: readonly store.Searched[], wanted: Wanted, mode: Mode): Promise<Hit[]> {
  const found = await inIndex(q, chats, wanted, mode)
  const times = new Map<string, string>()
  const unindexed = (await store.unindexed(q, chats)).filter(
    ({ sender_id, content }) =>
      (wanted.from === undefined || sender_id === wanted.from) && matches(tokens(content), wanted.terms, mode),
  )
  for (const row of unindexed) times.set(placeKey(row), row.created_at)
  for (const [chatId, rows] of Map.groupBy(unindexed, (row) => row.chat_id)) {
    const seqs = found.get(chatId) ?? []
    // Some may have been indexed between the two statements.
    const later = rows.map(({ seq }) => seq).filter((seq) => seq > (seqs[0] ?? 0))
    found.set(chatId, [...later.sort((x, y) => y - x), ...seqs])
  }
  return rank(q, await newestOf(q, found, times, wanted.upTo), wanted.terms, mode)
}

const placeKey = ({ chat_id, seq }: store.Place) => `${chat_id} ${seq}`

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

async function inIndex(q: Queryable, chats: readonly store.Searched[], { terms, from }: Wanted, mode: Mode): Promise<Found> {
  const segments = segmentsOf(chats)
  const ranges: Range[] = from === undefined ? [] : [exactly(bySender(from))]
  const parts: string[] = []
  for (const term of terms) {
    if (mode === 'within' && hasPieces(term)) parts.push(term.text)
    else ranges.push(...rangesOf(term))
  }
  ranges.splice(maxRanges)
  const found: Found = new Map()
  if (segments.length === 0) return found
  const rows = ranges.length > 0 ? await store.wordsInRanges(q, segments, ranges) : []
  for (const [n, part] of parts.entries()) {
    const withPart =
      (await store.wordsWithPart(q, segments, part)) ??
      (await store.wordsWithPartIn(q, segments.slice(0, segmentsReadWhole), part))
    for (const row of withPart) rows.push({ ...row, n: ranges.length + n + 1 })
  }
  const all = 2 ** (ranges.length + parts.length) - 1
  const has = new Uint32Array(segmentSize)
  // The newest segments of a chat come first, and of one that has more hits than can be shown the older ones are left out.
  for (const [k, mine] of [...Map.groupBy(rows, (row) => row.k)].sort(([a], [b]) => a - b)) {
    const { chat, segment } = segments[k - 1]!
    const seqs = found.get(chat.chat_id) ?? []
    if (seqs.length >= maxHitsOfChat) continue
    has.fill(0)
    for (const { n, messages } of mine) mark(messages, has, 1 << (n - 1))
    for (let offset = segmentSize - 1; offset >= 0; offset -= 1) {
      if (has[offset] !== all) continue
      const seq = segment * segmentSize + offset
      if (seq > chat.after_seq && seq <= chat.until_seq) seqs.push(seq)
    }
    if (seqs.length > 0) found.set(chat.chat_id, seqs)
  }
  return found
}

type Timed = store.Place & { created_at: string }

const newestFirst = (a: Timed, b: Timed): number =>
  a.created_at < b.created_at
    ? 1
    : a.created_at > b.created_at
      ? -1
      : a.chat_id < b.chat_id
        ? -1
        : a.chat_id > b.chat_id
          ? 1
          : b.seq - a.seq

interface List {
  chat_id: string
  seqs: readonly number[]
  /** How many of them have been looked up, and how many are to be next. */
  known: number
  wanted: number
  /** Times of the first and the last that was looked up, ms. */
  first: number
  last: number
}

/** Of each chat, in the first look. */
const firstLook = 2

/**
 * The newest `maxRanked` of all chats. Within a chat the order is that of `seq`, so that the times of a few hits tell which
 * chats can have more of the newest: those alone are asked for more, as many as they had in the same time so far.
 */
async function newestOf(
  q: Queryable,
  found: Found,
  known: ReadonlyMap<string, string>,
  upTo: string | undefined,
): Promise<Timed[]> {
  const total = Array.from(found.values()).reduce((sum, seqs) => sum + seqs.length, 0)
  const wanted = total <= 2 * maxRanked ? total : Math.max(firstLook, Math.ceil(maxRanked / found.size))
  let open = Array.from(found, ([chat_id, seqs]): List => ({ chat_id, seqs, known: 0, wanted, first: 0, last: 0 }))
  let merged: Timed[] = []
  while (open.length > 0) {
    const asked = open.flatMap((list) =>
      list.seqs.slice(list.known, list.known + list.wanted).map((seq) => ({ list, chat_id: list.chat_id, seq })),
    )
    const times = await timesOf(q, asked, known)
    for (const [n, { list, chat_id, seq }] of asked.entries()) {
      list.known += 1
      const created_at = times[n]
      if (created_at === undefined) continue
      list.last = Date.parse(created_at)
      list.first ||= list.last
      if (upTo === undefined || created_at <= upTo) merged.push({ chat_id, seq, created_at })
    }
    merged = merged.sort(newestFirst).slice(0, maxRanked)
    const edge = merged.length < maxRanked ? 0 : Date.parse(merged.at(-1)!.created_at)
    open = open.filter((list) => list.known < list.seqs.length && list.last >= edge)
    for (const list of open) list.wanted = Math.ceil(Math.min(maxRanked, expected(list, edge)))
  }
  return merged
}

/** In the order asked for; those that are known are not looked up. */
async function timesOf(
  q: Queryable,
  places: readonly store.Place[],
  known: ReadonlyMap<string, string>,
): Promise<(string | undefined)[]> {
  const times = places.map((place) => (known.size === 0 ? undefined : known.get(placeKey(place))))
  const unknown = [...places.keys()].filter((n) => times[n] === undefined)
  if (unknown.length === 0) return times
  const found = await store.timesOf(
    q,
    unknown.map((n) => places[n]!),
  )
  for (const { n, created_at } of found) times[unknown[n - 1]!] = created_at
  return times
}

/** How many more a chat has until `edge`, if it goes on as it went so far, and some to spare. */
function expected({ known, first, last }: List, edge: number): number {
  const perMs = known / Math.max(1, first - last)
  return 1 + 1.25 * perMs * (last - edge)
}

/** Those with the words side by side first, then those with the most words as they were asked for, then the newest. */
async function rank(q: Queryable, newest: readonly Timed[], terms: readonly Term[], mode: Mode): Promise<Hit[]> {
  if (newest.length === 0) return []
  const texts = await store.textsOf(q, newest)
  const hits: Hit[] = []
  for (const [n, place] of newest.entries()) {
    const words = tokens(texts.get(n) ?? '')
    // Characters of a run are indexed in pairs, which may stand apart; and a text may have changed meanwhile.
    if (!matches(words, terms, mode)) continue
    const phrase = terms.length > 1 && isPhrase(words, terms, mode)
    const whole = terms.filter((term) => words.some(({ kind, text }) => kind === term.kind && text === term.text)).length
    hits.push({ ...place, rank: whole + (phrase ? terms.length + 1 : 0) })
  }
  return hits.sort((a, b) => b.rank - a.rank || newestFirst(a, b))
}
