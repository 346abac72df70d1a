import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import type { Stamped } from '../platform/news.ts'
import { Gate, type Page } from './gate.ts'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

const event = (version: number, prev = version - 1): Stamped => ({ version, prev, frame: `${version}` })

/** A gate, opened at 0 unless told, over a stream that PostgreSQL has up to `stored`. */
function gate({ opened = true, stored = 0 } = {}) {
  const told: number[] = []
  const asked: number[] = []
  const db = {
    stored,
    load: async (since: number): Promise<Page> => {
      const events = Array.from({ length: db.stored - since }, (_, n) => event(since + 1 + n))
      return { events, version: db.stored, more: false }
    },
  }
  const it = new Gate({
    deliver: (e) => told.push(e.version),
    load: (since) => {
      asked.push(since)
      return db.load(since)
    },
  })
  if (opened) it.open(0)
  return { it, told, asked, db }
}

const held = () => vi.advanceTimersByTimeAsync(50)

describe('order', () => {
  test('what follows on is delivered at once, doubles and what is old are dropped', () => {
    const { it, told, asked } = gate()
    for (const version of [1, 2, 2, 1, 3, 3]) it.push(event(version))
    expect(told).toEqual([1, 2, 3])
    expect(asked).toEqual([])
  })

  test('a swap of order waits for what was overtaken, and reads nothing', async () => {
    const { it, told, asked } = gate()
    it.push(event(2))
    it.push(event(3))
    expect(told).toEqual([])
    await vi.advanceTimersByTimeAsync(40)
    it.push(event(1))
    expect(told).toEqual([1, 2, 3])
    await vi.advanceTimersByTimeAsync(1_000)
    expect(asked).toEqual([])
  })

  test('a hole is held for 50 ms, then read from the database', async () => {
    const { it, told, asked } = gate({ stored: 3 })
    it.push(event(1))
    it.push(event(3))
    await vi.advanceTimersByTimeAsync(49)
    expect([told, asked]).toEqual([[1], []])
    await vi.advanceTimersByTimeAsync(1)
    expect([told, asked]).toEqual([[1, 2, 3], [1]])
  })

  test('an event that stands for several versions follows on from the one before them', () => {
    const { it, told } = gate()
    it.push(event(1))
    it.push(event(4, 1))
    it.push(event(3))
    it.push(event(5))
    expect(told).toEqual([1, 4, 5])
  })
})

describe('opening', () => {
  test('what came before is held, and delivered from the opening version on', () => {
    const { it, told } = gate({ opened: false })
    for (const version of [5, 4, 6]) it.push(event(version))
    expect(told).toEqual([])
    it.open(4)
    expect(told).toEqual([5, 6])
    it.open(9)
    expect(it.version).toBe(6)
  })

  test('what was seen in the database before opening is looked for after it', async () => {
    const { it, told } = gate({ opened: false, stored: 7 })
    it.behind(7)
    it.open(5)
    await held()
    expect(told).toEqual([6, 7])
  })
})

describe('what the bus lost', () => {
  test('a quiet stream that is behind the database is read', async () => {
    const { it, told } = gate({ stored: 2 })
    it.behind(2)
    await held()
    expect(told).toEqual([1, 2])
  })

  test('what comes while the database is read is neither lost nor told twice', async () => {
    const { it, told, db } = gate({ stored: 3 })
    const read = Promise.withResolvers<Page>()
    db.load = () => read.promise
    it.push(event(3))
    await held()
    it.push(event(1))
    it.push(event(5))
    read.resolve({ events: [event(1), event(2), event(3)], version: 3, more: false })
    await vi.advanceTimersByTimeAsync(0)
    it.push(event(4))
    expect(told).toEqual([1, 2, 3, 4, 5])
  })

  test('what became known while the database was read is looked for again', async () => {
    const { it, told, db } = gate({ stored: 1 })
    const read = Promise.withResolvers<Page>()
    const { load } = db
    db.load = () => read.promise
    it.behind(1)
    await held()
    db.load = load
    db.stored = 2
    it.behind(2)
    read.resolve({ events: [event(1)], version: 1, more: false })
    await held()
    expect(told).toEqual([1, 2])
  })

  test('pages are read to the end', async () => {
    const { it, told, asked, db } = gate()
    db.load = async (since) => ({ events: [event(since + 1)], version: since + 1, more: since < 3 })
    it.behind(4)
    await held()
    expect([told, asked]).toEqual([
      [1, 2, 3, 4],
      [0, 1, 2, 3],
    ])
  })

  test('a version that was announced and never committed is asked for once', async () => {
    const { it, asked } = gate({ stored: 2 })
    it.behind(4)
    await vi.advanceTimersByTimeAsync(5_000)
    expect(asked).toEqual([0])
    expect(it.version).toBe(2)
  })

  test('a database that is away is asked again until it answers', async () => {
    const { it, told, asked, db } = gate({ stored: 2 })
    const { load } = db
    db.load = async () => {
      throw new Error('away')
    }
    it.push(event(2))
    await vi.advanceTimersByTimeAsync(1_050)
    expect(asked).toEqual([0, 0, 0])
    db.load = load
    await vi.advanceTimersByTimeAsync(500)
    expect(told).toEqual([1, 2])
  })

  test('more than a thousand held are not kept, and nothing of them is missing', async () => {
    const { it, told, asked } = gate({ stored: 1_502 })
    for (let version = 2; version <= 1_502; version += 1) it.push(event(version))
    await held()
    expect(told).toEqual(Array.from({ length: 1_502 }, (_, n) => n + 1))
    expect(asked).toEqual([0])
  })
})

describe('closing', () => {
  test('delivers nothing more, though the database was being read', async () => {
    const { it, told } = gate({ stored: 3 })
    it.push(event(3))
    await vi.advanceTimersByTimeAsync(49)
    it.close()
    await held()
    it.push(event(1))
    it.behind(9)
    await held()
    expect(told).toEqual([])
  })

  test('by what is delivered ends the page there', async () => {
    const told: number[] = []
    const it = new Gate({
      deliver: (e) => {
        told.push(e.version)
        if (e.version === 2) it.close()
      },
      load: async () => ({ events: [event(1), event(2), event(3)], version: 3, more: false }),
    })
    it.open(0)
    it.behind(3)
    await held()
    expect(told).toEqual([1, 2])
  })
})
