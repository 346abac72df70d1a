import { commandTable } from './command-table.ts'
import type { Context } from './context.ts'
import { type AdminDeps, adminRoutes } from './modules/admin/index.ts'
import {
  authRoutes,
  checkCode,
  createAuth,
  createAuthenticator,
  createCodeSender,
  createKeys,
  endSessionsOf,
  liveSessions,
  sweepAuth,
  useCode,
  wellKnownRoutes,
} from './modules/auth/index.ts'
import {
  bumpAcl,
  type ChatDeps,
  channelRoutes,
  chatRoutes,
  checkMayEdit,
  createAclCache,
  createCursors,
  findDm,
  isSilent,
  leaveEverything,
  lockCounters,
  memberships,
  readableRows,
  setChatAvatar,
  sweepDeletedChannels,
  sweepInvites,
  tellMine,
  tickMineIn,
  versions,
  viewChat,
} from './modules/chats/index.ts'
import { type ContactDeps, contactRoutes, forgetUser, ties } from './modules/contacts/index.ts'
import { healthRoutes } from './modules/health/index.ts'
import { type MediaDeps, mediaRoutes, sweepAvatars } from './modules/media/index.ts'
import {
  authorsOf,
  chatsUnreadFrom,
  checkMayWrite,
  createReactionTeller,
  createWriter,
  type MessageDeps,
  messageRoutes,
  summaries,
  tellWritten,
  unreadCounts,
} from './modules/messages/index.ts'
import { createOnline, createSignals, presenceRoutes } from './modules/presence/index.ts'
import { changeWords, createIndexer, type Indexer, type SearchDeps, searchRoutes } from './modules/search/index.ts'
import { chatAdded, chatChanges, type SyncDeps, syncRoutes, userChanges } from './modules/sync/index.ts'
import {
  briefs,
  checkReachable,
  createBriefCache,
  existingUsers,
  meOf,
  publicUsers,
  setAvatar,
  sweepDeleted,
  type UsersDeps,
  usersByName,
  usersRoutes,
} from './modules/users/index.ts'
import { controlChannel, createControl } from './platform/control.ts'
import { asAppError } from './platform/db/db.ts'
import { addAsyncApi } from './platform/http/asyncapi.ts'
import { createHttpServer } from './platform/http/server.ts'
import type { App } from './platform/http/types.ts'
import { createLimiter } from './platform/limiter.ts'
import { createPasswords } from './platform/passwords.ts'
import { version } from './platform/version.ts'
import { frame } from './protocol/events.ts'
import { registerGateway } from './realtime/gateway.ts'
import { Hub, peopleChannel } from './realtime/hub.ts'

export interface Server {
  app: App
  hub: Hub
  indexer: Indexer
  /** Stops accepting, tells clients, finishes what was begun. */
  close(): Promise<void>
}

const sweepEveryMs = 3_600_000
/** On stopping, so long a request that is under way may take. */
const requestsEndWithinMs = 3_000

/** The table of contents: every module with what it needs, and who listens to whom. */
export async function createServer(context: Context): Promise<Server> {
  const { config, log, metrics, db, bus, limits, presence, instanceId } = context
  const onError = (error: unknown, what: string) => log.error({ err: error }, what)
  const control = createControl(bus, instanceId)
  // Half of the pool is left to statements that come alone: a snapshot that waits for one of them must get it.
  const limiter = createLimiter(Math.max(1, Math.floor(config.databasePoolSize / 2)))

  // --- users and sessions ---
  const keys = createKeys({ ...context.jwt, accessTokenTtlMs: config.accessTokenTtlMs })
  const passwords = createPasswords({ cost: config.bcryptCost })
  const authenticator = createAuthenticator({ db, keys, bus, control, onError: (error) => onError(error, 'sessions') })
  const auth = createAuth({
    db,
    control,
    limits,
    passwords,
    keys,
    metrics,
    config,
    sender: createCodeSender(config.otp, log),
    tellMe: (userId, version, me) => users.tellUser(userId, { version, prev: version - 1, event: { type: 'me_updated', me } }),
  })
  const users: UsersDeps = {
    db,
    control,
    limits,
    passwords,
    briefCache: createBriefCache(control),
    passwordRule: config.limits.login,
    codes: { check: (phone, code) => checkCode(auth, phone, code), use: useCode },
    relations: ties,
    online: (ids) => presence.online(ids),
    tellUser: (userId, { version, prev, event }) => {
      hub.tell(`user:${userId}`, [{ version, prev, frame: frame({ ...event, user_version: version, user_prev: prev }) }])
      online.announce([userId])
    },
    endSessions: endSessionsOf,
    onDeleted: (userId) =>
      Promise.all([leaveEverything(chats, userId), forgetUser(contacts, userId)]).then(
        () => {},
        (error: unknown) => onError(error, 'a deleted account could not leave its groups and contacts'),
      ),
  }
  const admin: AdminDeps = { db, control, passwords }
  const me = (userId: string) => meOf(db, userId)

  // --- live connections ---
  const hub: Hub = new Hub({
    bus,
    instanceId,
    sources: {
      memberships: (ids) => memberships(db, ids),
      versions: (chatIds, userIds) => versions(db, chatIds, userIds),
      chatChanges: (chatId, since) => chatChanges(streams, chatId, since),
      userChanges: (userId, since) => userChanges(streams, userId, since),
      chatAdded: (userId, chatId, stamp) => chatAdded(streams, userId, chatId, stamp),
    },
    onPresence: (userId, isHere) => online.moved(userId, isHere),
    onLeft: (userId, chatId) => signals.left(userId, chatId),
    onError,
    metrics: {
      filled: (events) => metrics.gateFills.inc(events),
      delivered: (_frames, latencyMs) => {
        if (latencyMs !== undefined) metrics.delivery.observe(latencyMs / 1_000)
      },
    },
  })
  const online = createOnline({ db, news: hub, store: presence, onError })
  const signals = createSignals({
    db,
    news: hub,
    store: presence,
    hears: (userId, chatId) => hub.hears(userId, chatId),
    isChannel: async (chatId) => (await acl.get(db, chatId))?.type === 'channel',
    isSilent: (chatId) => isSilent(db, acl, chatId),
  })

  // --- chats, messages, sync ---
  const acl = createAclCache()
  const chats: ChatDeps = {
    db,
    news: hub,
    acl,
    groupMaxMembers: config.groupMaxMembers,
    onError,
    briefs: (ids) => briefs(users, ids),
    existingUsers: (ids) => existingUsers(db, ids),
    checkReachable: (q, actorId, peerId) => checkReachable(users, q, actorId, peerId),
    publicUsers: (viewerId, ids) => publicUsers(users, viewerId, ids),
    summaries: (q, viewerId, standings, known) => summaries(q, chats.briefs, viewerId, standings, known),
    unread: unreadCounts,
    authorsOf,
  }
  const contacts: ContactDeps = {
    db,
    news: hub,
    limits,
    contactRule: config.limits.contact,
    onError,
    publicUsers: chats.publicUsers,
    online: users.online,
    findDm,
    lockChat: lockCounters,
    blockChanged: async (tx, userId, otherId, dm) => {
      if (dm !== undefined) await bumpAcl(tx, dm)
      const moved = await tickMineIn(tx, userId, await chatsUnreadFrom(tx, userId, otherId))
      return () => {
        if (dm !== undefined) control.announce({ acl_changed: dm })
        tellMine(chats, moved).catch((error: unknown) => onError(error, 'unread counts could not be told'))
      }
    },
    sightChanged: (userId, otherId) => online.sightChanged(userId, otherId),
  }
  const cursors = createCursors(chats)
  const indexer = createIndexer({ db, indexed: (count) => metrics.indexed.inc(count), onError })
  metrics.watchIndexer(indexer)
  const writer = createWriter({
    db,
    acl,
    check: checkMayWrite,
    told: (rows) => {
      metrics.messages.inc(rows.length)
      indexer.note(rows)
      return tellWritten({ db, news: hub, briefs: chats.briefs, onError }, rows)
    },
    onError,
  })
  metrics.watchWriter(writer)
  const messages: MessageDeps = {
    db,
    chats,
    news: hub,
    acl,
    writer,
    limits,
    messageRule: config.limits.message,
    briefs: chats.briefs,
    usersByName: (names) => usersByName(db, names),
    onTextChanged: changeWords,
  }
  const media: MediaDeps = {
    db,
    storage: context.storage,
    signKey: keys.linkKey,
    authenticate: authenticator.authenticate,
    retentionMs: config.mediaRetentionMs,
    setUserAvatar: (userId, avatar, replaced) => setAvatar(users, userId, avatar, replaced),
    setChatAvatar: async (actorId, chatId, avatar, replaced) => {
      await setChatAvatar(chats, actorId, chatId, avatar, replaced)
      return viewChat(chats, actorId, chatId)
    },
    checkMayEditChat: (actorId, chatId) => checkMayEdit(chats, actorId, chatId),
    maySeeChat: async (userId, chatId) => (await readableRows(db, userId, [chatId])).length > 0,
  }
  const reactionTeller = createReactionTeller(chats)
  const search: SearchDeps = { db, chats, users, briefs: chats.briefs }
  const streams: SyncDeps = { chats, me, limiter }

  const table = commandTable({ messages, signals, cursors, streams })

  // --- HTTP ---
  const app = await createHttpServer({ config, version, log, authenticate: authenticator.authenticate, limits, metrics })
  addAsyncApi(app, version, config.publicUrl)
  const gateway = await registerGateway(app, {
    hub,
    authenticate: authenticator.authenticate,
    liveSessions: (ids) => liveSessions(db, ids),
    newsIsLive: () => bus.connected,
    table,
    frameLimit: config.limits.frame,
    origins: config.corsOrigins,
    onGone: (caller) => signals.gone(caller),
    asAppError: (error) => {
      const refusal = asAppError(error)
      if (refusal.code === 'internal_error') onError(error, 'a command failed')
      return refusal
    },
    onError,
    metrics: {
      frames: metrics.frames,
      connections: (count) => metrics.sockets.set(count),
      closed: (reason) => metrics.closes.inc({ reason }),
    },
  })
  await app.register(
    async (api: App) => {
      await authRoutes(api, auth)
      await usersRoutes(api, users)
      contactRoutes(api, contacts)
      chatRoutes(api, chats, cursors)
      channelRoutes(api, chats, config.publicUrl)
      messageRoutes(api, messages, cursors)
      syncRoutes(api, streams)
      presenceRoutes(api, signals)
      adminRoutes(api, admin, config.publicUrl)
      searchRoutes(api, search)
      await api.register((scope) => mediaRoutes(scope, media))
    },
    { prefix: '/api/v1' },
  )
  app.get('/', { config: { public: true }, schema: { hide: true } }, (_request, reply) => reply.redirect('/docs'))
  await wellKnownRoutes(app, keys)
  const redis = config.redisUrl === undefined ? ('in-process' as const) : () => bus.connected
  await healthRoutes(app, { db, redis, metrics, metricsToken: config.metricsToken, version, startedAt: Date.now() })

  // --- news between instances ---
  control.on(({ sessions_ended = [], acl_changed }) => {
    gateway.endSessions(sessions_ended)
    if (acl_changed !== undefined) acl.forget(acl_changed)
  })
  bus.onMessage((channel, payload) => {
    if (channel === controlChannel) control.deliver(payload)
    else hub.receive(channel, payload)
  })
  /** Something may have been missed: whatever was remembered is looked up again. */
  const catchUp = () => {
    authenticator.clear()
    void gateway.checkSessions(true)
    void hub.sweep(true)
  }
  bus.onGap(catchUp)
  // Operators' commands are no instances: they tell by way of the database.
  context.notices.onNotice((payload) => {
    try {
      control.deliver(Buffer.from(payload))
    } catch (error) {
      onError(error, 'a notification could not be read')
    }
  })
  context.notices.onGap(catchUp)
  presence.onInstanceGone(() => void hub.sweep(true))
  await bus.subscribe([controlChannel, peopleChannel])
  hub.start()
  indexer.start()
  const sweep = () =>
    Promise.all([sweepAuth(db), sweepInvites(db), sweepDeleted(users), sweepDeletedChannels(chats), sweepAvatars(media)]).catch(
      (error: unknown) => onError(error, 'what is old could not be swept'),
    )
  const sweeper = setInterval(() => void sweep(), sweepEveryMs)
  sweeper.unref()

  return {
    app,
    hub,
    indexer,
    async close() {
      clearInterval(sweeper)
      await gateway.stop()
      // A request that never ends, or never begins, must not hold up the rest.
      const cutOff = setTimeout(() => app.server.closeAllConnections(), requestsEndWithinMs)
      await app.close()
      clearTimeout(cutOff)
      await writer.close()
      await cursors.close()
      await reactionTeller.close()
      await indexer.close()
      signals.close()
      await online.close()
      await authenticator.close()
      hub.stop()
    },
  }
}
