import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import websocket from '@fastify/websocket'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { WebSocket } from 'ws'
import type { Caller, CommandTable, Outcome } from '../platform/command.ts'
import { AppError } from '../platform/errors.ts'
import type { Authenticate, Identity } from '../platform/identity.ts'
import { parseInput } from '../platform/input.ts'
import type { LimitRule } from '../platform/limits/limits.ts'
import type { CloseReason } from '../protocol/close-codes.ts'
import { type Commands, type CommandType, commands } from '../protocol/commands.ts'
import { frame } from '../protocol/events.ts'
import { batched } from './batched.ts'
import { Connection } from './connection.ts'
import { eventsRoute } from './events-route.ts'
import { createHeartbeat } from './heartbeat.ts'
import type { Hub } from './hub.ts'
import type { Line, Sink } from './line.ts'

/**
 * From the upgrade (or the stream's request) to the hub: authentication, limits, heartbeat, sessions. Which command does what
 * is `app.ts`'s table.
 */

const authTimeoutMs = 5_000
const pingSeconds = 25
/** A peer silent for longer is gone: two pings and a bit. */
const silentMs = 60_000
const maxPayload = 65_536
/** How many times the frame limit may come at once. */
const frameBurst = 4
/** On this instance: tabs of a browser, and lost connections that nobody has noticed yet. Of more, the oldest is closed. */
const maxConnectionsOfSession = 50
/** What was begun when the server stops has so long to be answered. */
const drainMs = 3_000
/** Without live news of them, ended sessions are found by asking for all open ones. */
const sessionCheckMs = 2_000
/** With live news, all are asked for once in so many checks, should the news have been lost. */
const sessionCheckSlices = 15

export interface GatewayOptions {
  hub: Hub
  authenticate: Authenticate
  /** Those of these sessions that are alive. */
  liveSessions: (ids: string[]) => Promise<Set<string>>
  /** True while news of ended sessions arrives by itself. */
  newsIsLive: () => boolean
  table: CommandTable
  frameLimit: LimitRule
  /** Origins that browsers may connect from, beside the server's own. */
  origins: readonly string[]
  onGone: (caller: Caller) => void
  asAppError: (error: unknown) => AppError
  onError: (error: unknown, what: string) => void
  metrics?: { frames: { in: number; out: number }; connections(count: number): void; closed(reason: CloseReason): void }
}

export interface Gateway {
  readonly connections: number
  /** Closes the connections of these sessions with 4001, after `session_ended`. */
  endSessions(ids: readonly string[]): void
  /** Asks for all open sessions at once; after a gap in the news. */
  checkSessions(everything: boolean): Promise<void>
  /** Refuses new connections, lets what was begun be answered, and closes all with 4011. */
  stop(): Promise<void>
}

export async function registerGateway(app: FastifyInstance, options: GatewayOptions): Promise<Gateway> {
  const { hub, table } = options
  const open = new Set<Connection>()
  const sessions = new Map<string, Set<Connection>>()
  const isLive = batched(async (ids: string[]) => {
    const live = await options.liveSessions(ids)
    return new Map(ids.map((id) => [id, live.has(id)]))
  })
  let stopping = false
  let slice = 0

  const heartbeat = createHeartbeat<Connection>(pingSeconds * 1_000, (connection) => {
    const now = Date.now()
    if (now - connection.lastHeard > silentMs) connection.cut()
    else connection.ping()
  })
  // Expiry has to be met to the second, so it has a pass of its own.
  const timer = setInterval(() => {
    const now = Date.now() / 1_000
    for (const connection of open) {
      if (connection.identity && connection.identity.expires_at <= now) connection.close('token_expired')
    }
  }, 1_000)
  timer.unref()
  const sessionTimer = setInterval(() => void checkSessions(!options.newsIsLive()), sessionCheckMs)
  sessionTimer.unref()

  /** A line that the other side has opened. */
  function connect(line: Line, sink: Sink): Connection {
    const connection = new Connection({
      line,
      sink,
      run,
      onClose,
      allowFrame,
      asAppError: options.asAppError,
      ...(options.metrics && { metrics: options.metrics }),
    })
    open.add(connection)
    heartbeat.add(connection)
    options.metrics?.connections(open.size)
    return connection
  }

  function signIn(connection: Connection, identity: Identity): void {
    connection.identity = identity
    connection.state = 'joining'
    let mine = sessions.get(identity.session_id)
    if (!mine) {
      mine = new Set()
      sessions.set(identity.session_id, mine)
    }
    const others = [...mine].filter((other) => !other.isEnding)
    if (others.length >= maxConnectionsOfSession) others[0]!.close('too_many_connections')
    mine.add(connection)
  }

  /** Registers and subscribes, then makes sure of the session, then says `ready`: nothing falls in between. */
  async function admit(connection: Connection, token: string): Promise<void> {
    let identity: Identity
    try {
      identity = await options.authenticate(token)
    } catch (error) {
      const refusal = options.asAppError(error)
      if (refusal.status !== 401) connection.close(refusal.status === 503 ? 'internal_error' : 'unauthorized')
      else connection.close(refusal.code === 'token_expired' ? 'token_expired' : 'unauthorized')
      return
    }
    if (connection.isEnding) return
    signIn(connection, identity)
    try {
      const chatIds = await hub.join(connection)
      // The session may have ended while nobody could tell this connection.
      if (!(await isLive(identity.session_id))) return connection.close('unauthorized')
      if (connection.isEnding) return
      connection.state = 'open'
      connection.sendText(
        frame({
          type: 'ready',
          session_id: identity.session_id,
          user_id: identity.user_id,
          server_time: new Date().toISOString(),
          heartbeat: pingSeconds,
        }),
      )
      connection.sendText(frame({ type: 'user_chats', chat_ids: chatIds }))
    } catch (error) {
      options.onError(error, 'a connection could not be opened')
      connection.fail()
    }
  }

  async function renew(connection: Connection, token: string): Promise<Outcome> {
    const identity = await options.authenticate(token)
    if (identity.session_id !== connection.sessionId) throw new AppError('invalid_token')
    connection.identity = identity
    return { expires_at: new Date(identity.expires_at * 1_000).toISOString() }
  }

  async function run(connection: Connection, given: Record<string, unknown>): Promise<Outcome> {
    const type = given.type
    if (typeof type !== 'string' || !Object.hasOwn(commands, type)) throw new AppError('unknown_type')
    if (connection.state === 'waiting') {
      if (type !== 'auth') throw new AppError('unauthorized')
      const { token, id } = parse('auth', given)
      await admit(connection, token)
      return id === undefined || connection.isClosed ? undefined : {}
    }
    if (type === 'auth') return renew(connection, parse('auth', given).token)
    if (type === 'ping') {
      const { id } = parse('ping', given)
      connection.sendText(frame({ type: 'pong', timestamp: Math.floor(Date.now() / 1_000), ...(id !== undefined && { id }) }))
      return undefined
    }
    const name = type as keyof CommandTable
    return dispatch(name, connection as Connection & Caller, parse(name, given))
  }

  function dispatch<K extends keyof CommandTable>(name: K, caller: Caller, command: Commands[K]): Promise<Outcome> | Outcome {
    return table[name](caller, command)
  }

  function onClose(connection: Connection): void {
    open.delete(connection)
    heartbeat.remove(connection)
    options.metrics?.connections(open.size)
    if (!connection.identity) return
    const mine = sessions.get(connection.sessionId)
    mine?.delete(connection)
    if (mine?.size === 0) sessions.delete(connection.sessionId)
    hub.leave(connection)
    options.onGone(connection as Connection & Caller)
  }

  function allowFrame(connection: Connection): boolean {
    const rule = options.frameLimit
    if (rule === null) return true
    const now = Date.now()
    const most = rule.points * frameBurst
    if (connection.tokens < 0) connection.tokens = most
    else connection.tokens = Math.min(most, connection.tokens + ((now - connection.tokensAt) * rule.points) / rule.windowMs)
    connection.tokensAt = now
    connection.tokens -= 1
    return connection.tokens >= 0
  }

  /** As CORS has it for REST: `*` is any. */
  const mayConnect = (origin: string) => options.origins.includes('*') || options.origins.includes(origin)

  function endSessions(ids: readonly string[]): void {
    for (const id of ids) {
      for (const connection of [...(sessions.get(id) ?? [])]) {
        connection.sendText(frame({ type: 'session_ended', session_id: id }))
        connection.close('unauthorized')
      }
    }
  }

  async function checkSessions(everything: boolean): Promise<void> {
    const ids = [...sessions.keys()]
    const size = Math.ceil(ids.length / sessionCheckSlices)
    const asked = everything ? ids : ids.slice(slice * size, (slice + 1) * size)
    slice = (slice + 1) % sessionCheckSlices
    if (asked.length === 0) return
    try {
      const live = await options.liveSessions(asked)
      endSessions(asked.filter((id) => !live.has(id)))
    } catch (error) {
      options.onError(error, 'open sessions could not be checked')
    }
  }

  await app.register(websocket, {
    options: { maxPayload, perMessageDeflate: false, clientTracking: false },
    // Connections are told 4011 by `stop`; there is nothing left to close here.
    preClose: (done) => done(),
    errorHandler: (_error, socket) => socket.terminate(),
  })

  await app.register(async (scope: FastifyInstance) => {
    scope.route({
      method: 'GET',
      url: '/ws',
      schema: { hide: true },
      handler: () => {
        throw new AppError('upgrade_required')
      },
      config: { public: true, rateLimit: false },
      preValidation: async (request) => {
        const { origin, host } = request.headers
        if (stopping) throw new AppError('unavailable', { retryAfter: 1 })
        if (origin !== undefined && !mayConnect(origin) && !isOwnOrigin(origin, request.host, host))
          throw new AppError('origin_not_allowed')
      },
      wsHandler: (ws: WebSocket, request: FastifyRequest) => {
        const socket = request.raw.socket
        socket.setNoDelay(true)
        release(ws, socket)
        const connection = connect(ws, socket)
        const token = (request.query as { token?: unknown }).token
        if (typeof token === 'string') connection.begin(() => admit(connection, token))
        else setTimeout(() => connection.state === 'waiting' && connection.close('unauthorized'), authTimeoutMs).unref()
      },
    })
  })

  eventsRoute(app, {
    isStopping: () => stopping,
    admit: (stream, token) =>
      new Promise((resolve) => {
        const connection = connect(stream, stream)
        connection.begin(() => admit(connection, token).finally(resolve))
      }),
  })

  return {
    get connections() {
      return open.size
    },
    endSessions,
    checkSessions,
    async stop() {
      stopping = true
      heartbeat.stop()
      clearInterval(timer)
      clearInterval(sessionTimer)
      for (const connection of [...open]) connection.drain()
      for (const until = Date.now() + drainMs; open.size > 0 && Date.now() < until; ) await sleep(10)
      for (const connection of [...open]) connection.close('shutting_down')
    },
  }
}

/**
 * The request is over, but its answer still hangs on the socket, and on it headers, URL and logger: several kilobytes that
 * an idle connection would keep for as long as it lasts. The plugin's own error listener holds them, too.
 */
function release(ws: WebSocket, socket: Socket): void {
  ws.removeAllListeners('error')
  const { _httpMessage: answer } = socket as Socket & { _httpMessage?: ServerResponse | null }
  answer?.detachSocket(socket)
}

/** A browser's page of the same host; the scheme is the proxy's business. */
function isOwnOrigin(origin: string, ...hosts: (string | undefined)[]): boolean {
  return URL.canParse(origin) && hosts.includes(new URL(origin).host)
}

/** Against the schema of its type. */
function parse<K extends CommandType>(type: K, given: Record<string, unknown>): Commands[K] {
  return parseInput(commands[type], given, 'frame') as Commands[K]
}
