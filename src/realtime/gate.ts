import type { Stamped } from '../platform/news.ts'

/**
 * One stream's order on this instance. Invariants: what is delivered has strictly growing versions; an event is
 * delivered only when everything before it has been; what the bus lost is read from PostgreSQL.
 *
 * Before `open` it holds what arrives: the subscription was there first, then the version was read.
 */

/** How long a hole may be a mere swap of order before it is read from the database. Publications of two instances overtake each other by less. */
const holdMs = 50
/** More than this waiting means that reading the database is cheaper than holding on. */
const maxHeld = 1_000

export interface Page {
  /** Changes after `since`, oldest first, each with the version it is told under. */
  events: Stamped[]
  /** Where the stream stands once they are applied. */
  version: number
  more: boolean
}

export interface GateOptions {
  deliver: (event: Stamped) => void
  /** Reads what came after `since` from PostgreSQL. */
  load: (since: number) => Promise<Page>
  onFill?: ((events: number) => void) | undefined
}

export class Gate {
  /** The last version delivered; -1 until opened. */
  version = -1
  /** Made only while something waits: most gates never hold anything. */
  #held: Map<number, Stamped> | undefined
  #timer: NodeJS.Timeout | undefined
  #filling = false
  #closed = false
  /** The newest version known to exist. */
  #known = -1
  readonly #options: GateOptions

  constructor(options: GateOptions) {
    this.#options = options
  }

  get isOpen(): boolean {
    return this.version >= 0
  }

  /** Everything up to `version` is old; what was held after it is delivered. Only the first call counts. */
  open(version: number): void {
    if (this.isOpen || this.#closed) return
    this.version = version
    this.#drain()
    if (this.#known > this.version) this.#wait(holdMs)
  }

  push(event: Stamped): void {
    if (this.#closed || event.version <= this.version) return
    if (event.version > this.#known) this.#known = event.version
    if (this.isOpen && event.prev <= this.version) {
      this.#deliver(event)
      if (this.#held) this.#drain()
      return
    }
    this.#held ??= new Map()
    if (this.#held.size >= maxHeld) this.#held.clear()
    this.#held.set(event.version, event)
    if (this.isOpen) this.#wait(holdMs)
  }

  /** PostgreSQL was seen at `version`. If this gate does not get there by itself soon, something was lost. */
  behind(version: number): void {
    if (this.#closed || version <= this.version) return
    if (version > this.#known) this.#known = version
    if (this.isOpen) this.#wait(holdMs)
  }

  close(): void {
    this.#closed = true
    this.#held = undefined
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  #deliver(event: Stamped): void {
    this.version = event.version
    this.#options.deliver(event)
  }

  /** Delivers what has become deliverable. */
  #drain(): void {
    const held = this.#held
    if (!held) return
    for (const event of [...held.values()].sort((a, b) => a.version - b.version)) {
      if (event.version <= this.version) held.delete(event.version)
      else if (event.prev <= this.version) {
        held.delete(event.version)
        this.#deliver(event)
        if (this.#closed) return
      } else break
    }
    if (held.size === 0) {
      this.#held = undefined
      if (this.#known <= this.version) {
        clearTimeout(this.#timer)
        this.#timer = undefined
      }
    } else this.#wait(holdMs)
  }

  #wait(ms: number): void {
    if (this.#timer || this.#filling || this.#closed) return
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      void this.#fill()
    }, ms)
  }

  async #fill(): Promise<void> {
    if (this.#filling || this.#closed || this.#known <= this.version) return
    this.#filling = true
    let asked = this.#known
    try {
      for (let more = true; more && !this.#closed; ) {
        asked = this.#known
        const page = await this.#options.load(this.version)
        this.#options.onFill?.(page.events.length)
        for (const event of page.events) {
          if (this.#closed) return
          if (event.version > this.version) this.#deliver(event)
        }
        if (page.version > this.version) this.version = page.version
        more = page.more
      }
      this.#filling = false
      // A version that was known before PostgreSQL was read and is not there was never committed: it is not waited for,
      // nor looked for again. What is held, or became known meanwhile, is.
      if (this.#known <= asked) this.#known = Math.max(this.version, ...(this.#held?.keys() ?? []))
      if (this.#closed) return
      this.#drain()
      if (this.#known > this.version) this.#wait(holdMs)
    } catch {
      // The database is away: it will be asked again until it answers or nobody listens any more.
      this.#filling = false
      this.#wait(500)
    }
  }
}
