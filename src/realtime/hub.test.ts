import { afterEach, describe, expect, test, vi } from 'vitest'
import { createMemoryBus, createMemoryExchange } from '../platform/bus/memory.ts'
import type { Stamped } from '../platform/news.ts'
import { Hub } from './hub.ts'
import type { Peer, Sources } from './local.ts'

const closers: (() => void)[] = []
afterEach(() => {
  for (const close of closers.splice(0)) close()
})

/** The database, so far as a hub asks for it: who is in the one chat, and what happened in it. */
function stored() {
  return { version: 1, userVersion: 1, isMember: true, events: [] as Stamped[] }
}

function instance(db: ReturnType<typeof stored>, exchange = createMemoryExchange()) {
  const bus = createMemoryBus(exchange, { subscribeTimeoutMs: 50 })
  const heard: string[] = []
  const fromDb: Sources['memberships'] = async (ids) => {
    const chats = db.isMember ? [{ chat_id: 'c', version: db.version }] : []
    return new Map(ids.map((id) => [id, { user_version: db.userVersion, chats }]))
  }
  const memberships = { read: fromDb, stored: fromDb }
  const hub: Hub = new Hub({
    bus,
    instanceId: crypto.randomUUID(),
    sources: {
      memberships: (ids) => memberships.read(ids),
      versions: async (chats, users) => ({
        chats: new Map(chats.map((id) => [id, db.version])),
        users: new Map(users.map((id) => [id, db.userVersion])),
      }),
      chatChanges: async (_id, since) => ({
        events: db.events.filter((e) => e.version > since),
        version: db.version,
        more: false,
      }),
      userChanges: async () => ({ events: [], version: db.userVersion, more: false }),
      chatAdded: async () => (db.isMember ? { frame: `added at ${db.version}`, version: db.version } : undefined),
    },
    onPresence: () => {},
    onError: (error) => heard.push(String(error)),
  })
  bus.onMessage((channel, payload) => hub.receive(channel, payload))
  bus.onGap(() => void hub.sweep(true))
  closers.push(() => {
    hub.stop()
    void bus.close()
  })
  const peer: Peer = {
    userId: 'u',
    sessionId: 's',
    // The head of a frame this short is two bytes.
    send: (frame) => heard.push(frame.subarray(2).toString()),
    fail: () => heard.push('failed'),
  }
  return { hub, heard, peer, memberships }
}

const event = (version: number, effect?: Stamped['effect']): Stamped => ({
  version,
  prev: version - 1,
  frame: `${version}`,
  effect,
})

/** Committed, and told through `hub`. */
function commit(db: ReturnType<typeof stored>, hub: Hub | undefined, ...events: Stamped[]): void {
  db.events.push(...events)
  db.version = events.at(-1)!.version
  hub?.tell('chat:c', events)
}

describe('who leaves', () => {
  test('hears of it and of nothing later, though the news of it were lost', async () => {
    const db = stored()
    const { hub, heard, peer } = instance(db)
    await hub.join(peer)
    commit(db, hub, event(2))
    db.isMember = false
    commit(db, undefined, event(3, { left: 'u' }))
    commit(db, hub, event(4))
    expect(heard).toEqual(['2'])
    await vi.waitFor(() => expect(hub.size.chats).toBe(0), 5_000)
    expect(heard).toEqual(['2', '3'])
    expect(hub.hears('u', 'c')).toBe(false)
  })

  test('and is back before the news of it arrive hears the chat still', async () => {
    const db = stored()
    const { hub, heard, peer } = instance(db)
    await hub.join(peer)
    // Gone at 2, back at 3: the user's own stream is faster than the chat's.
    db.events.push(event(2, { left: 'u' }), event(3, { joined: 'u' }))
    Object.assign(db, { version: 3, userVersion: 3 })
    hub.tell('user:u', [
      { version: 2, prev: 1, frame: 'removed' },
      { version: 3, prev: 2, frame: '', effect: { attach: 'c' } },
    ])
    await vi.waitFor(() => expect(heard).toEqual(['removed', 'added at 3']), 5_000)
    hub.tell('chat:c', db.events)
    commit(db, hub, event(4))
    expect(hub.hears('u', 'c')).toBe(true)
    expect(heard.at(-1)).toBe('4')
  })
})

describe('who comes', () => {
  test('hears what is published while they are subscribed, once', async () => {
    const db = stored()
    const exchange = createMemoryExchange()
    const [near, far] = [instance(db, exchange), instance(db, exchange)]
    const joined = near.hub.join(near.peer)
    for (let version = 2; version <= 40; version += 1) {
      commit(db, far.hub, event(version))
      await new Promise((resolve) => setImmediate(resolve))
    }
    expect(await joined).toEqual(['c'])
    await vi.waitFor(() => expect(near.heard.at(-1)).toBe('40'), 5_000)
    const numbers = near.heard.map(Number)
    expect(numbers).toEqual(numbers.map((_, n) => numbers[0]! + n))
  })

  test('hears nothing that was there before them, however late it is told here', async () => {
    const db = stored()
    const { hub, heard, peer } = instance(db)
    await hub.join(peer)
    commit(db, undefined, event(2), event(3))
    const late: string[] = []
    await hub.join({ ...peer, userId: 'w', send: (frame) => late.push(frame.subarray(2).toString()) })
    commit(db, hub, event(4))
    await vi.waitFor(() => expect(heard).toEqual(['2', '3', '4']))
    expect(late).toEqual(['4'])
  })

  test('and goes at once leaves nothing behind', async () => {
    const { hub, heard, peer } = instance(stored())
    const joined = hub.join(peer)
    hub.leave(peer)
    await joined
    expect(hub.size).toEqual({ users: 0, chats: 0 })
    expect(heard).toEqual([])
  })
})

type Memberships = ReturnType<typeof instance>['memberships']

/** The second list that is asked for is this one, read before what happens meanwhile. Returns how often lists were asked for. */
function staleOnce(memberships: Memberships, old: Awaited<ReturnType<Memberships['stored']>>, meanwhile: () => void) {
  let asked = 0
  memberships.read = async (ids) => {
    asked += 1
    if (asked !== 2) return memberships.stored(ids)
    meanwhile()
    return old
  }
  return () => asked
}

test('a list of members that is older than somebody’s leaving is read again', async () => {
  const db = stored()
  const { hub, heard, peer, memberships } = instance(db)
  const old = new Map([['u', { user_version: 1, chats: [{ chat_id: 'c', version: 1 }] }]])
  staleOnce(memberships, old, () => {
    // Read, and on its way while they are removed.
    db.isMember = false
    db.userVersion = 2
    commit(db, hub, event(2, { left: 'u' }))
  })
  expect(await hub.join(peer)).toEqual([])
  commit(db, hub, event(3))
  expect(heard).toEqual([])
  expect(hub.hears('u', 'c')).toBe(false)
})

describe('who leaves a channel, which tells nobody', () => {
  const removed = (version: number) => ({ version, prev: version - 1, frame: 'removed', effect: { detach: 'c' } })

  test('hears it no longer, on their own word alone', async () => {
    const db = stored()
    const { hub, heard, peer } = instance(db)
    await hub.join(peer)
    db.isMember = false
    db.userVersion = 2
    hub.tell('user:u', [removed(2)])
    commit(db, hub, event(2))
    expect(heard).toEqual(['removed'])
    expect([hub.hears('u', 'c'), hub.size.chats]).toEqual([false, 0])
  })

  test('and comes back, and goes again, ends as they said last', async () => {
    const db = stored()
    const { hub, heard, peer } = instance(db)
    await hub.join(peer)
    // The database is ahead of the news: they are out for good.
    db.isMember = false
    db.userVersion = 4
    hub.tell('user:u', [removed(2), { version: 3, prev: 2, frame: '', effect: { attach: 'c' } }, removed(4)])
    await vi.waitFor(() => expect(heard).toEqual(['removed', 'removed']), 5_000)
    commit(db, hub, event(2))
    expect([hub.hears('u', 'c'), hub.size.chats]).toEqual([false, 0])
    db.isMember = true
    db.userVersion = 5
    hub.tell('user:u', [{ version: 5, prev: 4, frame: '', effect: { attach: 'c' } }])
    await vi.waitFor(() => expect(heard.at(-1)).toBe('added at 2'), 5_000)
    commit(db, hub, event(3))
    expect(heard.at(-1)).toBe('3')
  })

  test('is not brought back by a list of theirs that is older', async () => {
    const db = stored()
    const { hub, peer, memberships } = instance(db)
    await hub.join(peer)
    const old = await memberships.stored(['u'])
    const asked = staleOnce(memberships, old, () => {
      // Another chat of theirs has come; its list is on its way while they leave this one.
      db.isMember = false
      db.userVersion = 3
      hub.tell('user:u', [removed(3)])
    })
    db.userVersion = 2
    hub.tell('user:u', [{ version: 2, prev: 1, frame: '', effect: { attach: 'd' } }])
    await vi.waitFor(() => expect(asked()).toBeGreaterThan(1), 5_000)
    await vi.waitFor(() => expect([hub.hears('u', 'c'), hub.size.chats]).toEqual([false, 0]), 5_000)
    commit(db, hub, event(2))
    expect(hub.hears('u', 'c')).toBe(false)
  })
})

test('a quiet stream’s hole is found by the sweep that goes round', async () => {
  const db = stored()
  const { hub, heard, peer } = instance(db)
  await hub.join(peer)
  commit(db, undefined, event(2))
  await hub.sweep(false)
  await vi.waitFor(() => expect(heard).toEqual(['2']), 5_000)
})

describe('a bus that was away', () => {
  test('what was said meanwhile is read when it is back', async () => {
    const db = stored()
    const exchange = createMemoryExchange()
    const [near, far] = [instance(db, exchange), instance(db, exchange)]
    await near.hub.join(near.peer)
    exchange.outage()
    commit(db, far.hub, event(2))
    expect(near.heard).toEqual([])
    exchange.restore()
    await vi.waitFor(() => expect(near.heard).toEqual(['2']), 5_000)
  })

  test('does not keep anybody from connecting, and what they missed is read when it is back', async () => {
    const db = stored()
    const exchange = createMemoryExchange()
    const [near, far] = [instance(db, exchange), instance(db, exchange)]
    exchange.outage()
    expect(await near.hub.join(near.peer)).toEqual(['c'])
    commit(db, far.hub, event(2))
    exchange.restore()
    await vi.waitFor(() => expect(near.heard).toEqual(['2']), 5_000)
  })
})
