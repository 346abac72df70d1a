import { randomUUID } from 'node:crypto'

/**
 * Whether other instances share this Redis. As long as none does, nothing needs to be published: that is a tenth of the
 * processor of a server that is the only one.
 *
 * Everybody who begins to listen says hello, again after each outage, and whoever hears it answers. So of two instances
 * that both listen, at least one has heard the other's hello, and both know. What somebody kept to itself until then is a
 * gap for the others, and is told as one. Nobody who has had company believes to be alone again.
 */
export interface Company {
  /** What is published now would reach nobody. */
  readonly isAlone: boolean
  /** Something was not published. */
  kept(): void
  /**
   * Listening (again): says hello, and is alone from when that is confirmed until somebody answers. Resolves true
   * when all who heard it have answered, or after a second; false where it did not get through, or another followed.
   */
  listening(): Promise<boolean>
  /** No longer listening: who says hello now is not heard. */
  deaf(): void
  /** What another instance said, or this one: true where it is news of a gap. */
  heard(payload: Buffer): boolean
  /** To all others: they may have missed something. */
  readonly gap: Buffer
}

const patienceMs = 1_000

const kinds = { gap: 0, hello: 1, here: 2 }

export interface CompanyOptions {
  /** Resolves with how many heard it, this one too; rejects where it did not get through. */
  say(payload: Buffer): Promise<number>
  /** Tells all others of a gap, and goes on trying. */
  announceGap(): void
  /** Nobody is taken to be alone, and nothing is said. */
  always: boolean
}

export function createCompany({ say, announceGap, always }: CompanyOptions): Company {
  const id = Buffer.from(randomUUID())
  const saying = (kind: number) => Buffer.concat([Buffer.from([kind]), id])
  let hasCompany = always
  let keptSome = false
  // Counts the times of listening: a hello that is confirmed after the next outage says nothing about what is heard since.
  let time = 0
  let greeted = false
  let answers = 0
  let onAnswer = () => {}

  return {
    gap: saying(kinds.gap),
    get isAlone() {
      return greeted && !hasCompany
    },
    kept() {
      keptSome = true
    },
    async listening() {
      if (always) return true
      time += 1
      const now = time
      answers = 0
      const hearers = await say(saying(kinds.hello)).catch(() => undefined)
      if (hearers === undefined || now !== time) return false
      greeted = true
      const { promise, resolve } = Promise.withResolvers<void>()
      const timer = setTimeout(resolve, patienceMs).unref()
      onAnswer = () => {
        if (answers >= hearers - 1 || now !== time) resolve()
      }
      onAnswer()
      await promise
      clearTimeout(timer)
      return now === time
    },
    deaf() {
      time += 1
      greeted = false
      onAnswer()
    },
    heard(payload) {
      if (payload.subarray(1).equals(id)) return false
      hasCompany = true
      if (payload[0] !== kinds.hello) answers += 1
      onAnswer()
      if (keptSome) {
        keptSome = false
        announceGap()
      } else if (payload[0] === kinds.hello) {
        // Where that fails the connection is gone, and the next one brings a hello of our own.
        say(saying(kinds.here)).catch(() => {})
      }
      return payload[0] === kinds.gap
    },
  }
}
