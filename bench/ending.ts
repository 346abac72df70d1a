import { constants } from 'node:os'

/** What has to be undone, whatever happens: at the end, after a failure, on Ctrl-C. */

const open = new Set<() => Promise<unknown> | unknown>()

/** Answers a function that undoes it now, once. */
export function undoLater(undo: () => Promise<unknown> | unknown): () => Promise<void> {
  open.add(undo)
  return async () => {
    if (open.delete(undo)) await undo()
  }
}

/** Undoes all that is left, the last first. One that fails does not keep the others. */
export async function undoAll(): Promise<void> {
  for (const undo of [...open].reverse()) {
    if (!open.delete(undo)) continue
    try {
      await undo()
    } catch (error) {
      console.error(error)
    }
  }
}

const withinMs = 15_000
let ending = false

/** True once a signal has come: what fails from then on is of no interest, and nothing new is begun. */
export const isEnding = (): boolean => ending

/** A signal ends everything in order; a second one at once. */
export function undoOnSignals(): void {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      const code = 128 + constants.signals[signal]
      if (ending) process.exit(code)
      ending = true
      console.error(`\n${signal}: cleaning up`)
      setTimeout(() => process.exit(code), withinMs).unref()
      void undoAll().then(() => process.exit(code))
    })
  }
}
