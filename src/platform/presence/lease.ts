import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import type { RedisLog } from '../redis.ts'
import type { LeaseWorkerData } from './lease-worker.ts'

export interface Lease {
  /** The main thread is well. */
  beat(): void
  /** Resolves once no renewal can follow any more. */
  stop(): Promise<void>
}

/** Keeps the worker that renews the lease running. It does not keep the process alive. */
export function holdLease(options: Omit<LeaseWorkerData, 'beat'>, log?: RedisLog): Lease {
  const beat = new Int32Array(new SharedArrayBuffer(4))
  let worker: Worker | undefined
  let stopped = false
  let retry: NodeJS.Timeout | undefined

  function start() {
    const started = new Worker(new URL('./lease-worker.ts', import.meta.url), {
      name: 'presence-lease',
      workerData: { ...options, beat } satisfies LeaseWorkerData,
    })
    worker = started
    started.unref()
    started.on('error', (error) => log?.warn({ err: error }, 'the presence lease worker failed'))
    started.once('exit', () => {
      if (stopped) return
      worker = undefined
      // Meanwhile the poll of the main thread keeps the lease.
      retry = setTimeout(start, 1_000)
      retry.unref()
    })
  }
  start()

  return {
    beat() {
      Atomics.add(beat, 0, 1)
    },
    async stop() {
      stopped = true
      clearTimeout(retry)
      if (!worker) return
      const ended = once(worker, 'exit')
      worker.postMessage('stop')
      const late = setTimeout(() => void worker?.terminate(), 1_000)
      await ended
      clearTimeout(late)
    },
  }
}
