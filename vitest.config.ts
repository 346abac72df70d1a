import { defineConfig } from 'vitest/config'
import { noSkips } from './test/support/no-skips.ts'

export default defineConfig({
  test: {
    include: ['src/**/*.test.ts', 'test/**/*.test.ts'],
    globalSetup: ['test/support/global-setup.ts'],
    pool: 'forks',
    // Each worker comes with a server or two under test; more than this on a small machine makes timeouts, not speed.
    maxWorkers: 2,
    testTimeout: 20_000,
    hookTimeout: 60_000,
    teardownTimeout: 30_000,
    passWithNoTests: false,
    reporters: ['default', noSkips()],
  },
})
