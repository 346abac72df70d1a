import { readdirSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { ConfigError, configNames, readConfig } from './config.ts'

const example = readFileSync(new URL('../.env.example', import.meta.url), 'utf8')
const compose = readFileSync(new URL('../docker-compose.yml', import.meta.url), 'utf8')
const documented = Array.from(example.matchAll(/^(?:# )?([A-Z][A-Z0-9_]+)=(.*)$/gm), ([, name, value]) => ({
  name: name!,
  value: value!,
}))

test('every setting is documented, and what is documented is read by the server or by compose', () => {
  const names = documented.map(({ name }) => name)
  expect(configNames.filter((name) => !names.includes(name))).toEqual([])
  expect(names.filter((name) => !configNames.includes(name) && !compose.includes(name) && name !== 'NODE_ENV')).toEqual([])
})

test('what the pages for people name is there, too', () => {
  const folder = new URL('../docs/', import.meta.url)
  const pages = [new URL('../README.md', import.meta.url), ...readdirSync(folder).map((file) => new URL(file, folder))]
  // These are of benchmarks and tests.
  const known = new Set([...documented.map(({ name }) => name), 'SERVER_FLAGS', 'MODEL_RUNS', 'UPDATE_DOCS'])
  let named = 0
  for (const page of pages.filter(({ pathname }) => pathname.endsWith('.md'))) {
    for (const [name] of readFileSync(page, 'utf8').matchAll(/\b[A-Z][A-Z0-9]*(_[A-Z0-9]+)+\b/g)) {
      named += 1
      expect(known.has(name) || compose.includes(name), `${name} in ${page.pathname}`).toBe(true)
    }
  }
  expect(named).toBeGreaterThan(10)
})

test('the documented defaults are the defaults', () => {
  const given = Object.fromEntries(
    documented.filter(({ name, value }) => configNames.includes(name) && value !== '').map(({ name, value }) => [name, value]),
  )
  expect(readConfig(given)).toEqual(readConfig({}))
})

test('an empty variable is an unset one', () => {
  expect(readConfig({ PORT: '', DATABASE_URL: '', METRICS_TOKEN: '' })).toEqual(readConfig({}))
})

test.each([
  ['PORT', '80a', /^PORT must be a whole number from 0 to 65535\.$/],
  ['PORT', '70000', /^PORT must be/],
  ['DATABASE_URL', 'mysql://x', /^DATABASE_URL must be a URL that starts with postgres:\/\/\.$/],
  ['REDIS_URL', 'localhost', /^REDIS_URL must be a URL/],
  ['JWT_SECRET', 'short', /^JWT_SECRET must be at least 32 characters\.$/],
  ['ACCESS_TOKEN_TTL', '1 hour', /^ACCESS_TOKEN_TTL must be a time such as/],
  ['ACCESS_TOKEN_TTL', '0s', /^ACCESS_TOKEN_TTL must be a time/],
  ['RATE_LIMIT_GENERAL', '100', /^RATE_LIMIT_GENERAL must be a limit such as 100\/1m, or off\.$/],
  ['RATE_LIMIT_GENERAL', '0/1m', /^RATE_LIMIT_GENERAL must be/],
  ['BCRYPT_COST', '40', /^BCRYPT_COST must be a whole number from 4 to 16\.$/],
  ['REGISTRATION', 'maybe', /^REGISTRATION must be open, invite or closed\.$/],
  ['OTP_SENDER', 'pigeon', /^OTP_SENDER must be log or webhook\.$/],
  ['OTP_SENDER', 'webhook', /^OTP_WEBHOOK_URL must be set when OTP_SENDER is webhook\.$/],
  ['OTP_WEBHOOK_URL', 'ftp://x', /^OTP_WEBHOOK_URL must be a URL/],
  ['LOG_LEVEL', 'loud', /^LOG_LEVEL must be/],
  ['PUBLIC_URL', 'ftp://x', /^PUBLIC_URL must be a URL/],
  ['METRICS_TOKEN', 'x', /^METRICS_TOKEN must be at least 8 characters\.$/],
])('%s=%s is refused by one line that names it', (name, value, line) => {
  const secret = name === 'DATABASE_URL' ? { JWT_SECRET: 'x'.repeat(32) } : {}
  expect(() => readConfig({ ...secret, [name]: value })).toThrow(ConfigError)
  expect(() => readConfig({ ...secret, [name]: value })).toThrow(line)
})

test('a database of its own needs a secret of its own', () => {
  expect(() => readConfig({ DATABASE_URL: 'postgres://x/y' })).toThrow(/^JWT_SECRET must be set/)
})

test('the public URL ends without a slash, so that links can be made of it', () => {
  expect(readConfig({ PUBLIC_URL: 'https://chat.example.com//' }).publicUrl).toBe('https://chat.example.com')
})

test('trusts no proxy, or those that are named', () => {
  expect(readConfig({}).trustProxy).toBe(false)
  expect(readConfig({ TRUST_PROXY: '1' }).trustProxy).toBe(1)
  expect(readConfig({ TRUST_PROXY: '10.0.0.1, 10.0.0.2' }).trustProxy).toEqual(['10.0.0.1', '10.0.0.2'])
})
