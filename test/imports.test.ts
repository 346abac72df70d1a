/** The rule of imports (.dependency-cruiser.json) must find what it forbids: here it meets every kind of it. */
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { root, scratch } from './support/tools.ts'

/** A small house that keeps every rule, in the shape of src. */
const clean: Record<string, string> = {
  'src/main.ts': `import { build } from './app.ts'\nbuild()`,
  'src/app.ts': `import { readFileSync } from 'node:fs'
    import { messages } from './modules/messages/index.ts'
    import { users } from './modules/users/index.ts'
    import { hub } from './realtime/hub.ts'
    export const build = () => [messages, users, hub, readFileSync, import('./modules/sync/index.ts')]`,
  'src/config.ts': `import type { Limit } from './platform/limits.ts'\nexport type Config = Limit`,
  'src/protocol/errors.ts': `import { z } from 'zod'\nexport const errors = z`,
  'src/platform/limits.ts': `import { errors } from '../protocol/errors.ts'\nexport type Limit = typeof errors`,
  'src/realtime/hub.ts': `import type { Limit } from '../platform/limits.ts'\nexport const hub = null as unknown as Limit`,
  'src/modules/users/index.ts': `export { users } from './store.ts'`,
  'src/modules/users/store.ts': `import pg from 'pg'\nexport const users = pg`,
  'src/modules/chats/index.ts': `import { users } from '../users/index.ts'\nexport const chats = users`,
  'src/modules/messages/index.ts': `import { chats } from '../chats/index.ts'\nexport const messages = chats`,
  'src/modules/messages/store.test.ts': `import { it } from 'vitest'\nimport { messages } from './index.ts'\nit('', () => messages)`,
  'src/modules/sync/index.ts': `import { messages } from '../messages/index.ts'\nexport const sync = messages`,
  'src/modules/auth/index.ts': `import { users } from '../users/index.ts'\nexport const auth = users`,
  'src/modules/admin/index.ts': `import { auth } from '../auth/index.ts'\nimport { chats } from '../chats/index.ts'\nexport const admin = [auth, chats]`,
  'src/admin.ts': `import { admin } from './modules/admin/index.ts'\nexport const run = admin`,
  'src/modules/health/index.ts': `export const health = 1`,
  'test/support/tool.ts': `export const tool = 1`,
}

/** What is added to it, and the rule that has to say so. */
const violations: [what: string, rule: string, files: Record<string, string>][] = [
  [
    'a circle',
    'no-circle',
    { 'src/platform/a.ts': `import './b.ts'\nexport const a = 1`, 'src/platform/b.ts': `import './a.ts'\nexport const b = 1` },
  ],
  [
    'a circle of types alone',
    'no-circle',
    {
      'src/platform/a.ts': `import type { B } from './b.ts'\nexport type A = B`,
      'src/platform/b.ts': `import { type A } from './a.ts'\nexport type B = A`,
    },
  ],
  [
    'a circle closed by a re-exported type',
    'no-circle',
    {
      'src/platform/a.ts': `export type { B } from './b.ts'\nexport type A = 1`,
      'src/platform/b.ts': `import type { A } from './a.ts'\nexport type B = A`,
    },
  ],
  [
    'protocol importing platform',
    'protocol-imports-nothing-of-ours',
    { 'src/protocol/a.ts': `import type { Limit } from '../platform/limits.ts'\nexport type A = Limit` },
  ],
  [
    'platform importing a module',
    'platform-imports-protocol-alone',
    { 'src/platform/a.ts': `import { users } from '../modules/users/index.ts'\nexport const a = users` },
  ],
  [
    'platform importing the configuration',
    'platform-imports-protocol-alone',
    { 'src/platform/a.ts': `import type { Config } from '../config.ts'\nexport type A = Config` },
  ],
  [
    'realtime importing a module',
    'realtime-knows-no-module',
    { 'src/realtime/a.ts': `import { users } from '../modules/users/index.ts'\nexport const a = users` },
  ],
  [
    'realtime importing a module at run time',
    'realtime-knows-no-module',
    { 'src/realtime/a.ts': `export const a = () => import('../modules/users/index.ts')` },
  ],
  [
    'a module importing realtime',
    'modules-know-no-realtime',
    { 'src/modules/chats/a.ts': `import { hub } from '../../realtime/hub.ts'\nexport const a = hub` },
  ],
  [
    'a module importing the context',
    'modules-know-no-realtime',
    { 'src/modules/chats/a.ts': `import type { Config } from '../../config.ts'\nexport type A = Config` },
  ],
  [
    "a module reaching past another's index",
    'a-module-is-reached-through-its-index',
    { 'src/modules/chats/a.ts': `import { users } from '../users/store.ts'\nexport const a = users` },
  ],
  [
    'the same for a type',
    'a-module-is-reached-through-its-index',
    { 'src/modules/chats/a.ts': `import type { users } from '../users/store.ts'\nexport type A = typeof users` },
  ],
  [
    'app reaching past an index',
    'app-reaches-modules-through-their-index',
    { 'src/app.ts': `import { users } from './modules/users/store.ts'\nexport const build = () => users` },
  ],
  [
    'users importing chats',
    'users-know-no-module',
    { 'src/modules/users/a.ts': `import { chats } from '../chats/index.ts'\nexport const a = chats` },
  ],
  [
    'auth importing chats',
    'auth-contacts-subscriptions-know-users-alone',
    { 'src/modules/auth/index.ts': `import { chats } from '../chats/index.ts'\nexport const a = chats` },
  ],
  [
    'chats importing messages',
    'chats-and-media-know-contacts-and-users',
    { 'src/modules/chats/a.ts': `import { messages } from '../messages/index.ts'\nexport const a = messages` },
  ],
  [
    'messages importing sync',
    'nobody-but-app-knows-the-highest-modules',
    { 'src/modules/messages/a.ts': `import { sync } from '../sync/index.ts'\nexport const a = sync` },
  ],
  [
    'sync importing health',
    'nobody-but-app-knows-the-highest-modules',
    { 'src/modules/sync/a.ts': `import { health } from '../health/index.ts'\nexport const a = health` },
  ],
  [
    'sync importing auth',
    'nobody-but-app-knows-the-highest-modules',
    { 'src/modules/sync/a.ts': `import { auth } from '../auth/index.ts'\nexport const a = auth` },
  ],
  [
    'admin importing messages',
    'admin-knows-accounts-and-chats',
    { 'src/modules/admin/a.ts': `import { messages } from '../messages/index.ts'\nexport const a = messages` },
  ],
  [
    'the commands importing users',
    'commands-know-the-admin-module-alone',
    { 'src/admin.ts': `import { users } from './modules/users/index.ts'\nexport const a = users` },
  ],
  [
    'something importing app',
    'only-main-imports-app',
    { 'src/realtime/a.ts': `import { build } from '../app.ts'\nexport const a = build` },
  ],
  [
    'main importing realtime',
    'only-app-knows-modules-and-realtime',
    { 'src/main.ts': `import { hub } from './realtime/hub.ts'\nexport const a = hub` },
  ],
  [
    'a dev dependency in shipped code',
    'shipped-code-needs-no-dev-dependency',
    { 'src/platform/a.ts': `import { it } from 'vitest'\nexport const a = it` },
  ],
  [
    'a dev dependency imported at run time',
    'shipped-code-needs-no-dev-dependency',
    { 'src/platform/a.ts': `export const a = () => import('vitest')` },
  ],
  [
    "a package's package",
    'shipped-code-needs-no-dev-dependency',
    { 'src/platform/a.ts': `import pool from 'pg-pool'\nexport const a = pool` },
  ],
  [
    'shipped code importing from test',
    'shipped-code-stays-in-src',
    { 'src/platform/a.ts': `import { tool } from '../../test/support/tool.ts'\nexport const a = tool` },
  ],
  [
    'shipped code importing a test',
    'shipped-code-imports-no-test',
    { 'src/platform/a.ts': `import '../modules/messages/store.test.ts'\nexport const a = 1` },
  ],
  [
    'a file that is not there',
    'nothing-unresolvable',
    { 'src/platform/a.ts': `import { b } from './missing.ts'\nexport const a = b` },
  ],
]

let dir: string
let remove: () => Promise<void>
beforeAll(async () => {
  ;({ dir, remove } = await scratch('imports'))
})
afterAll(() => remove?.())

/** The violated rules' names. */
function cruise(files: Record<string, string>): string[] {
  rmSync(join(dir, 'house'), { recursive: true, force: true })
  for (const [path, text] of Object.entries({ ...clean, ...files })) {
    mkdirSync(dirname(join(dir, 'house', path)), { recursive: true })
    writeFileSync(join(dir, 'house', path), text)
  }
  const manifest = { type: 'module', dependencies: { pg: '*', zod: '*' }, devDependencies: { vitest: '*' } }
  writeFileSync(join(dir, 'house/package.json'), JSON.stringify(manifest))
  symlinkSync(join(root, 'node_modules'), join(dir, 'house/node_modules'))
  const args = [join(root, 'node_modules/.bin/depcruise'), 'src', '--config', join(root, '.dependency-cruiser.json')]
  const { stdout, stderr } = spawnSync(process.execPath, [...args, '--output-type', 'json'], {
    cwd: join(dir, 'house'),
    encoding: 'utf8',
  })
  if (!stdout.startsWith('{')) throw new Error(stderr || stdout)
  const { summary } = JSON.parse(stdout) as { summary: { totalCruised: number; violations: { rule: { name: string } }[] } }
  expect(summary.totalCruised).toBeGreaterThan(10)
  return [...new Set(summary.violations.map(({ rule }) => rule.name))]
}

it('has nothing against a house in order', () => {
  expect(cruise({})).toEqual([])
})

it.each(violations)('finds %s', (_what, rule, files) => {
  expect(cruise(files)).toContain(rule)
})

it('npm run imports uses it, on src', () => {
  const { scripts } = JSON.parse(execFileSync('cat', [join(root, 'package.json')], { encoding: 'utf8' }))
  expect(scripts.imports).toBe('depcruise src --config .dependency-cruiser.json')
})
