import type { Control } from '../../platform/control.ts'
import type { Db, Queryable } from '../../platform/db/db.ts'
import type { LimitRule, Limits } from '../../platform/limits/limits.ts'
import type { Passwords } from '../../platform/passwords.ts'
import type { Me, RelationKind } from '../../protocol/resources.ts'
import type { BriefCache } from './briefs.ts'

/** An event of a user's own stream; `prev` is the version of the user's clock before it. */
export interface UserStamped {
  version: number
  prev: number
  event: { type: 'me_updated'; me: Me }
}

/** How somebody stands to a viewer. */
export interface Tie {
  /** What the viewer holds of them. */
  relation: RelationKind
  /** They block the viewer, who is not to know: nothing of their coming and going is shown. */
  blocks_viewer: boolean
}

/** A code that was right, to be used once. */
export interface CheckedCode {
  phone: string
  id: string
}

/** What profiles need, and the hooks that modules above fill. */
export interface UsersDeps {
  db: Db
  control: Control
  limits: Limits
  passwords: Passwords
  briefCache: BriefCache
  /** Hook: codes sent to phones, which stand for a password where there is none. */
  codes: {
    /** Counts a try. Undefined where it is not the phone's code, or no longer. */
    check(phone: string, code: string): Promise<CheckedCode | undefined>
    /** Removes it, in the transaction of what it allows; false where another did so first. */
    use(tx: Queryable, code: CheckedCode): Promise<boolean>
  }
  /** Wrong passwords of somebody who is signed in. */
  passwordRule: LimitRule
  /** How these stand to `viewerId`; who is not in the answer is a stranger. */
  relations(q: Queryable, viewerId: string, ids: readonly string[]): Promise<Map<string, Tie>>
  /** Who of these is connected. */
  online(ids: readonly string[]): Promise<Set<string>>
  /** Tells the user's own devices, after the commit. */
  tellUser(userId: string, stamped: UserStamped): void
  /** Ends all sessions of a user but one, and answers which; their end is announced after the commit. */
  endSessions(tx: Queryable, userId: string, except?: string): Promise<string[]>
  /** What else goes with an account, after the commit: it leaves its groups. Done again until it succeeds. */
  onDeleted(userId: string): Promise<void>
}
