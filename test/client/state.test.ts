import { describe, expect, test } from 'vitest'
import type { ServerEvent } from '../../src/protocol/events.ts'
import type { Member, Message, My, Relation, SyncAnswer, SyncChat } from '../../src/protocol/resources.ts'
import { ClientState } from './state.ts'

/** Answers of `sync` that events have overtaken: what makes a client right or wrong under load. */

const my = (more: Partial<My> = {}): My => ({
  read_seq: 0,
  delivered_seq: 0,
  archived: false,
  archived_seq: null,
  pinned: false,
  muted_until: null,
  cleared_seq: 0,
  ...more,
})

/** Only what the algorithm looks at. */
const message = (seq: number, version = seq) =>
  ({
    seq,
    version,
    sender_id: 'them',
    message_type: 'text',
    content: `${seq}`,
    deleted_at: null,
    reactions: [],
    mentions: [] as string[],
  }) as unknown as Message
const member = (user_id: string, version: number, left_at: string | null = null) =>
  ({ user_id, version, joined_seq: 0, role: 'member', left_at }) as Member
const chat = (version: number, more: object = {}) =>
  ({
    id: 'c',
    type: 'group',
    member_count: 1,
    last_seq: version,
    version,
    unread_count: 0,
    my: my(),
    ...more,
  }) as SyncChat['chat']

const entry = (version: number, more: Partial<SyncChat> = {}): SyncChat => ({
  chat: chat(version),
  messages: [],
  members: [],
  cursors: [],
  version,
  has_more: false,
  reset: false,
  ...more,
})

const answer = (user_version: number, chats: SyncChat[], more: Partial<SyncAnswer> = {}): SyncAnswer => ({
  chats,
  removed: [],
  relations: [],
  relations_reset: false,
  me: { id: 'me' } as SyncAnswer['me'],
  user_version,
  has_more: chats.some((c) => c.has_more),
  server_time: '2026-01-15T10:05:00.123Z',
  ...more,
})

const event = (type: ServerEvent['type'], more: object) => ({ type, chat_id: 'c', ...more }) as ServerEvent
const sent = (version: number) => event('new_message', { version, prev: version - 1, message: message(version) })

/** A client that has the chat at this version. */
function at(version: number): ClientState {
  const state = new ClientState('me')
  state.asked()
  state.synced(answer(1, [entry(version, { members: [member('me', 1)] })]))
  expect(state.needsSync).toBe(false)
  return state
}

describe('an answer that was overtaken', () => {
  test('does not take back what is newer of my own', () => {
    const state = at(1)
    state.asked()
    const newer = { user_version: 2, user_prev: 1, my: my({ pinned: true }), unread_count: 0, mention_count: 0, last_seq: 1 }
    state.event(event('my_updated', newer))
    state.synced(answer(1, [entry(2)]))
    expect(state.chats.get('c')?.my.pinned).toBe(true)
    expect(state.userVersion).toBe(2)
  })

  test('is asked again where it brings a chat whose own news came too early', () => {
    const state = new ClientState('me')
    state.asked()
    state.synced(answer(1, []))
    state.asked()
    const early = { user_version: 2, user_prev: 1, my: my({ pinned: true }), unread_count: 0, mention_count: 0, last_seq: 1 }
    state.event(event('my_updated', early))
    state.synced(answer(1, [entry(1)]))
    expect([state.needsSync, state.position().user_version]).toEqual([true, 1])
  })

  test('does not bring back who has left', () => {
    const state = at(1)
    state.asked()
    state.event(event('member_joined', { version: 2, prev: 1, user_id: 'x', member: member('x', 2) }))
    state.event(event('member_left', { version: 3, prev: 2, user_id: 'x' }))
    state.synced(answer(1, [entry(2, { members: [member('x', 2)] })]))
    expect([...state.chats.get('c')!.members.keys()]).toEqual(['me'])
    expect(state.chats.get('c')!.chat.member_count).toBe(1)
  })

  test('does not bring back, in part, a chat that was removed', () => {
    const state = at(1)
    state.asked()
    state.event(event('chat_removed', { user_version: 2, user_prev: 1 }))
    state.synced(answer(1, [entry(2, { messages: [message(2)] })]))
    expect([state.chats.size, state.needsSync]).toEqual([0, true])
  })

  test('does not cover what a page of history has asked for again', () => {
    const state = at(9)
    state.asked()
    state.page('c', { messages: [message(3)], version: 5 })
    state.synced(answer(1, [entry(12)]))
    expect([state.chats.get('c')?.version, state.needsSync]).toEqual([5, true])
  })
})

describe('an answer in parts', () => {
  test('is not bridged by events: what they build on is still to come', () => {
    const state = at(1)
    state.asked()
    for (const version of [3, 4]) state.event(sent(version))
    state.synced(answer(1, [entry(2, { chat: chat(4, { name: 'new' }), messages: [message(2)], has_more: true })]))
    expect([state.chats.get('c')?.version, state.needsSync]).toEqual([2, true])
    state.asked()
    state.synced(answer(1, [entry(4, { chat: chat(4, { name: 'new' }), messages: [message(3), message(4)] })]))
    expect([state.chats.get('c')?.version, state.chats.get('c')?.chat.name]).toEqual([4, 'new'])
    expect([...state.chats.get('c')!.messages.keys()]).toEqual([2, 3, 4])
  })
})

test('chat_added is where hearing begins, even if a sync had told of the chat before', () => {
  const state = at(1)
  state.event(event('chat_added', { user_version: 1, user_prev: 0, chat: chat(5) }))
  expect(state.needsSync).toBe(true)
})

test('without every message at hand, unread ones are counted on from what was told', () => {
  const state = new ClientState('me')
  state.asked()
  state.synced(answer(1, [entry(9, { chat: chat(9, { unread_count: 9 }), messages: [message(8), message(9)] })]))
  state.event(sent(10))
  expect(state.unread('c')).toBe(10)
  const read = { user_version: 2, user_prev: 1, my: my({ read_seq: 9 }), unread_count: 0, mention_count: 0, last_seq: 9 }
  state.event(event('my_updated', read))
  expect(state.unread('c')).toBe(1)
})

describe('what I hold of others', () => {
  const relation = (kind: Relation['relation'], version: number) =>
    ({ user_id: 'them', relation: kind, request_id: null, version }) as Relation
  const updated = (kind: Relation['relation'], version: number) =>
    event('relation_updated', { user_version: version, user_prev: version - 1, relation: relation(kind, version) })
  const kind = (state: ClientState) => state.relations.get('them')?.relation

  test('an answer that was overtaken does not bring back what has ended', () => {
    const state = new ClientState('me')
    state.asked()
    state.synced(answer(4, [], { relations: [relation('contact', 4)] }))
    state.asked()
    state.event(updated('none', 5))
    state.synced(answer(4, [], { relations: [relation('contact', 4)] }))
    expect([kind(state), state.userVersion]).toEqual(['none', 5])
  })

  test('a page does not skip the next one: what comes meanwhile waits for it', () => {
    const state = new ClientState('me')
    state.asked()
    state.synced(answer(3, [], { relations: [relation('incoming', 2)], has_more: true }))
    expect([state.userVersion, state.needsSync]).toEqual([3, true])
    state.event(updated('contact', 9))
    expect([state.userVersion, kind(state)]).toEqual([3, 'incoming'])
    state.asked()
    state.synced(answer(8, []))
    expect([state.userVersion, kind(state), state.needsSync]).toEqual([9, 'contact', false])
  })

  test('a server that was restored tells all anew', () => {
    const state = new ClientState('me')
    state.asked()
    state.synced(answer(7, [], { relations: [relation('contact', 7)] }))
    state.asked()
    state.synced(answer(3, [], { relations_reset: true }))
    expect([state.userVersion, kind(state)]).toEqual([3, undefined])
  })

  test('unread messages of somebody who is blocked are not counted', () => {
    const state = new ClientState('me')
    state.asked()
    state.synced(answer(1, [entry(2, { messages: [message(1), message(2)] })]))
    expect(state.unread('c')).toBe(2)
    state.event(updated('blocked', 2))
    expect(state.unread('c')).toBe(0)
    state.event(sent(3))
    expect(state.unread('c')).toBe(0)
    state.event(updated('none', 3))
    expect(state.unread('c')).toBe(3)
  })
})

describe('what becomes of messages', () => {
  const reply = (seq: number, version: number, quoted: number, content: string) => ({
    ...message(seq, version),
    reply_to: { id: `m${quoted}`, seq: quoted, content, deleted: false },
  })
  const edited = (seq: number, version: number) => ({ ...message(seq, version), content: 'new', edited_at: 'now' })
  const quote = (state: ClientState, seq: number) => state.chats.get('c')?.messages.get(seq)?.reply_to?.content
  const deleted = (seq: number, version: number) =>
    event('message_deleted', {
      version,
      prev: version - 1,
      seq,
      message: { ...message(seq, version), content: '', deleted_at: 'now' },
    })

  test('a reply that comes with an older page of history quotes what I know, not what the page knew', () => {
    const state = at(1)
    state.event(event('message_edited', { version: 2, prev: 1, message: edited(1, 2) }))
    state.page('c', { messages: [reply(2, 1, 1, 'old') as Message], version: 1 })
    state.asked()
    state.synced(answer(1, [entry(2, { messages: [edited(1, 2) as Message] })]))
    expect(quote(state, 2)).toBe('new')
  })

  test('what I cleared is not here any more, but for the quotes of it', () => {
    const state = new ClientState('me')
    state.asked()
    const mine = chat(3, { my: my({ cleared_seq: 1 }) })
    state.synced(answer(1, [entry(3, { chat: mine, messages: [reply(2, 2, 1, 'old') as Message, message(3)] })]))
    state.event(event('message_edited', { version: 4, prev: 3, message: edited(1, 4) }))
    expect([quote(state, 2), state.chats.get('c')!.messages.has(1)]).toEqual(['new', false])
  })

  test('a message that is deleted leaves the count that was told, once', () => {
    const state = new ClientState('me')
    state.asked()
    state.synced(answer(1, [entry(9, { chat: chat(9, { unread_count: 9 }), messages: [message(8), message(9)] })]))
    // One that is not here, one that is.
    state.event(deleted(3, 10))
    state.event(deleted(8, 11))
    expect(state.unread('c')).toBe(7)
    // Counted when 12 had happened, which is heard only now.
    const counted = { user_version: 2, user_prev: 1, my: my(), unread_count: 6, mention_count: 0, last_seq: 9, chat_version: 12 }
    state.event(event('my_updated', counted))
    state.event(deleted(4, 12))
    expect(state.unread('c')).toBe(6)
  })
})
