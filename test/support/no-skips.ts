/** A run that skips a test, or runs none, has not passed: it ends non-zero and says why. */
import type { Reporter, Vitest } from 'vitest/node'

export function noSkips(): Reporter {
  let vitest: Vitest | undefined
  return {
    onInit(context) {
      vitest = context
    },
    onTestRunEnd(modules) {
      const tests = modules.flatMap((module) => [...module.children.allTests()])
      const skipped = tests.filter((test) => test.result().state === 'skipped')
      if (tests.length === skipped.length) fail('No test ran.')
      // Who asks for some tests by name (-t) means to leave out the others.
      else if (skipped.length > 0 && !vitest?.getGlobalTestNamePattern()) {
        fail(
          `Skipped, which counts as failed:\n${skipped.map((test) => `  ${test.module.relativeModuleId} > ${test.fullName}`).join('\n')}`,
        )
      }
    },
  }
}

function fail(why: string): void {
  process.exitCode = 1
  console.error(`\n${why}\n`)
}
