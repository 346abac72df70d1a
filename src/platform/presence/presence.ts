/**
 * Who is connected to any instance, and which chats they have on the screen. Every instance holds a lease
 * (about 1.5 s, renewed from a worker thread); when it ends, its users count as gone.
 */
export interface PresenceStore {
  /** This instance has (at least) one connection of these users now. Idempotent. */
  add(userIds: readonly string[]): Promise<void>
  /** This instance has no connection of these users any more. */
  remove(userIds: readonly string[]): Promise<void>
  /** Those of `userIds` that are connected to any live instance. */
  online(userIds: readonly string[]): Promise<Set<string>>
  /** This user has (or no longer has) the chat on a screen at this instance. */
  openChat(chatId: string, userId: string): Promise<void>
  closeChat(chatId: string, userId: string): Promise<void>
  /** Users who have the chat open on any live instance, at most 1,000. */
  openUsers(chatId: string): Promise<string[]>
  /** Called on exactly one live instance when another's lease has ended, with the users it had. */
  onLeaseEnded(listener: (userIds: string[]) => void): void
  /** Called on every live instance when another's lease has ended: its last publications may be missing. */
  onInstanceGone(listener: () => void): void
  /** Gives the lease back: this instance's users are gone at once. */
  close(): Promise<void>
}
