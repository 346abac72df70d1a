import type { Queryable } from '../../platform/db/db.ts'
import { AppError } from '../../platform/errors.ts'
import { invalid } from '../../platform/input.ts'
import type { Chat, UserBrief } from '../../protocol/resources.ts'
import { type ChatRow, chatRows, chatViews } from '../chats/index.ts'
import { messageViews } from '../messages/index.ts'
import { searchUsers } from '../users/index.ts'
import type { SearchDeps } from './deps.ts'
import { type Edge, findMessages, type Hit } from './find.ts'
import { highlight } from './highlight.ts'
import { isSeq, type MessageSearch, type SearchHit } from './schema.ts'
import { namedChats, type Searched, searchedChats, untilTime } from './store.ts'
import { isIn, type Mode, parseQuery, type Term, tokens } from './text.ts'

/** Of each kind, in a search for everything. */
const few = 5

export interface Page {
  results: SearchHit[]
  has_more: boolean
  next_cursor: string | null
}

/** An older window is looked into where all hits of one turned out to be none. */
const maxWindows = 5

/**
 * Messages that the user may see now. Where no message has the words, or words that begin with them, parts of words are
 * looked for. Rejects with `chat_not_found` where `chat_id` is not theirs to see, and with `invalid_input`.
 */
export async function searchMessages(deps: SearchDeps, userId: string, query: MessageSearch): Promise<Page> {
  const chats = await chatsToSearch(deps.db, userId, query)
  const terms = parseQuery(query.q)
  if (terms.length === 0) return { results: [], has_more: false, next_cursor: null }
  const cursor = query.cursor === undefined ? undefined : readCursor(query.cursor)
  const mode = cursor?.mode ?? 'beginning'
  const page = await pageOf(deps, userId, query, chats, terms, mode, cursor)
  if (cursor || page.results.length > 0 || page.has_more) return page
  return pageOf(deps, userId, query, chats, terms, 'within', undefined)
}

async function pageOf(
  deps: SearchDeps,
  userId: string,
  { from, limit }: MessageSearch,
  chats: readonly Searched[],
  terms: readonly Term[],
  mode: Mode,
  cursor: Cursor | undefined,
): Promise<Page> {
  // What comes later must not move what follows: an older page ends in time where its first one did.
  const find = async (edge: Edge | undefined) =>
    findMessages(
      deps.db,
      edge ? await untilTime(deps.db, chats, rfc3339Micros(edge.at + 1)) : chats,
      { terms, from, skip: edge?.skip ?? 0 },
      mode,
    )
  let edge: Edge | undefined = cursor
  let done = cursor?.done ?? 0
  let found = await find(edge)
  for (let n = 1; n < maxWindows && found.hits.length === 0 && found.next; n += 1) {
    edge = found.next
    done = 0
    found = await find(edge)
  }
  const { hits, newest, next } = found
  const shown = hits.slice(done, done + limit)
  done += limit
  const following: Cursor | undefined =
    done < hits.length ? { ...(edge ?? { at: newest!, skip: 0 }), mode, done } : next && { ...next, mode, done: 0 }
  return {
    results: await views(deps, userId, shown, terms, mode),
    has_more: following !== undefined,
    next_cursor: following ? writeCursor(following) : null,
  }
}

/** Hits from `edge` on, without the best `done` of them. */
interface Cursor extends Edge {
  mode: Mode
  done: number
}

const writeCursor = ({ mode, at, skip, done }: Cursor) => `${mode === 'within' ? 'w' : 'b'}${at}.${skip}.${done}`

function readCursor(cursor: string): Cursor {
  const [at, skip, done] = cursor.slice(1).split('.').map(Number) as [number, number, number]
  return { mode: cursor.startsWith('w') ? 'within' : 'beginning', at, skip, done }
}

const rfc3339Micros = (at: number) =>
  `${new Date(Math.floor(at / 1_000)).toISOString().slice(0, -1)}${String(at % 1_000).padStart(3, '0')}Z`

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

/** In the order of `hits`; what the user may not see any more is left out. */
async function views(
  deps: SearchDeps,
  userId: string,
  hits: readonly Hit[],
  terms: readonly Term[],
  mode: Mode,
): Promise<SearchHit[]> {
  if (hits.length === 0) return []
  const rows = hits.map(({ row }) => row)
  const [messages, chats] = await Promise.all([
    messageViews(deps.db, deps.briefs, userId, rows),
    briefChats(deps, userId, [...new Set(rows.map((row) => row.chat_id))]),
  ])
  return hits.flatMap(({ row, words }, n) => {
    const chat = chats.get(row.chat_id)
    if (!chat || row.seq <= chat.cleared_seq) return []
    return [{ message: messages[n]!, chat: chat.brief, highlight: highlight(row.content, words, terms, mode) }]
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
  { chat_id, type, name, avatar_url }: Pick<ChatRow, 'chat_id' | 'type' | 'name' | 'avatar_url'>,
  peer: UserBrief | null,
): SearchHit['chat'] {
  return {
    id: chat_id,
    type,
    name: type === 'dm' ? nameOf(peer) : name,
    avatar_url: type === 'dm' ? (peer?.avatar_url ?? null) : avatar_url,
    peer,
  }
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
