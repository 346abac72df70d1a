import { setTimeout as sleep } from 'node:timers/promises'
import { Disconnected, Refused } from '../client/client.ts'
import type { Account } from '../support/server.ts'
import { Device } from './device.ts'
import { perform } from './perform.ts'
import { type Action, type Script, seeded } from './script.ts'
import type { World } from './world.ts'

/** One run: fresh people and chats in a shared world, and what came of every action. */

export interface Outcome {
  /** `ok`, the code of the refusal, or `lost` where nobody knows. */
  result: string
  from: number
  until: number
}

export interface SendOutcome extends Outcome {
  chatId: string
  userId: string
  clientId: string
  content: string
  message: { id: string; seq: number } | undefined
  /** It was sent on from somewhere, with others perhaps. */
  isForward?: boolean
}

/** What was done to a message, and what came of it. */
export interface Deed extends Outcome {
  what: 'edit' | 'delete' | 'react' | 'unreact' | 'pin' | 'unpin' | 'forward'
  userId: string
  chatId: string
  seq: number
  messageId: string
  /** Of an edit: unlike any other. */
  content?: string | undefined
  emoji?: string | undefined
  /** Of a forward: where to, and as what. */
  to?: { chatIds: string[]; clientId: string } | undefined
}

export interface Person {
  account: Account
  devices: Device[]
}

export interface Run {
  world: World
  lossy: boolean
  people: Person[]
  devices: Device[]
  chats: string[]
  /** Those of them that are groups, and direct chats. */
  groups: string[]
  dms: string[]
  channels: string[]
  /** The code of a link into the first group. */
  invite: string
  /** Whose the direct chats are. */
  pairs: Map<string, [string, string]>
  sends: SendOutcome[]
  deeds: Deed[]
  /** Direct chats that somebody deleted for themselves, or tried to: "chat user". */
  cleared: Set<string>
  logouts: { device: string; account: Account; client: Device['client']; wasOpen: boolean }[]
  log: string[]
  step: number
  /** Work put off to a later step. */
  later: { step: number; work: () => void }[]
  texts: number
}

const peopleCount = 4

export async function start(world: World, script: Script): Promise<Run> {
  world.kind()
  world.random = seeded(script.seed)
  const { servers } = world
  const accounts = await Promise.all(Array.from({ length: peopleCount }, (_, n) => servers.register(`p${n}`)))
  const people: Person[] = await Promise.all(
    accounts.map(async (account, n) => {
      const devices = [new Device(world, `p${n}a`, account)]
      // Two of them have a second device.
      if (n < 2) devices.push(new Device(world, `p${n}b`, await servers.login(account, 1)))
      return { account, devices }
    }),
  )
  const [a, b, c] = accounts as [Account, Account, Account, Account]
  const dms = [await servers.dm(a, b), await servers.dm(b, c)]
  const groups = [await servers.group(a, [b, c], 'G0'), await servers.group(b, [accounts[3]!], 'G1')]
  const made = async <T>(path: string, body: object) => (await servers.call<T>('POST', path, { as: a, body })).body
  const { code } = await made<{ code: string }>(`/chats/${groups[0]}/invites`, {})
  const channels = script.channel ? [(await made<{ id: string }>('/channels', { name: 'C0' })).id] : []
  for (const id of channels) await servers.call('POST', `/channels/${id}/subscribe`, { as: b })
  const chats = [...dms, ...groups, ...channels]
  const devices = people.flatMap((person) => person.devices)
  const run: Run = {
    world,
    lossy: script.lossy,
    people,
    devices,
    chats,
    groups,
    dms,
    channels,
    invite: code,
    pairs: new Map([
      [dms[0]!, [a.id, b.id]],
      [dms[1]!, [b.id, c.id]],
    ]),
    sends: [],
    deeds: [],
    cleared: new Set(),
    logouts: [],
    log: [],
    step: 0,
    later: [],
    texts: 0,
  }
  await Promise.all(devices.map((device, n) => (n === 3 ? undefined : device.connect(n % 2))))
  return run
}

/** Nothing takes longer than this, unless it hangs. */
const longestMs = 12_000

export async function play(run: Run, script: Script): Promise<void> {
  const running = new Map<Promise<void>, string>()
  const settle = async () => {
    const hangs = setTimeout(() => fail(`never answered: ${[...running.values()].join('; ')}`), longestMs)
    await Promise.race([Promise.all(running.keys()), failed])
    clearTimeout(hangs)
  }
  const { promise: failed, reject } = Promise.withResolvers<never>()
  failed.catch(() => {})
  const fail = (why: string) => reject(new Error(why))
  for (const [n, { actions, settle: waits }] of script.steps.entries()) {
    run.step = n
    for (const { work } of run.later.filter((l) => l.step === n)) work()
    for (const action of actions) {
      const done = one(run, n, action).finally(() => running.delete(done))
      running.set(done, JSON.stringify(action))
    }
    if (waits || running.size > 8) await settle()
    else await sleep(2)
    for (const device of run.devices) device.lookAtTicks()
  }
  await settle()
  if (script.rush) await rush(run)
  run.world.kind()
  for (const { step, work } of run.later) if (step > run.step) work()
}

async function rush(run: Run): Promise<void> {
  const { devices, chats, world } = run
  for (const mine of world.mishaps) mine.slow = true
  for (const device of devices) device.disconnect()
  await sleep(5)
  const place = (n: number) => ({ device: Math.floor(world.random() * 1_000), chat: n, at: n % 2 })
  const talk = chats
    .flatMap((_, n) => [n, n + chats.length])
    .map(async (n) => {
      await sleep(world.random() * 60)
      await one(run, run.step, { do: 'send', rest: true, reply: undefined, call: undefined, ...place(n) })
    })
  await Promise.all([...talk, ...devices.map((device) => device.connect(Math.floor(world.random() * 2)))])
}

async function one(run: Run, n: number, action: Action): Promise<void> {
  const { do: what, ...rest } = action
  const line = `${n}: ${what} ${JSON.stringify(rest)}`
  try {
    const answer = await perform(run, action)
    run.log.push(`${line} -> ${answer}`)
  } catch (error) {
    if (error instanceof Refused || error instanceof Disconnected) run.log.push(`${line} -> ${error.message}`)
    else throw error
  }
}
