/** The files a box is run with, each by a validator or by the program itself. No container engine is needed. */
import { execFileSync, spawnSync } from 'node:child_process'
import { chmodSync, copyFileSync, existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { isIPv4 } from 'node:net'
import { join } from 'node:path'
import { Ajv } from 'ajv'
import { validate } from 'dockerfile-utils'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { openEmbedded } from '../src/platform/db/embedded.ts'
import { composeText, readCompose } from './support/compose.ts'
import { freePort } from './support/redis.ts'
import { ensureTool, root, scratch, start } from './support/tools.ts'

const secrets = { POSTGRES_PASSWORD: 'p'.repeat(64), JWT_SECRET: 'j'.repeat(64), TURN_SECRET: 't'.repeat(64) }
const compose = readCompose({ ...secrets, DOMAIN: 'chat.example.com' })
const services = Object.entries(compose.services)

let dir: string
let remove: () => Promise<void>
beforeAll(async () => {
  ensureTool('shellcheck', 'shellcheck')
  ensureTool('caddy', 'caddy')
  ensureTool('redis-server', 'redis-server')
  ;({ dir, remove } = await scratch('deploy'))
}, 360_000)
afterAll(() => remove?.())

describe('docker-compose.yml', () => {
  it('follows the compose specification', () => {
    const schema = JSON.parse(readFileSync(join(root, 'node_modules/dclint/schemas/compose.schema.json'), 'utf8'))
    // Ajv knows draft-07 by its older name alone.
    const { $schema: _, ...body } = schema
    const check = new Ajv({ strict: false, allErrors: true, validateFormats: false }).compile(body)
    expect(check(parse(composeText)) ? [] : check.errors).toEqual([])
    expect(check({ services: { api: { imag: 'x' } } })).toBe(false)
  })

  it('caps the memory of its five services', () => {
    expect(Object.fromEntries(services.map(([name, { mem_limit }]) => [name, mem_limit]))).toEqual({
      api: '1g',
      postgres: '800m',
      redis: '300m',
      caddy: '200m',
      coturn: '200m',
    })
  })

  it('publishes the server on loopback, Caddy and coturn to the world, and nothing else', () => {
    expect(Object.fromEntries(services.map(([name, { ports }]) => [name, ports]))).toEqual({
      api: ['127.0.0.1:8080:8080'],
      postgres: undefined,
      redis: undefined,
      caddy: ['80:80', '443:443', '443:443/udp'],
      coturn: ['0.0.0.0:3478:3478', '0.0.0.0:3478:3478/udp', '0.0.0.0:49160-49259:49160-49259/udp'],
    })
    const relay = readFileSync(join(root, 'turnserver.conf'), 'utf8')
    expect(relay).toMatch(/^min-port=49160$/m)
    expect(relay).toMatch(/^max-port=49259$/m)
    expect(relay).toMatch(/^listening-port=3478$/m)
  })

  it.each(services)('%s has a pinned image, a health check, a restart policy and bounded logs', (_name, service) => {
    expect(service.image).toMatch(/^[\w./-]+:[\w.-]*(\d+\.\d+|local)/)
    expect(service.image).not.toContain('latest')
    expect(service.healthcheck.test[0]).toBe('CMD')
    expect(service.restart).toBe('unless-stopped')
    expect(service.logging.options).toEqual({ 'max-size': '10m', 'max-file': '3' })
  })

  it('holds no secret and starts with none missing', () => {
    for (const name of Object.keys(secrets)) {
      expect(() => readCompose({ ...secrets, [name]: '' })).toThrow(`${name}: run deploy/setup.sh first`)
    }
    // Wherever a password or secret is set, it is set from a variable.
    const settings = [...composeText.matchAll(/(PASSWORD|SECRET|TOKEN|secret)(?:: |=)(\S+)/g)]
    expect(settings.length).toBeGreaterThan(3)
    for (const [, , value] of settings) expect(value).toMatch(/^\$\{/)
    expect(composeText).toContain(`parley:\${POSTGRES_PASSWORD:?`)
  })

  it('trusts exactly the address that Caddy has, which nobody else can be given', () => {
    for (const env of [{ SUBNET: '' }, { SUBNET: '172.30.9' }]) {
      const { services, networks } = readCompose({ ...secrets, ...env })
      const caddy = (services.caddy!.networks as Record<string, { ipv4_address: string }>).edge!.ipv4_address
      expect(isIPv4(caddy)).toBe(true)
      expect(services.api!.environment!.TRUST_PROXY).toBe(caddy)
      const [config] = networks.edge!.ipam!.config
      const net = caddy.slice(0, caddy.lastIndexOf('.'))
      expect(config).toMatchObject({ subnet: `${net}.0/25`, ip_range: `${net}.64/26` })
      expect(Number(caddy.split('.')[3])).toBeLessThan(64)
    }
  })

  it('keeps the databases where only the server reaches them, and no way out', () => {
    const on = (network: string) =>
      services
        .filter(([, { networks }]) => [networks].flat().some((n) => n === network || (n as object)[network as never]))
        .map(([name]) => name)
    expect(compose.networks.backend).toEqual({ internal: true })
    expect(on('backend')).toEqual(['api', 'postgres', 'redis'])
    expect(on('edge')).toEqual(['api', 'caddy'])
    expect(on('turn')).toEqual(['coturn'])
  })

  it('mounts only files that are there', () => {
    const files = services.flatMap(([, { volumes = [] }]) => volumes).filter((volume) => volume.startsWith('./'))
    expect(files.map((file) => file.split(':')[0])).toEqual(['./Caddyfile', './turnserver.conf'])
    for (const file of files) expect(existsSync(join(root, file.split(':')[0]!))).toBe(true)
  })

  it('gives PostgreSQL settings that it takes', async () => {
    const { command, environment } = compose.services.postgres!
    const settings = Object.fromEntries(
      command!.slice(1).map((argument) => argument.replace(/^-c/, '').split('=') as [string, string]),
    )
    expect(environment!.POSTGRES_INITDB_ARGS).toContain('--builtin-locale=C.UTF-8')
    const quiet = { info: () => undefined, debug: () => undefined, warn: () => undefined }
    const database = await openEmbedded({ dataDir: join(dir, 'postgres'), log: quiet, settings })
    const client = new pg.Client(database.connection)
    try {
      await client.connect()
      const { rows } = await client.query(`SELECT name, current_setting(name) AS value FROM pg_settings WHERE name = ANY($1)`, [
        Object.keys(settings),
      ])
      const same = (value: string) => value.replace(/^1min$/, '60s')
      expect(Object.fromEntries(rows.map(({ name, value }) => [name, same(value)]))).toEqual(settings)
    } finally {
      await client.end()
      await database.close()
    }
  })

  it('gives Redis a command line that it takes', async () => {
    const port = await freePort()
    const own = ['--port', `${port}`, '--bind', '127.0.0.1', '--dir', dir]
    const redis = await start('redis-server', [...compose.services.redis!.command!.slice(1), ...own], {
      ready: /Ready to accept connections/,
    })
    try {
      const get = (name: string) =>
        execFileSync('redis-cli', ['-p', `${port}`, 'config', 'get', name], { encoding: 'utf8' }).split('\n')[1]
      expect([get('maxmemory'), get('maxmemory-policy'), get('save'), get('appendonly')]).toEqual([
        `${220 * 2 ** 20}`,
        'noeviction',
        '',
        'no',
      ])
      expect(get('client-output-buffer-limit')).toContain(`pubsub ${32 * 2 ** 20} ${16 * 2 ** 20} 30`)
    } finally {
      await redis.stop()
    }
  })
})

describe('deploy/Dockerfile', () => {
  const text = readFileSync(join(root, 'deploy/Dockerfile'), 'utf8')

  it('has no problem that the validator knows', () => {
    expect(validate(text)).toEqual([])
    expect(validate('FROM node\nCOPYY a b')).not.toEqual([])
  })

  it('copies what is there, and nothing that .dockerignore keeps out', () => {
    const ignore = readFileSync(join(root, '.dockerignore'), 'utf8').split('\n')
    const copied = [...text.matchAll(/^COPY (?!--from)(.+) \S+$/gm)].flatMap(([, sources]) => sources!.split(' '))
    expect(copied).toEqual(['package.json', 'package-lock.json', 'package.json', 'migrations', 'src'])
    for (const source of copied) {
      expect(existsSync(join(root, source))).toBe(true)
      expect(ignore).toContain(`!${source}`)
    }
  })

  it('runs as somebody else than root and can be watched and stopped', () => {
    expect(text.lastIndexOf('\nUSER node\n')).toBeGreaterThan(text.lastIndexOf('\nRUN '))
    for (const line of [/^STOPSIGNAL SIGTERM$/m, /\/health\/live/, /^CMD \["node", ("--[^"]+", )*"src\/main\.ts"\]$/m])
      expect(text).toMatch(line)
  })
})

describe('deploy/setup.sh', () => {
  const run = (...args: string[]) => spawnSync('sh', [join(dir, 'box/deploy/setup.sh'), ...args], { encoding: 'utf8' })
  const read = () => readFileSync(join(dir, 'box/.env'), 'utf8')

  beforeAll(() => {
    mkdirSync(join(dir, 'box/deploy'), { recursive: true })
    copyFileSync(join(root, 'deploy/setup.sh'), join(dir, 'box/deploy/setup.sh'))
    copyFileSync(join(root, '.env.example'), join(dir, 'box/.env.example'))
  })

  it('pleases shellcheck, as the CI script does', () => {
    const check = spawnSync('shellcheck', ['deploy/setup.sh', '.ci/run'], { cwd: root, encoding: 'utf8' })
    expect(check.stdout).toBe('')
    expect(check.status).toBe(0)
  })

  it('makes a .env with which the stack is complete, for its owner alone', () => {
    expect(run('chat.example.com').status).toBe(0)
    const env = Object.fromEntries(
      read()
        .split('\n')
        .filter((line) => /^\w+=./.test(line))
        .map((line) => line.split('=') as [string, string]),
    )
    expect(Object.keys(env).sort()).toEqual(['DOMAIN', 'JWT_SECRET', 'METRICS_TOKEN', 'POSTGRES_PASSWORD', 'TURN_SECRET'])
    expect(env.DOMAIN).toBe('chat.example.com')
    const made = [env.JWT_SECRET, env.METRICS_TOKEN, env.POSTGRES_PASSWORD, env.TURN_SECRET]
    for (const secret of made) expect(secret).toMatch(/^[0-9a-f]{64}$/)
    expect(new Set(made).size).toBe(4)
    expect(() => readCompose(env)).not.toThrow()
    expect(statSync(join(dir, 'box/.env')).mode & 0o777).toBe(0o600)
  })

  it('changes nothing the second time, not even for another domain', () => {
    const before = read()
    expect(run().status).toBe(0)
    expect(run('other.example.com').stderr).toContain('DOMAIN in .env is another one')
    expect(read()).toBe(before)
  })

  it('keeps what somebody wrote, adds what is missing, closes the file to others', () => {
    writeFileSync(join(dir, 'box/.env'), 'LOG_LEVEL=debug\nJWT_SECRET=my own, & with / odd \\ signs')
    chmodSync(join(dir, 'box/.env'), 0o644)
    expect(run().status).toBe(0)
    expect(read()).toMatch(
      /^LOG_LEVEL=debug\nJWT_SECRET=my own, & with \/ odd \\ signs\nPOSTGRES_PASSWORD=\w{64}\nTURN_SECRET=\w{64}\nMETRICS_TOKEN=\w{64}\n$/,
    )
    expect(statSync(join(dir, 'box/.env')).mode & 0o777).toBe(0o600)
    expect(run('not a name').status).toBe(2)
  })
})

it('Caddyfile: Caddy finds it valid', () => {
  const check = spawnSync('caddy', ['validate', '--config', 'Caddyfile', '--adapter', 'caddyfile'], {
    cwd: root,
    encoding: 'utf8',
    env: { PATH: process.env.PATH, HOME: dir },
  })
  expect(check.stderr + check.stdout).toContain('Valid configuration')
  expect(check.status).toBe(0)
})
