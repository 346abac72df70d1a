import type { Bus } from '../platform/bus/bus.ts'
import type { Gate, Page } from './gate.ts'

/** What the hub holds of those who are connected here, and what it asks of others. */

/** What the hub needs of a connection. */
export interface Peer {
  readonly userId: string
  readonly sessionId: string
  send(frame: Buffer): void
  /** Ends it in a way that makes the client come back and catch up. */
  fail(): void
}

export interface Memberships {
  user_version: number
  /** Chats of this user with their versions, all of one snapshot. */
  chats: { chat_id: string; version: number }[]
}

/** The truth, as the hub asks for it. `app.ts` fills this in from the modules. */
export interface Sources {
  memberships(userIds: string[]): Promise<Map<string, Memberships>>
  versions(chatIds: string[], userIds: string[]): Promise<{ chats: Map<string, number>; users: Map<string, number> }>
  chatChanges(chatId: string, since: number): Promise<Page>
  userChanges(userId: string, since: number): Promise<Page>
  /** `chat_added` as it stands now, and the chat's version in it; undefined when it is not this user's any more. */
  chatAdded(
    userId: string,
    chatId: string,
    stamp: { version: number; prev: number },
  ): Promise<{ frame: string; version: number } | undefined>
}

export interface HubOptions {
  bus: Bus
  instanceId: string
  sources: Sources
  /** The first connection of a user to this instance came, or the last went. */
  onPresence: (userId: string, isHere: boolean) => void
  /** Somebody connected here is no member of this chat any more. */
  onLeft?: (userId: string, chatId: string) => void
  onError: (error: unknown, what: string) => void
  metrics?: { filled(events: number): void; delivered(frames: number, latencyMs: number | undefined): void }
}

export interface LocalUser {
  id: string
  gate: Gate
  peers: Set<Peer>
  chats: Set<LocalChat>
  /** Resolves once every chat of this user is heard. */
  ready: Promise<void>
  /** Work on this user's stream that has to wait for the database, in order. */
  chain: Promise<void> | undefined
}

export interface Listening {
  /** Hears what is newer than this version. */
  from: number
  /** The newest version at which they were seen to be a member: an older leaving, heard late, is over. */
  memberAt: number
}

export interface LocalChat {
  id: string
  gate: Gate
  /** Who listens here. */
  users: Map<LocalUser, Listening>
  subscribed: Promise<unknown>
  /** The last version in which somebody left; an older list of members proves nothing. */
  lastLeft: number
  /** Somebody is about to be attached: not to be dropped. */
  pins: number
}
