/**
 * Renews an instance's lease from a thread of its own, so that a stalled event loop of the main thread does not make
 * its users look gone. Only a stall of `maxStallMs` does: that one has no good end.
 */
import { parentPort, workerData } from 'node:worker_threads'
import { connectToOwner, isMisplaced, openCluster } from '../cluster.ts'
import { connectRedis } from '../redis.ts'
import { presenceKeys, presenceTag, renewLease } from './scripts.ts'

export interface LeaseWorkerData {
  url: string
  prefix: string
  instance: string
  leaseMs: number
  renewMs: number
  maxStallMs: number
  /** `url` names a node of a cluster. */
  isCluster: boolean
  /** One counter that the main thread raises while it is well. */
  beat: Int32Array
}

const { url, prefix, instance, leaseMs, renewMs, maxStallMs, isCluster, beat } = workerData as LeaseWorkerData
const { instances } = presenceKeys(prefix)
// The main thread has a connection to the same server, and tells the log of outages.
const options = { name: 'lease', prefix }
const cluster = isCluster ? await openCluster(url) : undefined
const link = cluster ? connectToOwner(cluster, presenceTag(prefix), undefined, options) : connectRedis(url, undefined, options)
let renewing: Promise<unknown> | undefined
let lastBeat = Atomics.load(beat, 0)
let beatAt = performance.now()

function renew() {
  const now = performance.now()
  const current = Atomics.load(beat, 0)
  if (current !== lastBeat) {
    lastBeat = current
    beatAt = now
  }
  if (!link.up || renewing || now - beatAt > maxStallMs) return
  renewing = link.client
    .eval(renewLease, 1, instances, instance, leaseMs)
    .catch((error: unknown) => {
      if (isMisplaced(error)) link.reset()
    })
    .finally(() => {
      renewing = undefined
    })
}

const ticker = setInterval(renew, renewMs)
link.onUp(renew)

// Any message means the end. A renewal under way is waited for: it must not come after the lease was given back.
parentPort!.once('message', async () => {
  clearInterval(ticker)
  await renewing
  cluster?.close()
  await link.close()
  parentPort!.close()
})
