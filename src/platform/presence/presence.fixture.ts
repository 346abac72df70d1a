/**
 * An instance in a process of its own, so that a test can kill it, freeze it, or block its event loop.
 * Arguments: Redis's URL, the prefix, users. Messages: `block` for 3 s, `close`.
 */
import { createRedisPresence } from './redis.ts'

const [url = '', prefix = '', ...users] = process.argv.slice(2)
const presence = await createRedisPresence({ url, prefix })
presence.onReturned((userIds) => process.send?.({ returned: userIds }))
await presence.add(users)
process.on('message', async (message) => {
  if (message === 'block') {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 3_000)
    process.send?.('unblocked')
  } else {
    await presence.close()
    // From here on it has to end by itself.
    process.removeAllListeners('disconnect')
    process.send?.('closed')
  }
})
process.on('disconnect', () => process.exit(0))
process.send?.('ready')
