import { randomUUID } from 'node:crypto'
import type { ServerEvent, ServerFrame } from '../../src/protocol/events.ts'

/** What a client speaks over. Events come by themselves; a command is asked and answered. */

export type Command = Record<string, unknown>
export type Answered = Record<string, unknown>

export interface Link {
  readonly isOpen: boolean
  /** Resolves with the fields of the ack. Rejects with `Refused` or `Disconnected`. */
  ask(command: Command): Promise<Answered>
  /** A frame as it is, without waiting for anything. */
  raw(text: string | Uint8Array<ArrayBuffer>): void
  /** Ends it. With a reason, whatever was asked on it is given up at once. */
  end(why?: string): void
}

export interface LinkListener {
  event(event: ServerEvent): void
  /** Once, with one of the close codes, or 1006 where none was told. */
  closed(code: number): void
}

export type OpenLink = (url: string, token: string, listener: LinkListener) => Link

export class Refused extends Error {
  readonly code: string
  constructor(code: string, message: string) {
    super(message)
    this.code = code
  }
}

/** The connection ended before the answer came: whether the command was carried out is not known. */
export class Disconnected extends Error {}

export const openSocket: OpenLink = (url, token, listener) => {
  const asked = new Map<string, { resolve: (answer: Answered) => void; reject: (error: unknown) => void }>()
  const socket = new WebSocket(`${url.replace(/^http/, 'ws')}/ws?token=${encodeURIComponent(token)}`)

  function giveUp(why: string): void {
    for (const { reject } of asked.values()) reject(new Disconnected(why))
    asked.clear()
  }

  socket.addEventListener('message', ({ data }) => {
    const frame = JSON.parse(String(data)) as ServerFrame
    if (frame.type !== 'ack' && frame.type !== 'error') {
      listener.event(frame)
      return
    }
    const waiting = frame.id === undefined ? undefined : asked.get(frame.id)
    if (frame.id !== undefined) asked.delete(frame.id)
    if (frame.type === 'ack') waiting?.resolve(frame)
    else waiting?.reject(new Refused(String(frame.code), String(frame.error)))
  })
  socket.addEventListener('close', ({ code }) => {
    giveUp(`closed with ${code}`)
    listener.closed(code)
  })

  return {
    get isOpen() {
      return socket.readyState === WebSocket.OPEN
    },
    ask: (command) =>
      new Promise((resolve, reject) => {
        if (socket.readyState !== WebSocket.OPEN) {
          reject(new Disconnected('not connected'))
          return
        }
        const id = randomUUID()
        asked.set(id, { resolve, reject })
        socket.send(JSON.stringify({ ...command, id }))
      }),
    raw: (text) => socket.send(text),
    end(why) {
      if (why !== undefined) giveUp(why)
      socket.close()
    },
  }
}
