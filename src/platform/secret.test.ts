import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { StartError } from './db/migrate.ts'
import { keepSecret } from './secret.ts'

let dir: string
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'parley-secret-'))
})
afterAll(() => rm(dir, { recursive: true, force: true }))

test('a secret is made once, for all who ask at once, and for its owner alone', async () => {
  const file = join(dir, 'data', 'jwt.secret')
  const secrets = await Promise.all(Array.from({ length: 20 }, () => keepSecret(file)))
  expect(new Set(secrets).size).toBe(1)
  expect(secrets[0]!.length).toBeGreaterThanOrEqual(64)
  expect((await readFile(file, 'utf8')).trim()).toBe(secrets[0])
  expect((await stat(file)).mode & 0o777).toBe(0o600)
  expect(await readdir(join(dir, 'data'))).toEqual(['jwt.secret'])
  expect(await keepSecret(file)).toBe(secrets[0])
})

test('a file that was cut short stops the start, and is left as it is', async () => {
  const file = join(dir, 'short.secret')
  await writeFile(file, 'too short\n')
  await chmod(file, 0o600)
  await expect(keepSecret(file)).rejects.toThrow(StartError)
  expect(await readFile(file, 'utf8')).toBe('too short\n')
})
