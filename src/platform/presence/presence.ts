/**
 * Who is connected to any instance, and which chats they have on the screen. Every instance holds a lease
 * (about 1.5 s, renewed from a worker thread); when it ends, its users count as gone. Best effort: nothing here
 * rejects, and while the shared store is away every instance knows its own users alone.
 */
export interface PresenceStore {
  /** This instance has (at least) one connection of these users now. Idempotent. */
  add(userIds: readonly string[]): Promise<void>
  /** This instance has no connection of these users any more. */
  remove(userIds: readonly string[]): Promise<void>
  /** Those of `userIds` that are connected to any live instance. */
  online(userIds: readonly string[]): Promise<Set<string>>
  /** This user has (or no longer has) the chat on a screen at this instance. Not counted: the last call wins. */
  openChat(chatId: string, userId: string): Promise<void>
  closeChat(chatId: string, userId: string): Promise<void>
  /** Users who have the chat open on any live instance, at most 1,000. */
  openUsers(chatId: string): Promise<string[]>
  /**
   * Called on exactly one live instance when another's lease has ended without `close`, with those of its users
   * that no live instance has. (On none, when that one loses its connection at that very moment.)
   */
  onLeaseEnded(listener: (userIds: string[]) => void): void
  /** Called on every live instance when another's lease has ended, by `close` too: its last publications may be missing. */
  onInstanceGone(listener: () => void): void
  /**
   * Called on this instance when its own lease had ended (a paused process, a lost Redis) and holds again, with all
   * of its users: others may have told that they are gone, and nobody else knows that they are not.
   */
  onReturned(listener: (userIds: string[]) => void): void
  /** Gives the lease back: this instance's users are gone at once. Whoever closes announces them, no other instance does. Idempotent. */
  close(): Promise<void>
}

/** What `openUsers` answers at most. */
export const maxOpenUsers = 1_000
