import type { Answer, CallName, Calls, Input, Output, PeerSpec, Progress, Request } from './calls.ts'
import { startNode } from './processes.ts'

/** The load generator's process, to be asked as if it were here. */

export interface Generator {
  ask<K extends CallName>(name: K, input: Input<K>): Promise<Output<K>>
  /** Opens sockets and fails if not all of them do. */
  connect(peers: PeerSpec[], chats: string[], atOnce?: number): Promise<ReturnType<Calls['connect']>>
  onProgress(listener: (progress: Progress) => void): void
  pid: number
  stop(): Promise<void>
}

export async function startGenerator(): Promise<Generator> {
  const running = await startNode(['--max-semi-space-size=32', 'bench/load.ts'], { ready: /ready/, ipc: true })
  const { child } = running
  const asked = new Map<number, { resolve: (output: unknown) => void; reject: (error: Error) => void }>()
  let listener: (progress: Progress) => void = () => {}
  let id = 0
  child.on('message', (answer: Answer) => {
    if ('progress' in answer) return listener(answer.progress)
    const who = asked.get(answer.id)
    asked.delete(answer.id)
    if ('error' in answer) who?.reject(new Error(answer.error))
    else who?.resolve(answer.output)
  })
  child.on('exit', () => {
    for (const { reject } of asked.values()) reject(new Error(`the load generator ended:\n${running.output()}`))
    asked.clear()
  })
  function ask<K extends CallName>(name: K, input: Input<K>): Promise<Output<K>> {
    return new Promise((resolve, reject) => {
      id += 1
      asked.set(id, { resolve: resolve as (output: unknown) => void, reject })
      child.send({ id, name, input } satisfies Request)
    })
  }
  return {
    ask,
    async connect(peers, chats, atOnce = 100) {
      const connected = await ask('connect', { peers, chats, atOnce })
      if (connected.failed > 0) throw new Error(`${connected.failed} of ${peers.length} sockets were refused`)
      return connected
    },
    onProgress(to) {
      listener = to
    },
    pid: running.pid,
    stop: running.stop,
  }
}
