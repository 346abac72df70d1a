import fc from 'fast-check'
import { afterAll, beforeAll, test } from 'vitest'
import { play, type Run, start } from './model/run.ts'
import { script } from './model/script.ts'
import { settle } from './model/settle.ts'
import { createWorld, type World } from './model/world.ts'

/**
 * Two instances, an unkind bus, a database that answers late or not at all, and people who do all they can at once. At the
 * end of each run what a live, a returning and a new device see must be the same, and nothing of what was promised broken.
 *
 * More by hand: `MODEL_RUNS=500 MODEL_SEED=1 npx vitest run test/model.test.ts`; with `MODEL_OVER=events` all
 * devices hear by event streams and speak by REST.
 */

const numRuns = Number(process.env.MODEL_RUNS ?? 50)
const seed = Number(process.env.MODEL_SEED ?? Date.now() % 1_000_000_000)

let world: World
beforeAll(async () => {
  world = await createWorld()
})
afterAll(() => world.close())

test(
  'what was acknowledged is delivered to everyone entitled to it, once, in order, and to nobody else',
  async () => {
    let last: Run | undefined
    let runs = 0
    const property = fc.asyncProperty(script, async (given) => {
      runs += 1
      const run = await start(world, given)
      last = run
      await play(run, given)
      const complaints = await settle(run)
      if (process.env.MODEL_VERBOSE) console.log(runs, complaints.length, run.log.length)
      if (complaints.length > 0) throw new Error(complaints.slice(0, 16).join('\n'))
    })
    // A run that fails by a race may well pass when it is run again: it is told as it was, and not shrunk unless asked for.
    const result = await fc.check(property, { numRuns, seed, endOnFailure: process.env.MODEL_SHRINK === undefined })
    if (!result.failed) return
    const story = last?.log.join('\n') ?? ''
    throw new Error(`MODEL_SEED=${seed}, run ${runs}:\n${String(result.errorInstance)}\n\nWhat had been done:\n${story}`)
  },
  60_000 + numRuns * 15_000,
)
