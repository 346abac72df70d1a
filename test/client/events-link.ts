import type { ServerEvent } from '../../src/protocol/events.ts'
import { type Answered, type Command, Disconnected, type OpenLink, Refused } from './link.ts'

/** The way of a client without WebSocket: events from `GET /events`, commands by REST. */

/** One event of a stream (WHATWG HTML, 9.2): fields it does not have are undefined. */
export interface StreamEvent {
  id?: string
  event?: string
  data?: string
  retry?: string
  /** Lines that begin with a colon. */
  comment?: string
}

/** The events of a stream, each as its last line has come. */
export async function* eventsOf(body: ReadableStream<Uint8Array>): AsyncGenerator<StreamEvent> {
  let rest = ''
  for await (const text of body.pipeThrough(new TextDecoderStream() as unknown as TransformStream<Uint8Array, string>)) {
    const blocks = (rest + text).split('\n\n')
    rest = blocks.pop()!
    for (const block of blocks) {
      const event: Record<string, string> = {}
      for (const line of block.split('\n')) {
        const at = line.indexOf(':')
        event[line.slice(0, at) || 'comment'] = line.slice(at + 1).replace(/^ /, '')
      }
      yield event
    }
  }
}

/** What the refusal of a stream would have been as a close code. */
const closeCodes: Record<string, number> = { token_expired: 4003, unauthorized: 4001, invalid_token: 4001, session_ended: 4001 }

export const openEvents: OpenLink = (url, token, listener) => {
  const cut = new AbortController()
  const authorization = `Bearer ${token}`
  let isOpen = false
  let why = ''

  async function call(method: string, path: string, body?: object): Promise<Answered> {
    let response: Response
    let answer: Answered
    try {
      const headers = { authorization, ...(body && { 'content-type': 'application/json' }) }
      response = await fetch(`${url}/api/v1${path}`, {
        method,
        headers,
        signal: cut.signal,
        ...(body && { body: JSON.stringify(body) }),
      })
      answer = (await response.json()) as Answered
    } catch (error) {
      throw new Disconnected(cut.signal.aborted ? why : String(error))
    }
    if (!response.ok) throw new Refused(String(answer.code), String(answer.error))
    return answer
  }

  /** The message that has this place, or the last one. */
  async function messageAt(chatId: unknown, seq: unknown): Promise<unknown> {
    const before = seq === undefined ? '' : `&before=${Number(seq) + 1}`
    const { messages } = await call('GET', `/chats/${chatId}/messages?limit=1${before}`)
    return (messages as { id: string }[]).at(-1)?.id
  }

  /** The twin of each command. */
  async function ask({ type, ...fields }: Command): Promise<Answered> {
    const { chat_id, message_id, content, emoji, remove, seq, is_typing } = fields
    switch (type) {
      case 'message':
        return { message: await call('POST', '/messages', fields) }
      case 'edit':
        return { message: await call('PATCH', `/messages/${message_id}`, { content }) }
      case 'delete':
        return call('DELETE', `/messages/${message_id}`)
      case 'react':
        if (remove !== true) return call('POST', `/messages/${message_id}/reactions`, { emoji })
        return call('DELETE', `/messages/${message_id}/reactions/${encodeURIComponent(String(emoji))}`)
      case 'typing':
        return call('POST', `/chats/${chat_id}/typing`, { is_typing })
      case 'read':
        return call('POST', `/chats/${chat_id}/read`, { seq })
      case 'delivered':
        return call('POST', '/messages/status', { message_id: await messageAt(chat_id, seq), status: 'delivered' })
      case 'sync':
        return call('POST', '/sync', fields)
      default:
        throw new Refused('unknown_type', `${type} is for a WebSocket`)
    }
  }

  async function listen(): Promise<number> {
    const response = await fetch(`${url}/api/v1/events`, { headers: { authorization }, signal: cut.signal })
    if (!response.ok) return closeCodes[((await response.json()) as { code: string }).code] ?? 1006
    isOpen = true
    for await (const { event, data } of eventsOf(response.body!)) {
      if (event === 'close') return (JSON.parse(data!) as { code: number }).code
      if (data !== undefined) listener.event(JSON.parse(data) as ServerEvent)
    }
    return 1006
  }

  void listen()
    .catch(() => 1006)
    .then((code) => {
      isOpen = false
      listener.closed(code)
    })

  return {
    get isOpen() {
      return isOpen
    },
    ask: (command) => (isOpen ? ask(command) : Promise.reject(new Disconnected('not connected'))),
    raw() {
      throw new Error('there are no frames in a stream')
    },
    end(because = 'closed') {
      why = because
      isOpen = false
      cut.abort()
    },
  }
}
