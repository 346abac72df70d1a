import { randomUUID } from 'node:crypto'
import type { Message } from '../../src/protocol/resources.ts'
import { Disconnected, Refused } from '../client/client.ts'
import { type Of, pick } from './acting.ts'
import type { Device } from './device.ts'
import type { Deed, Run, SendOutcome } from './run.ts'
import type { Action, RaceOp } from './script.ts'
import { sendAs, text } from './talking.ts'

/** What becomes of messages: every deed is written down with what came of it. */

type Life = Of<'edit' | 'delete' | 'react' | 'pin' | 'forward' | 'race' | 'call_and_remove'>

interface Target {
  id: string
  seq: number
  chatId: string
  senderId: string
}

const emojis = ['👍', '❤️', '🔥', '👀']

export async function live(run: Run, action: Life): Promise<string> {
  if (action.do === 'call_and_remove') return callAndRemove(run, action)
  const target = recent(run, pick(run.chats, action.chat), action.which)
  if (!target) return 'no message'
  const name = `${target.chatId.slice(-4)} #${target.seq} `
  return name + (await act(run, action, target))
}

async function act(run: Run, action: Exclude<Life, { do: 'call_and_remove' }>, target: Target): Promise<string> {
  const { at } = action
  if (action.do === 'race') return race(run, action, target)
  const device =
    'mine' in action && action.mine ? deviceOf(run, target.senderId, action.device) : pick(run.devices, action.device)
  switch (action.do) {
    case 'edit':
      return edit(run, device, target, at, action.rest, text(run, action.call))
    case 'delete':
      return erase(run, device, target, at, action.rest)
    case 'react': {
      const emoji = pick(emojis, action.emoji)
      // Their own message or another's: anybody reacts, from all their devices at once.
      const actor = pick(run.devices, action.device)
      const tries = [react(run, actor, target, at, action.rest, emoji, action.remove)]
      if (action.twice) {
        tries.push(react(run, actor, target, 1 - at, true, emoji, action.remove))
        for (const other of run.devices)
          if (other !== actor && other.userId === actor.userId)
            tries.push(react(run, other, target, at, false, emoji, action.remove))
      }
      return (await Promise.all(tries)).join(', ')
    }
    case 'pin': {
      const owner = action.actor === 'owner' ? await ownerOf(run, target.chatId) : undefined
      return pin(run, owner ? deviceOf(run, owner, 0) : device, target, at, action.remove)
    }
    case 'forward':
      return forward(run, device, target, at, [pick(run.chats, action.to), pick(run.chats, action.to + 1 + (action.to % 3))])
  }
}

/** One of the last few messages of the chat that somebody sent. */
function recent(run: Run, chatId: string, which: number): Target | undefined {
  const known = run.sends.filter((sent) => sent.chatId === chatId && sent.message)
  const found = known.at(-1 - (which % Math.max(1, Math.min(known.length, 6))))
  return found && targetOf(found)
}

const targetOf = ({ message, chatId, userId }: SendOutcome): Target => ({
  id: message!.id,
  seq: message!.seq,
  chatId,
  senderId: userId,
})

function deviceOf(run: Run, userId: string, n: number): Device {
  return pick(
    run.devices.filter((device) => device.userId === userId),
    n,
  )
}

async function ownerOf(run: Run, chatId: string): Promise<string | undefined> {
  const { rows } = await run.world.sql.query<{ owner_id: string | null }>('SELECT owner_id FROM chats WHERE id = $1', [chatId])
  return rows[0]?.owner_id ?? undefined
}

// --- one deed ----------------------------------------------------------------------------------------------------------

type Call = [method: string, path: string, body?: object]

/** Over the socket where there is one and it was asked for, else by REST. Resolves with the answer, or the code of the refusal. */
async function carryOut<T>(
  run: Run,
  device: Device,
  at: number,
  command: Record<string, unknown> | undefined,
  [method, path, body]: Call,
): Promise<{ result: string; answer?: T | undefined }> {
  if (command && device.isOpen) {
    try {
      return { result: 'ok', answer: (await device.client.ask(command)) as T }
    } catch (error) {
      if (error instanceof Refused) return { result: error.code }
      if (error instanceof Disconnected) return { result: 'lost' }
      throw error
    }
  }
  const as = run.people.find((person) => person.account.id === device.userId)!.account
  const answer = await run.world.servers.call<T>(method, path, { as, at, ...(body && { body }) })
  return answer.status < 400 ? { result: 'ok', answer: answer.body } : { result: String(answer.body.code) }
}

async function deed<T>(
  run: Run,
  device: Device,
  { id, seq, chatId }: Target,
  at: number,
  given: Pick<Deed, 'what' | 'content' | 'emoji' | 'to'>,
  command: Record<string, unknown> | undefined,
  call: Call,
): Promise<{ result: string; answer?: T | undefined }> {
  const from = Date.now()
  const done = await carryOut<T>(run, device, at, command, call)
  const { userId } = device
  run.deeds.push({ ...given, result: done.result, from, until: Date.now(), userId, chatId, seq, messageId: id })
  return done
}

async function edit(run: Run, device: Device, target: Target, at: number, byRest: boolean, content: string): Promise<string> {
  const path = `/messages/${target.id}`
  const command = byRest ? undefined : { type: 'edit', message_id: target.id, content }
  const call: Call = ['PATCH', path, { content }]
  return `${content} ${(await deed(run, device, target, at, { what: 'edit', content }, command, call)).result}`
}

async function erase(run: Run, device: Device, target: Target, at: number, byRest: boolean): Promise<string> {
  const command = byRest ? undefined : { type: 'delete', message_id: target.id }
  return (await deed(run, device, target, at, { what: 'delete' }, command, ['DELETE', `/messages/${target.id}`])).result
}

async function react(
  run: Run,
  device: Device,
  target: Target,
  at: number,
  byRest: boolean,
  emoji: string,
  remove: boolean,
): Promise<string> {
  const path = `/messages/${target.id}/reactions`
  const command = byRest ? undefined : { type: 'react', message_id: target.id, emoji, remove }
  const call: Call = remove ? ['DELETE', `${path}/${encodeURIComponent(emoji)}`] : ['POST', path, { emoji }]
  const what = remove ? 'unreact' : 'react'
  return (await deed(run, device, target, at, { what, emoji }, command, call)).result
}

async function pin(run: Run, device: Device, target: Target, at: number, remove: boolean): Promise<string> {
  const call: Call = [remove ? 'DELETE' : 'PUT', `/chats/${target.chatId}/pins/${target.id}`]
  return (await deed(run, device, target, at, { what: remove ? 'unpin' : 'pin' }, undefined, call)).result
}

/** What arrives is a message like any other: written down as a send, which may have come through wherever it was not answered. */
async function forward(run: Run, device: Device, target: Target, at: number, to: readonly string[]): Promise<string> {
  const chatIds = [...new Set(to)]
  const clientId = randomUUID()
  const from = Date.now()
  const call: Call = ['POST', `/messages/${target.id}/forward`, { chat_ids: chatIds, client_id: clientId }]
  const given = { what: 'forward' as const, to: { chatIds, clientId } }
  const { result, answer } = await deed<{ messages: Message[] }>(run, device, target, at, given, undefined, call)
  for (const [n, chatId] of chatIds.entries()) {
    const message = answer?.messages[n]
    const { userId } = device
    const sent = { from, until: Date.now(), chatId, userId, clientId, content: message?.content ?? text(run), message }
    run.sends.push({ result: result === 'ok' ? 'ok' : 'lost', isForward: true, ...sent })
  }
  return `to ${chatIds.map((id) => id.slice(-4)).join()} ${result}`
}

// --- several at once ---------------------------------------------------------------------------------------------------

async function race(run: Run, action: Of<'race'>, target: Target): Promise<string> {
  const owner = await ownerOf(run, target.chatId)
  const said = await Promise.all(
    action.ops.map(async (op, n) => `${op} ${await oneOf(run, op, target, owner, (action.at + n) % 2, action.device + n)}`),
  )
  return said.join(', ')
}

async function oneOf(run: Run, op: RaceOp, target: Target, owner: string | undefined, at: number, n: number): Promise<string> {
  const sender = deviceOf(run, target.senderId, n)
  const boss = owner === undefined ? sender : deviceOf(run, owner, n)
  const anybody = pick(run.devices, n)
  const byRest = n % 2 === 0
  switch (op) {
    case 'edit':
      return edit(run, sender, target, at, byRest, text(run))
    case 'call':
      return edit(run, sender, target, at, byRest, text(run, n))
    case 'delete':
      return erase(run, sender, target, at, byRest)
    case 'delete_as_owner':
      return erase(run, boss, target, at, byRest)
    case 'reply':
      return sendAs(run, anybody, target.chatId, at, byRest || !anybody.isOpen, { reply_to_id: target.id })
    case 'react':
    case 'unreact':
      return react(run, anybody, target, at, byRest, pick(emojis, n), op === 'unreact')
    case 'pin':
      return pin(run, boss, target, at, false)
    case 'forward':
      return forward(run, sender, target, at, [pick(run.chats, n), pick(run.chats, n + 1)])
    case 'expel': {
      const path = `/chats/${target.chatId}/members/${target.senderId}`
      return (await carryOut(run, boss, at, undefined, ['DELETE', path])).result
    }
  }
}

/** In the channel, where there is one. */
export async function post(run: Run, { device, at, which, emoji, remove }: Of<'post'>): Promise<string> {
  const [channel] = run.channels
  if (channel === undefined) return 'no channel'
  const owner = run.people[0]!.devices[0]!
  const said = await sendAs(run, owner, channel, at, true, {})
  const target = recent(run, channel, which)
  const reader = pick(run.devices, device)
  return `${said} ${target && (await react(run, reader, target, 1 - at, which % 2 === 0, pick(emojis, emoji), remove))}`
}

async function callAndRemove(run: Run, { chat, target, device, at, rest }: Action & { do: 'call_and_remove' }): Promise<string> {
  const chatId = pick(run.groups, chat)
  const owner = await ownerOf(run, chatId)
  const person = pick(run.people, target)
  if (owner === undefined) return 'nobody owns it'
  const from = pick(run.devices, device)
  const boss = deviceOf(run, owner, 0)
  const [said, result] = await Promise.all([
    sendAs(run, from, chatId, at, rest || !from.isOpen, { content: text(run, run.people.indexOf(person)) }),
    carryOut(run, boss, 1 - at, undefined, ['DELETE', `/chats/${chatId}/members/${person.account.id}`]),
  ])
  // It still names them, or never did.
  const sent = run.sends.findLast((send) => send.userId === from.userId && send.chatId === chatId && send.message)
  const edited = sent && target % 2 === 0 ? await edit(run, from, targetOf(sent), at, rest, text(run)) : 'left so'
  return `${said}, removed: ${result.result}, ${edited}`
}
