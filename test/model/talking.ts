import { randomUUID } from 'node:crypto'
import type { Message } from '../../src/protocol/resources.ts'
import { Disconnected, Refused } from '../client/client.ts'
import { type Of, pick, rest, who } from './acting.ts'
import type { Device } from './device.ts'
import type { Run, SendOutcome } from './run.ts'

/** Sends and cursors: every send is written down with what came of it. */

export async function send(run: Run, { device, chat, at, rest: byRest, reply, call }: Of<'send'>): Promise<string> {
  const from = pick(run.devices, device)
  const chatId = pick(run.chats, chat)
  const known = run.sends.filter((s) => s.chatId === chatId && s.message)
  const replyTo = reply === undefined || known.length === 0 ? undefined : pick(known, reply).message!.id
  return sendAs(run, from, chatId, at, byRest || !from.isOpen, { reply_to_id: replyTo, content: text(run, call) })
}

/** The same client_id at once, over both instances and from all devices of the user. */
export async function sendTwice(run: Run, { device, chat, at }: Of<'send_twice'>): Promise<string> {
  const from = pick(run.devices, device)
  const mine = run.devices.filter((d) => d.userId === from.userId)
  const same = { client_id: randomUUID(), content: text(run) }
  const chatId = pick(run.chats, chat)
  const tries = [sendAs(run, from, chatId, at, !from.isOpen, same), sendAs(run, from, chatId, 1 - at, true, same)]
  for (const other of mine) if (other !== from && other.isOpen) tries.push(sendAs(run, other, chatId, at, false, same))
  return (await Promise.all(tries)).join(', ')
}

export async function sendAgain(run: Run, { which, at }: Of<'send_again'>): Promise<string> {
  const mine = run.sends.filter((sent) => !sent.isForward)
  if (mine.length === 0) return 'nothing to repeat'
  const { chatId, clientId, content, userId } = pick(mine, which)
  const from = run.devices.find((d) => d.userId === userId)!
  return sendAs(run, from, chatId, at, true, { client_id: clientId, content })
}

/** Unlike any other; perhaps it calls somebody by name, who may be a stranger in the chat. */
export const text = (run: Run, call?: number) => {
  run.texts += 1
  if (call === undefined) return `text ${run.texts}.`
  const { username } = pick(run.people, call).account
  return `text ${run.texts}. @${call % 3 === 0 ? username.toUpperCase() : username}`
}

export async function sendAs(
  run: Run,
  device: Device,
  chatId: string,
  at: number,
  byRest: boolean,
  {
    client_id = randomUUID(),
    content = text(run),
    reply_to_id,
  }: Partial<Record<'client_id' | 'content' | 'reply_to_id', string | undefined>>,
): Promise<string> {
  const { userId } = device
  const from = Date.now()
  const extra = reply_to_id === undefined ? {} : { reply_to_id }
  let result = 'ok'
  let message: Message | undefined
  if (byRest) {
    const as = run.people.find((person) => person.account.id === userId)!.account
    const answer = await run.world.servers.call<Message>('POST', '/messages', {
      as,
      at,
      body: { chat_id: chatId, content, client_id, ...extra },
    })
    if (answer.status < 400) message = answer.body
    else result = String(answer.body.code)
  } else {
    try {
      message = await device.client.send(chatId, content, client_id, extra)
    } catch (error) {
      if (!(error instanceof Refused) && !(error instanceof Disconnected)) throw error
      result = error instanceof Refused ? error.code : 'lost'
    }
  }
  const outcome: SendOutcome = { result, from, until: Date.now(), chatId, userId, clientId: client_id, content, message }
  run.sends.push(outcome)
  return `${content} ${chatId.slice(-4)} ${message ? `#${message.seq}` : result}`
}

export async function moveCursor(run: Run, action: Of<'read' | 'delivered'>): Promise<string> {
  const device = pick(run.devices, action.device)
  const chatId = pick(run.chats, action.chat)
  // Around the last message that this device knows: backwards, and beyond the end.
  const seq = Math.max(0, (device.client.state.chats.get(chatId)?.lastSeq ?? 3) - action.back)
  if (action.rest && action.do === 'read') {
    return rest(run, 'POST', `/chats/${chatId}/read`, who(run, action), action.at, action.back === 6 ? {} : { seq })
  }
  if (!device.isOpen) return 'not connected'
  await device.client.ask({ type: action.do, chat_id: chatId, ...(action.back !== 6 && { seq }) })
  return `${chatId.slice(-4)} up to ${seq}`
}
