import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Message } from '../../src/protocol/resources.ts'
import { rest } from './process.ts'
import { type Frame, Wire } from './wire.ts'

/** Clients that send as fast as they can while the server is being mistreated, and remember what they were told. */

export interface Sent {
  client_id: string
  chat_id: string
  token: string
  content: string
  /** Which connection it went over, and its place on it; sends over REST have no order among each other. */
  line: string
  place: number
  /** `unknown`: no answer came. */
  outcome: 'acknowledged' | 'refused' | 'unknown'
  message?: Pick<Message, 'id' | 'seq'>
  /** The statuses that it was answered with over REST. */
  statuses: number[]
}

let lines = 0

function note(log: Sent[], chat_id: string, token: string, line: string, place: number): Sent {
  const sent: Sent = {
    client_id: randomUUID(),
    chat_id,
    token,
    content: `${line} ${place}`,
    line,
    place,
    outcome: 'unknown',
    statuses: [],
  }
  log.push(sent)
  return sent
}

function judge(sent: Sent, answer: { message?: unknown; refused?: boolean }): void {
  if (answer.message) {
    sent.outcome = 'acknowledged'
    sent.message = answer.message as Message
  } else if (answer.refused) sent.outcome = 'refused'
}

/** Over WebSocket without waiting for answers, at most 50 ahead of them. Resolves with the close code once the server is gone. */
export async function sendOverSocket(
  url: string,
  log: Sent[],
  chat_id: string,
  token: string,
  going: () => boolean,
): Promise<number> {
  lines += 1
  const line = `socket${lines}`
  const wire = new Wire(url, `/ws?token=${token}`)
  const mine = new Map<string, Sent>()
  wire.socket.on('message', (data) => {
    const frame = JSON.parse(String(data)) as Frame
    const sent = mine.get(String(frame.id))
    if (!sent) return
    judge(sent, { message: frame.message, refused: frame.type === 'error' && frame.code !== 'unavailable' })
    mine.delete(sent.client_id)
  })
  await wire.opened.catch(() => {})
  for (let place = 0; going() && wire.code === undefined && wire.socket.readyState === 1; ) {
    while (mine.size < 50) {
      const sent = note(log, chat_id, token, line, place)
      mine.set(sent.client_id, sent)
      wire.send({ type: 'message', id: sent.client_id, chat_id, client_id: sent.client_id, content: sent.content })
      place += 1
    }
    await sleep(1)
  }
  if (wire.code === undefined && going()) await wire.closed().catch(() => {})
  return new Promise((resolve) => {
    const done = () => resolve(wire.code ?? 0)
    if (wire.code !== undefined || wire.socket.readyState !== 1) return done()
    wire.socket.once('close', done)
    // Those who stopped by themselves take their answers with them.
    const waiting = setInterval(() => {
      if (mine.size > 0) return
      clearInterval(waiting)
      wire.socket.close()
    }, 5)
  })
}

/** Over REST, `width` at once. Resolves when the server answers no more, or `going` says no. */
export async function sendOverRest(
  url: string,
  log: Sent[],
  chat_id: string,
  token: string,
  going: () => boolean,
  width = 8,
): Promise<void> {
  lines += 1
  const line = `rest${lines}`
  let place = 0
  await Promise.all(
    Array.from({ length: width }, async () => {
      while (going()) {
        place += 1
        const sent = note(log, chat_id, token, line, place)
        try {
          await post(url, sent)
        } catch {
          return
        }
        if (sent.outcome === 'unknown') await sleep(20)
      }
    }),
  )
}

/** Sends it, or sends it again. Rejects when no answer came. Resolves with the status. */
export async function post(url: string, sent: Sent): Promise<number> {
  const { client_id, chat_id, content, token } = sent
  const { status, body } = await rest<Message>(url, 'POST', '/messages', { token, body: { client_id, chat_id, content } })
  sent.statuses.push(status)
  judge(sent, status === 200 || status === 201 ? { message: body } : { refused: status < 500 })
  return status
}

/** Every message of a chat, by pages from the first. */
export async function everything(url: string, token: string, chat_id: string): Promise<Message[]> {
  const all: Message[] = []
  for (let after = 0; ; after = all.at(-1)!.seq) {
    const { body } = await rest<{ messages: Message[]; has_more: boolean }>(
      url,
      'GET',
      `/chats/${chat_id}/messages?limit=100&after=${after}`,
      { token },
    )
    all.push(...body.messages)
    if (!body.has_more) return all
  }
}

/** What is wrong with a chat's history by what its senders were told; empty when nothing is. */
export function faults(log: readonly Sent[], history: readonly Message[]): string[] {
  const wrong: string[] = []
  const found = Map.groupBy(history, (message) => message.client_id)
  for (const [n, message] of history.entries()) if (message.seq !== n + 1) wrong.push(`seq ${message.seq} at place ${n + 1}`)
  for (const sent of log) {
    const there = found.get(sent.client_id) ?? []
    if (there.length > 1) wrong.push(`${sent.content} is there ${there.length} times`)
    if (sent.outcome === 'refused' && there.length > 0) wrong.push(`${sent.content} was refused and is there`)
    if (sent.outcome !== 'acknowledged') continue
    const [message] = there
    if (!message) wrong.push(`${sent.content} was acknowledged and is lost`)
    else if (message.id !== sent.message!.id || message.seq !== sent.message!.seq || message.content !== sent.content)
      wrong.push(`${sent.content} was acknowledged as another message`)
  }
  for (const [line, all] of Map.groupBy(log, (sent) => sent.line)) {
    if (!line.startsWith('socket')) continue
    // What was sent again over REST has lost its place.
    const first = all.filter((sent) => sent.outcome === 'acknowledged' && sent.statuses.length === 0)
    const seqs = first.map((sent) => found.get(sent.client_id)?.[0]?.seq ?? 0)
    if (seqs.some((seq, n) => n > 0 && seq <= seqs[n - 1]!)) wrong.push(`${line} is out of order`)
  }
  return wrong
}
