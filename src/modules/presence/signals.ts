import type { Caller } from '../../platform/command.ts'
import type { Queryable } from '../../platform/db/db.ts'
import { AppError } from '../../platform/errors.ts'
import type { News } from '../../platform/news.ts'
import type { PresenceStore } from '../../platform/presence/presence.ts'
import { frame } from '../../protocol/events.ts'
import { isMember } from './store.ts'

/** Typing, and whose screen a chat is on: signs of life that are told to who is there, and kept nowhere. */

/** Told on at most once in this time. */
const typingEveryMs = 3_000
/** Without another sign, typing ends by itself. */
const typingEndsMs = 5_000
/** A person looks at a few chats at most. */
const maxOpenChats = 20

export interface SignalDeps {
  news: News
  store: PresenceStore
  /** Whether this user's connections here hear the chat: they are a member of it. */
  hears: (userId: string, chatId: string) => boolean
  /** Whether nothing is told in this chat: a direct one, of two of whom one blocks the other. */
  isSilent: (chatId: string) => Promise<boolean>
  db: Queryable
  /** Of a channel nobody is told who reads or writes in it. */
  isChannel: (chatId: string) => Promise<boolean>
}

interface Typing {
  toldAt: number
  isTyping: boolean
  end: NodeJS.Timeout
}

export interface Signals {
  typing(caller: Caller, chatId: string, isTyping: boolean): Promise<void>
  /** The same over REST, which any instance may get, also one to which this user is not connected. */
  typingFromAnywhere(userId: string, chatId: string, isTyping: boolean): Promise<void>
  /** Resolves with the users who have the chat open. */
  join(caller: Caller, chatId: string): Promise<string[]>
  leave(caller: Caller, chatId: string): Promise<void>
  /** The connection is gone: its chats are on no screen. */
  gone(caller: Caller): void
  /** The user is no member of the chat any more: it is on none of their screens. */
  left(userId: string, chatId: string): void
  close(): void
}

export function createSignals({ db, news, store, hears, isChannel, isSilent }: SignalDeps): Signals {
  const typists = new Map<string, Typing>()
  /** Connections of this instance with the chat open, by chat and user. */
  const screens = new Map<string, Set<Caller>>()

  const key = (chatId: string, userId: string) => `${chatId} ${userId}`

  function check(caller: Caller, chatId: string): string {
    const { user_id } = caller.identity
    if (!hears(user_id, chatId)) throw new AppError('chat_not_found')
    return user_id
  }

  /** That something begins is not told where all is silent; that it ended is, so that nothing begun before stays for ever. */
  async function tellOthers(chatId: string, userId: string, begins: boolean, frame: string): Promise<void> {
    if (!begins || !(await isSilent(chatId))) news.pass(`chat:${chatId}`, { frame, not: userId })
  }

  function tellTyping(chatId: string, user_id: string, is_typing: boolean): void {
    const timestamp = Math.floor(Date.now() / 1_000)
    void tellOthers(chatId, user_id, is_typing, frame({ type: 'typing', chat_id: chatId, user_id, is_typing, timestamp }))
  }

  function endTyping(chatId: string, userId: string): void {
    const state = typists.get(key(chatId, userId))
    if (!state) return
    clearTimeout(state.end)
    typists.delete(key(chatId, userId))
    if (state.isTyping) tellTyping(chatId, userId, false)
  }

  function typed(userId: string, chatId: string, isTyping: boolean): void {
    const known = typists.get(key(chatId, userId))
    if (known) clearTimeout(known.end)
    else if (!isTyping) return
    const due = !known || Date.now() - known.toldAt >= typingEveryMs
    const tells = isTyping ? due : known!.isTyping
    const end = setTimeout(() => endTyping(chatId, userId), typingEndsMs)
    end.unref()
    typists.set(key(chatId, userId), {
      toldAt: tells && isTyping ? Date.now() : (known?.toldAt ?? 0),
      isTyping: isTyping && (due || known!.isTyping),
      end,
    })
    if (tells) tellTyping(chatId, userId, isTyping)
  }

  function tellScreen(chatId: string, user_id: string, is_joined: boolean): void {
    void tellOthers(chatId, user_id, is_joined, frame({ type: 'chat_presence', chat_id: chatId, user_id, is_joined }))
  }

  async function drop(caller: Caller, chatId: string): Promise<void> {
    const userId = caller.identity.user_id
    const open = screens.get(key(chatId, userId))
    if (open?.delete(caller) && open.size === 0) await close(userId, chatId)
  }

  async function close(userId: string, chatId: string): Promise<void> {
    screens.delete(key(chatId, userId))
    await store.closeChat(chatId, userId)
    tellScreen(chatId, userId, false)
  }

  return {
    async typing(caller, chatId, isTyping) {
      check(caller, chatId)
      // They may have left while it was looked up.
      if (!(await isChannel(chatId))) typed(check(caller, chatId), chatId, isTyping)
    },
    async typingFromAnywhere(userId, chatId, isTyping) {
      if (!hears(userId, chatId) && !(await isMember(db, userId, chatId))) throw new AppError('chat_not_found')
      if (!(await isChannel(chatId))) typed(userId, chatId, isTyping)
    },
    async join(caller, chatId) {
      check(caller, chatId)
      if (await isChannel(chatId)) return []
      const userId = check(caller, chatId)
      // Their connection may have gone while it was looked up: nobody would take the chat off its screen.
      if (caller.isClosed) return []
      if (!caller.openChats.has(chatId)) {
        if (caller.openChats.size >= maxOpenChats) {
          throw new AppError('invalid_input', { details: { chat_id: `at most ${maxOpenChats} chats can be on a screen` } })
        }
        caller.openChats.add(chatId)
        const open = screens.get(key(chatId, userId))
        open?.add(caller)
        if (!open) {
          screens.set(key(chatId, userId), new Set([caller]))
          await store.openChat(chatId, userId)
          tellScreen(chatId, userId, true)
        }
      }
      return (await isSilent(chatId)) ? [userId] : store.openUsers(chatId)
    },
    async leave(caller, chatId) {
      if (caller.openChats.delete(chatId)) await drop(caller, chatId)
    },
    gone(caller) {
      const { user_id } = caller.identity
      for (const chatId of caller.openChats) {
        void drop(caller, chatId)
        endTyping(chatId, user_id)
      }
      caller.openChats.clear()
    },
    left(userId, chatId) {
      endTyping(chatId, userId)
      const open = screens.get(key(chatId, userId))
      if (!open) return
      for (const caller of open) caller.openChats.delete(chatId)
      void close(userId, chatId)
    },
    close() {
      for (const { end } of typists.values()) clearTimeout(end)
      typists.clear()
    },
  }
}
