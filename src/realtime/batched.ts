/**
 * Turns many questions of one turn of the event loop into one: a thousand clients that reconnect at once cost a few
 * queries, not thousands. `load` answers for all keys; a key it does not answer gets `undefined`.
 */
export function batched<K, V>(load: (keys: K[]) => Promise<Map<K, V>>, max = 200): (key: K) => Promise<V | undefined> {
  let waiting: { key: K; resolve: (value: V | undefined) => void; reject: (error: unknown) => void }[] = []

  function run(): void {
    const all = waiting
    waiting = []
    for (let at = 0; at < all.length; at += max) {
      const part = all.slice(at, at + max)
      load([...new Set(part.map(({ key }) => key))]).then(
        (found) => {
          for (const { key, resolve } of part) resolve(found.get(key))
        },
        (error: unknown) => {
          for (const { reject } of part) reject(error)
        },
      )
    }
  }

  return (key) =>
    new Promise((resolve, reject) => {
      if (waiting.length === 0) setImmediate(run)
      waiting.push({ key, resolve, reject })
    })
}
