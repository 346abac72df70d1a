import type { Queryable } from '../../platform/db/db.ts'
import { decode, segmentOf, segmentSize } from './posts.ts'
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
export const maxRanked = 300
/** 1,024 messages each; of more, the newest of each chat. */
const maxSegments = 2_000
const maxHitsOfChat = 2 * maxRanked
/** In these, every word is looked at for a part that is part of too many. */
const segmentsReadWhole = 8
/** With the parts, of which there are ten, there is a bit for each. */
const maxRanges = 20

/** `seq`s by chat. */
type Found = Map<string, Set<number>>

/** The best first; at most `maxRanked`. */
export async function findMessages(q: Queryable, chats: readonly store.Searched[], wanted: Wanted, mode: Mode): Promise<Hit[]> {
  const found = await inIndex(q, chats, wanted, mode)
  const times = new Map<string, string>()
  for (const row of await store.unindexed(q, chats)) {
    if (wanted.from !== undefined && row.sender_id !== wanted.from) continue
    if (!matches(tokens(row.content), wanted.terms, mode)) continue
    put(found, row)
    times.set(placeKey(row), row.created_at)
  }
  const newest = await newestOf(q, found, times, wanted.upTo)
  return rank(q, newest, wanted.terms, mode)
}

function put(found: Found, { chat_id, seq }: store.Place): void {
  const seqs = found.get(chat_id)
  if (seqs) seqs.add(seq)
  else found.set(chat_id, new Set([seq]))
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
    if ((found.get(chat.chat_id)?.size ?? 0) >= maxHitsOfChat) continue
    has.fill(0)
    for (const { n, messages } of mine) {
      const bit = 1 << (n - 1)
      for (const offset of decode(messages)) has[offset]! |= bit
    }
    for (let offset = segmentSize - 1; offset >= 0; offset -= 1) {
      if (has[offset] !== all) continue
      const seq = segment * segmentSize + offset
      if (seq > chat.after_seq && seq <= chat.until_seq) put(found, { chat_id: chat.chat_id, seq })
    }
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

/**
 * The newest `maxRanked` of all chats. Within a chat the order is that of `seq`, so that the times of few hits tell which
 * chats can have more of the newest: those alone are asked for more.
 */
async function newestOf(
  q: Queryable,
  found: Found,
  known: ReadonlyMap<string, string>,
  upTo: string | undefined,
): Promise<Timed[]> {
  const lists = Array.from(found, ([chat_id, seqs]) => ({ chat_id, seqs: [...seqs].sort((a, b) => b - a), next: 0, oldest: '' }))
  const total = lists.reduce((sum, { seqs }) => sum + seqs.length, 0)
  let merged: Timed[] = []
  let open = lists
  for (let step = total <= 2 * maxRanked ? total : Math.max(2, Math.ceil(maxRanked / lists.length)); open.length > 0; step *= 4) {
    const asked = open.flatMap((list) => {
      const seqs = list.seqs.slice(list.next, list.next + step)
      list.next += seqs.length
      return seqs.map((seq) => ({ list, chat_id: list.chat_id, seq }))
    })
    const unknown = asked.filter((place) => !known.has(placeKey(place)))
    const times = unknown.length > 0 ? await store.timesOf(q, unknown) : new Map<number, string>()
    const at = new Map(unknown.map((place, n) => [place, times.get(n)]))
    for (const place of asked) {
      const created_at = known.get(placeKey(place)) ?? at.get(place)
      if (created_at === undefined) continue
      place.list.oldest = created_at
      if (upTo === undefined || created_at <= upTo) merged.push({ chat_id: place.chat_id, seq: place.seq, created_at })
    }
    merged = merged.sort(newestFirst).slice(0, maxRanked)
    const last = merged.length < maxRanked ? '' : merged.at(-1)!.created_at
    open = open.filter((list) => list.next < list.seqs.length && list.oldest >= last)
  }
  return merged
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
