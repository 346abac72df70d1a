import { defineConfig } from 'vitest/config'
import { noSkips } from './test/support/no-skips.ts'

export default defineConfig({
  test: {
    include: ['src/**/*.test.ts', 'test/**/*.test.ts'],
    globalSetup: ['test/support/global-setup.ts'],
    pool: 'forks',
    // Each worker comes with a server or two under test; more than this on a small machine makes timeouts, not speed.
    maxWorkers: 2,
    // A bound on what hangs, not on what is slow: a busy machine takes many times as long as an idle one.
    testTimeout: 60_000,
    hookTimeout: 120_000,
    teardownTimeout: 30_000,
    passWithNoTests: false,
    reporters: ['default', noSkips()],
  },
})
