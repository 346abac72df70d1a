import type { Queryable } from '../../platform/db/db.ts'
import { AppError } from '../../platform/errors.ts'
import { invalid } from '../../platform/input.ts'
import type { Chat, UserBrief } from '../../protocol/resources.ts'
import { type ChatRow, chatRows, chatViews } from '../chats/index.ts'
import { messagesAt, messageViews } from '../messages/index.ts'
import { searchUsers } from '../users/index.ts'
import type { SearchDeps } from './deps.ts'
import { findMessages, type Hit } from './find.ts'
import { highlight } from './highlight.ts'
import { isSeq, type MessageSearch, type SearchHit } from './schema.ts'
import { namedChats, type Searched, searchedChats, untilTime } from './store.ts'
import { isIn, type Mode, matches, parseQuery, type Term, tokens } from './text.ts'

/** Of each kind, in a search for everything. */
const few = 5

export interface Page {
  results: SearchHit[]
  has_more: boolean
  next_cursor: string | null
}

/**
 * Messages that the user may see now. Where no message has the words, or words that begin with them, parts of words are
 * looked for. Rejects with `chat_not_found` where `chat_id` is not theirs to see, and with `invalid_input`.
 */
export async function searchMessages(deps: SearchDeps, userId: string, query: MessageSearch): Promise<Page> {
  const chats = await chatsToSearch(deps.db, userId, query)
  const terms = parseQuery(query.q)
  const [upTo, done] = query.cursor === undefined ? [undefined, 0] : readCursor(query.cursor)
  if (terms.length === 0) return { results: [], has_more: false, next_cursor: null }
  let mode: Mode = 'beginning'
  const wanted = { terms, from: query.from, upTo }
  let hits = await findMessages(deps.db, chats, wanted, mode)
  if (hits.length === 0) {
    mode = 'within'
    hits = await findMessages(deps.db, chats, wanted, mode)
  }
  const page = hits.slice(done, done + query.limit)
  const has_more = hits.length > done + query.limit
  // What comes later must not move what follows: the next page ends in time where this one did.
  const newest = upTo ?? hits.reduce((max, { created_at }) => (created_at > max ? created_at : max), '')
  return {
    results: await views(deps, userId, page, terms, mode),
    has_more,
    next_cursor: has_more ? `${Date.parse(newest)}.${done + query.limit}` : null,
  }
}

function readCursor(cursor: string): [upTo: string, done: number] {
  const [time, done] = cursor.split('.').map(Number) as [number, number]
  return [new Date(time).toISOString(), done]
}

async function chatsToSearch(q: Queryable, userId: string, { chat_id, before }: MessageSearch): Promise<Searched[]> {
  const chats = await searchedChats(q, userId, chat_id)
  if (chat_id !== undefined && chats.length === 0) throw new AppError('chat_not_found')
  if (before === undefined) return chats
  if (isSeq(before)) return chats.map((chat) => ({ ...chat, until_seq: Math.min(chat.until_seq, Number(before) - 1) }))
  const time = Date.parse(before)
  if (time > 253_402_300_799_999) throw invalid('before', 'must be before the year 10000')
  // PostgreSQL has no year 0, and nothing was sent before 1970.
  return untilTime(q, chats, new Date(Math.max(0, time)).toISOString())
}

/** In the order of `hits`; what the user may not see any more, or what is no hit any more, is left out. */
async function views(
  deps: SearchDeps,
  userId: string,
  hits: readonly Hit[],
  terms: readonly Term[],
  mode: Mode,
): Promise<SearchHit[]> {
  if (hits.length === 0) return []
  const rows = await messagesAt(deps.db, hits)
  const words = new Map(rows.map((row) => [row, tokens(row.content)]))
  const current = rows.filter((row) => row.deleted_at === null && matches(words.get(row)!, terms, mode))
  const [messages, chats] = await Promise.all([
    messageViews(deps.db, deps.briefs, userId, current),
    briefChats(deps, userId, [...new Set(hits.map((hit) => hit.chat_id))]),
  ])
  // In the order of `current`.
  const shown = new Map(
    messages.map((message, n) => {
      const row = current[n]!
      return [`${row.chat_id} ${row.seq}`, { message, highlight: highlight(row.content, words.get(row)!, terms, mode) }]
    }),
  )
  return hits.flatMap(({ chat_id, seq }) => {
    const found = shown.get(`${chat_id} ${seq}`)
    const chat = chats.get(chat_id)
    return found && chat && seq > chat.cleared_seq ? [{ ...found, chat: chat.brief }] : []
  })
}

/** Only those that the user is a member of at this moment. */
async function briefChats(deps: SearchDeps, userId: string, ids: readonly string[]) {
  const rows = await chatRows(deps.db, userId, ids)
  const people = await deps.briefs(rows.flatMap((row) => row.peer_id ?? []))
  return new Map(
    rows.map((row) => [
      row.chat_id,
      { cleared_seq: row.cleared_seq, brief: briefChat(row, people.get(row.peer_id ?? '') ?? null) },
    ]),
  )
}

function briefChat(
  { chat_id, type, name }: Pick<ChatRow, 'chat_id' | 'type' | 'name'>,
  peer: UserBrief | null,
): SearchHit['chat'] {
  return { id: chat_id, type, name: type === 'dm' ? nameOf(peer) : name, avatar_url: peer?.avatar_url ?? null, peer }
}

const nameOf = (peer: UserBrief | null) => peer?.username ?? peer?.display_name ?? null

/** The first few of each kind. */
export async function searchAll(deps: SearchDeps, userId: string, q: string) {
  const [users, chats, messages] = await Promise.all([
    searchUsers(deps.users, userId, q),
    searchChats(deps, userId, q),
    searchMessages(deps, userId, { q, limit: few }),
  ])
  return { users: users.slice(0, few), chats, messages: messages.results }
}

/** My chats with all words in their name, the newest first; a direct chat by the names of the other. */
async function searchChats(deps: SearchDeps, userId: string, q: string): Promise<Chat[]> {
  const terms = parseQuery(q)
  if (terms.length === 0) return []
  const chats = await namedChats(deps.db, userId)
  const people = await deps.briefs(chats.flatMap((chat) => chat.peer_id ?? []))
  const found = chats.filter(({ type, name, peer_id }) => {
    const peer = people.get(peer_id ?? '')
    const words = tokens(type === 'dm' ? `${peer?.username ?? ''} ${peer?.display_name ?? ''}` : (name ?? ''))
    return terms.every((term) => words.some((word) => isIn(word, term, 'within')))
  })
  const ids = found.slice(0, few).map((chat) => chat.chat_id)
  const rows = new Map((await chatRows(deps.db, userId, ids)).map((row) => [row.chat_id, row]))
  return chatViews(
    deps.chats,
    deps.db,
    userId,
    ids.map((id) => rows.get(id)).filter((row) => row !== undefined),
  )
}
