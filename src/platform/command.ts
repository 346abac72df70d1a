import type { Commands, CommandType } from '../protocol/commands.ts'
import type { Identity } from './identity.ts'

/** Who sends a command over a live connection. */
export interface Caller {
  readonly identity: Identity
  /** Chats on this connection's screen. */
  readonly openChats: Set<string>
  readonly isClosed: boolean
}

/**
 * What a command comes to: the fields of its ack; or, where the answer has to wait (for a commit), the promise of them,
 * so that the connection's next command need not wait too.
 */
export type Outcome = object | undefined | { later: Promise<object | undefined> }

type Handler<K extends CommandType> = (caller: Caller, command: Commands[K]) => Promise<Outcome> | Outcome

/** `auth` and `ping` are the connection's own. Missing one does not compile. */
export type CommandTable = { readonly [K in Exclude<CommandType, 'auth' | 'ping'>]: Handler<K> }
