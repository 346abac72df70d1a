/** turnserver.conf in a real coturn, with the command line of docker-compose.yml; everything stays on loopback. */
import { spawn, spawnSync } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { readFile, writeFile } from 'node:fs/promises'
import { networkInterfaces } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { readCompose } from './support/compose.ts'
import { freePort } from './support/redis.ts'
import { ensureTool, type Running, root, scratch, start } from './support/tools.ts'
import { openTurn, type Turn, turnCredentials } from './support/turn.ts'

const secret = 'the secret of this test'.replaceAll(' ', '-')
/** An address for documentation: coturn says that it is there, and no packet ever goes to it. */
const external = '203.0.113.77'
const hasIPv6 = Object.values(networkInterfaces())
  .flat()
  .some((address) => address?.address === '::1')

let dir: string
let remove: () => Promise<void>
let port: number
let coturn: Running
const clients: Turn[] = []

/** coturn as compose starts it, with loopback for its container's address. */
async function startCoturn(): Promise<void> {
  const box = readCompose({ TURN_SECRET: secret, POSTGRES_PASSWORD: 'x', JWT_SECRET: 'x', TURN_EXTERNAL_IP: external }).services
    .coturn!
  const address = (box.networks as Record<string, { ipv4_address: string }>).turn!.ipv4_address
  const args = box.command!.map((argument) => argument.replaceAll(address, '127.0.0.1'))
  const config = join(dir, 'turnserver.conf')
  const scratchFiles = [`userdb=${join(dir, 'users.db')}`, `pidfile=${join(dir, 'turnserver.pid')}`]
  const own = ['allow-loopback-peers', ...(hasIPv6 ? ['relay-ip=::1'] : [])]
  await writeFile(config, [await readFile(join(root, 'turnserver.conf'), 'utf8'), ...scratchFiles, ...own, ''].join('\n'))
  const probe = await openTurn(port)
  clients.push(probe)
  coturn = await start('turnserver', ['-c', config, `--listening-port=${port}`, ...args], { cwd: dir, ready: probe.ping })
}

async function client(port: number, credentials: ReturnType<typeof turnCredentials>): Promise<Turn> {
  const turn = await openTurn(port, credentials)
  clients.push(turn)
  return turn
}

beforeAll(async () => {
  ensureTool('turnserver', 'coturn')
  ;({ dir, remove } = await scratch('turn'))
  port = await freePort()
  await startCoturn()
}, 360_000)

afterAll(async () => {
  for (const turn of clients) turn.close()
  await coturn?.stop()
  await remove?.()
})

it('relays for the credentials that the server makes', async () => {
  const echo = createSocket('udp4')
  echo.on('message', (data, from) => echo.send(data, from.port, from.address))
  echo.bind(0, '127.0.0.1')
  await once(echo, 'listening')
  try {
    const { username, credential } = turnCredentials(secret, '0190b5a0-0000-7000-8000-000000000001')
    const relay = await runClient(username, credential, echo.address().port)
    expect(relay.output).toContain('Total lost packets 0 ')
    expect(relay.status).toBe(0)
    const refused = await runClient(username, turnCredentials('another secret', 'x').credential, echo.address().port)
    expect(refused.output).toContain('Cannot complete Allocation')
    expect(refused.status).not.toBe(0)
  } finally {
    echo.close()
  }
})

/** coturn's own client: sends three packets through the relay to the echo and counts what comes back. */
async function runClient(username: string, credential: string, echoPort: number) {
  const args = [
    '-p',
    `${port}`,
    '-u',
    username,
    '-w',
    credential,
    '-e',
    '127.0.0.1',
    '-r',
    `${echoPort}`,
    '-n',
    '3',
    '-m',
    '1',
    '-c',
    '127.0.0.1',
  ]
  const child = spawn('turnutils_uclient', args, { timeout: 15_000 })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += chunk))
  const [status] = await once(child, 'close')
  return { status, output }
}

it('refuses a wrong secret and an expired name', async () => {
  expect(await (await client(port, turnCredentials('wrong', 'eve'))).allocate()).toEqual({ error: 401 })
  expect(await (await client(port, turnCredentials(secret, 'eve', -5))).allocate()).toEqual({ error: 401 })
})

it('tells the world the address of the box, and lets two who both need the relay meet there', async () => {
  const turn = await client(port, turnCredentials(secret, 'alice'))
  expect(await turn.allocate()).toEqual({ error: 0, relayed: external })
  expect(await turn.permit(external)).toBe(0)

  // That address alone stands for the container's own: what is beside it, on either side, stays denied.
  for (const neighbour of ['203.0.113.78', '127.0.0.2', '127.0.0.130']) expect(await turn.permit(neighbour)).toBe(403)
})

describe('peers', () => {
  const denied = [
    ['0.0.0.0', '0.255.255.255', '10.0.0.0', '10.255.255.255', '100.64.0.0', '100.127.255.255', '127.0.0.2', '127.255.255.255'],
    ['169.254.0.0', '169.254.169.254', '172.16.0.0', '172.31.255.255', '192.168.0.0', '192.168.255.255', '198.18.0.1'],
    ['224.0.0.1', '239.255.255.255', '240.0.0.1', '255.255.255.255'],
  ].flat()
  // Just outside of the ranges, and somewhere else.
  const allowed = [
    '1.1.1.1',
    '9.255.255.255',
    '11.0.0.0',
    '100.63.255.255',
    '100.128.0.0',
    '172.15.255.255',
    '172.32.0.0',
    '192.167.255.255',
    '192.169.0.0',
  ]
  const denied6 = [
    '::',
    '::1',
    '::ffff:10.0.0.1',
    '::ffff:8.8.8.8',
    'fc00::1',
    'fdff::1',
    'fe80::1',
    'febf::1',
    'ff02::1',
    '64:ff9b::a00:1',
    '2002:a00:1::1',
    '2001::1',
    '2001:db8::1',
  ]
  const allowed6 = ['2606:4700::1', '2a00::1']

  it('in private networks are refused, others are not', async () => {
    const turn = await client(port, turnCredentials(secret, 'carol'))
    expect(await turn.allocate()).toMatchObject({ error: 0 })
    const answers: Record<string, number> = {}
    for (const address of [...denied, ...allowed]) answers[address] = await turn.permit(address)
    const expected = [...denied.map((address) => [address, 403]), ...allowed.map((address) => [address, 0])]
    expect(answers).toEqual(Object.fromEntries(expected))
  })

  it('by IPv6 likewise', async () => {
    // Without IPv6 on this machine there is no such relay, which is as good.
    const turn = await client(port, turnCredentials(secret, 'dave'))
    const { error } = await turn.allocate(6)
    if (!hasIPv6) return expect(error).toBe(440)
    expect(error).toBe(0)
    const answers: Record<string, number> = {}
    for (const address of [...denied6, ...allowed6]) answers[address] = await turn.permit(address)
    const expected = [...denied6.map((address) => [address, 403]), ...allowed6.map((address) => [address, 0])]
    expect(answers).toEqual(Object.fromEntries(expected))
  })
})

it('compose asks coturn for its health in a way that tells up from down', async () => {
  const { healthcheck } = readCompose({ TURN_SECRET: secret, POSTGRES_PASSWORD: 'x', JWT_SECRET: 'x' }).services.coturn!
  const [, command, ...args] = healthcheck.test
  const ask = (port: number) =>
    spawnSync(
      command!,
      args.map((arg) => arg.replace(/^3478$/, `${port}`).replace(/^10\.231.*/, '127.0.0.1')),
      { timeout: 1_000 },
    ).status
  expect(ask(port)).toBe(0)
  expect(ask(await freePort())).not.toBe(0)
})
