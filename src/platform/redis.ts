import { createConnection } from 'node:net'
import { type ConnectionOptions, connect as connectTls } from 'node:tls'
import { AbstractConnector, Redis } from 'ioredis'

/**
 * One connection to Redis, with an honest `up`. Invariants: nothing waits for a Redis that is away (there is no
 * offline queue, and a command whose connection is lost rejects and is never sent again); a Redis that hangs counts
 * as away within two seconds; and the connection comes back by itself.
 *
 * Who subscribes, who publishes in bulk and who needs quick answers each take a connection of their own.
 */
export interface RedisLink {
  /** For commands; they reject at once while Redis is away. Keys and channels are to be prefixed with `prefix`. */
  readonly client: Redis
  readonly prefix: string
  /** The server takes commands and answers pings. */
  readonly up: boolean
  /** Resolves when the connection was up for the first time, or `connectWaitMs` after its making: whichever is first. */
  readonly ready: Promise<void>
  /** Called after each coming up; at once (in a later turn) if it is up already. */
  onUp(listener: () => void): void
  onDown(listener: () => void): void
  /** The connection is of no use any more: drops it and makes it anew. */
  reset(): void
  /** Idempotent. Commands under way reject. */
  close(): Promise<void>
}

/** Any pino logger. */
export interface RedisLog {
  info(details: object, message: string): void
  warn(details: object, message: string): void
}

export interface RedisOptions {
  /** redis:// or rediss:// */
  url: string
  /** Set before every key and channel, so that several installations (or tests) share a server. */
  prefix?: string | undefined
  log?: RedisLog | undefined
}

export interface RedisLinkOptions {
  /** Shown in the log and in Redis's CLIENT LIST. */
  name: string
  prefix?: string | undefined
  connectWaitMs?: number
  /** Asked before each connecting: the URL to connect to, whose host and port count. Must not reject. */
  locate?: () => Promise<string>
}

const tickMs = 500
// A ping behind a long reply may take its time as long as bytes arrive; silence of this length is an outage.
const silenceMs = 1_000
const handshakeMs = 2_000

/** The connection is begun at once; errors go to the log, once per outage. */
export function connectRedis(url: string, log: RedisLog | undefined, options: RedisLinkOptions): RedisLink {
  const { name, prefix = 'parley:', connectWaitMs = 2_000, locate } = options
  const client = new Redis(url, {
    ...(locate && { Connector: connectorTo(locate) }),
    connectionName: `parley-${name}`,
    enableOfflineQueue: false,
    // With no retries every close rejects what was under way.
    maxRetriesPerRequest: 0,
    autoResendUnfulfilledCommands: false,
    autoResubscribe: false,
    connectTimeout: 2_000,
    // A peer that hangs never answers our FIN.
    disconnectTimeout: 50,
    maxLoadingRetryTime: 500,
    keepAlive: 10_000,
    disableClientInfo: true,
    // No commandTimeout: it would cut handshake and pings too. See `within`.
    // Half of the delay is random: instances that lost the same server do not come back in step.
    retryStrategy: (times) => Math.min(1_000, 50 * 2 ** Math.min(times, 5)) * (0.5 + Math.random() / 2),
  })
  const ups: (() => void)[] = []
  const downs: (() => void)[] = []
  let up = false
  let closed = false
  let told = false
  let begun = performance.now()
  let ping: { at: number; read: number } | undefined

  const bytesRead = () => client.stream?.bytesRead ?? 0

  function away(why: string) {
    if (!told && !closed) {
      told = true
      log?.warn({ redis: name, why }, 'Redis is away')
    }
    ping = undefined
    if (!up) return
    up = false
    for (const listener of downs) listener()
  }

  function reset(why: string) {
    away(why)
    // In any other state there is nothing to drop, and ioredis would take it for the end.
    if (client.status === 'ready' || client.status === 'connect') client.disconnect(true)
  }

  client.on('error', (error: Error) => away(error.message || ((error as NodeJS.ErrnoException).code ?? error.name)))
  client.on('connect', () => {
    begun = performance.now()
  })
  client.on('close', () => away('the connection was lost'))
  client.on('ready', () => {
    if (closed) return
    up = true
    ping = undefined
    if (told) log?.info({ redis: name }, 'Redis is back')
    told = false
    for (const listener of ups) listener()
  })

  const ticker = setInterval(() => {
    const now = performance.now()
    if (client.status === 'connect' && now - begun > handshakeMs) return reset('no answer to the handshake')
    if (!up) return
    if (!ping) return sendPing(now)
    if (now - ping.at < silenceMs) return
    const late = ping
    // After a stall of our own this timer runs before the answers that wait in the socket are read: let them come first.
    setImmediate(() =>
      setImmediate(() => {
        if (ping !== late) return
        const read = bytesRead()
        if (read === late.read) reset('no answer to a ping')
        else ping = { at: performance.now(), read }
      }),
    )
  }, tickMs)
  ticker.unref()

  function sendPing(at: number) {
    const sent = { at, read: bytesRead() }
    ping = sent
    const answered = () => {
      ping = undefined
    }
    // A ping that rejects belongs to a connection whose loss is told by its own event.
    client.ping().then(answered, () => {})
  }

  const ready = new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, connectWaitMs)
    const settle = () => {
      clearTimeout(timer)
      resolve()
    }
    client.once('ready', settle)
    client.once('end', settle)
  })

  return {
    client,
    prefix,
    get up() {
      return up
    },
    ready,
    onUp(listener) {
      ups.push(listener)
      if (up) setImmediate(() => up && listener())
    },
    onDown(listener) {
      downs.push(listener)
    },
    reset: () => reset('a command failed'),
    async close() {
      if (closed) return
      closed = true
      up = false
      clearInterval(ticker)
      if (client.status === 'end') return
      const ended = new Promise<void>((resolve) => client.once('end', resolve))
      client.disconnect()
      // While it waits to reconnect there is no socket whose end could be told.
      await Promise.race([ended, new Promise<void>((resolve) => setTimeout(resolve, 100).unref())])
    },
  }
}

/** Where to connect to is found out each time anew. */
function connectorTo(locate: () => Promise<string>) {
  return class extends AbstractConnector {
    readonly #tls: ConnectionOptions | undefined

    constructor(options: unknown) {
      const { disconnectTimeout, tls } = options as { disconnectTimeout: number; tls?: ConnectionOptions }
      super(disconnectTimeout)
      this.#tls = tls
    }

    async connect() {
      this.connecting = true
      const { hostname, port } = new URL(await locate())
      // Closed meanwhile.
      if (!this.connecting) throw new Error('Connection is closed.')
      const at = { host: hostname.replace(/^\[|\]$/g, ''), port: Number(port || 6379) }
      const stream = this.#tls ? connectTls({ ...at, ...this.#tls }) : createConnection(at)
      stream.once('error', (error) => {
        this.firstError = error
      })
      this.stream = stream
      return stream
    }
  }
}

/** What `work` resolves to, or a rejection when that takes longer than `ms`. The work itself goes on. */
export async function within<T>(ms: number, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`Redis took longer than ${ms} ms.`)), ms)
  })
  try {
    return await Promise.race([work, late])
  } finally {
    clearTimeout(timer)
  }
}
