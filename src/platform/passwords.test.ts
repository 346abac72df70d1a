import bcrypt from 'bcrypt'
import { afterEach, expect, test, vi } from 'vitest'
import { createPasswords } from './passwords.ts'

afterEach(() => {
  vi.restoreAllMocks()
})

test('only so many are compared at once, only so many wait, and turns are handed on in order', async () => {
  let running = 0
  let most = 0
  const finish: (() => void)[] = []
  vi.spyOn(bcrypt, 'compare').mockImplementation(async () => {
    most = Math.max(most, ++running)
    await new Promise<void>((resolve) => finish.push(resolve))
    running--
    return true
  })
  const { matches } = createPasswords({ cost: 4, workers: 2, maxWaiting: 3 })
  const order: number[] = []
  const all = [0, 1, 2, 3, 4].map((n) => matches('x', 'hash').then(() => order.push(n)))
  await expect(matches('x', 'hash')).rejects.toMatchObject({ code: 'overloaded', status: 503 })
  while (order.length < 5) {
    finish.shift()?.()
    await new Promise((resolve) => setImmediate(resolve))
  }
  await Promise.all(all)
  expect(order).toEqual([0, 1, 2, 3, 4])
  expect(most).toBe(2)
  // Nobody is left counted: the next two run at once.
  void matches('x', 'hash')
  void matches('x', 'hash')
  await new Promise((resolve) => setImmediate(resolve))
  expect(running).toBe(2)
  for (const done of finish) done()
})

test('a hash that fails gives its turn back', async () => {
  vi.spyOn(bcrypt, 'hash').mockRejectedValueOnce(new Error('no memory') as never)
  const { hash, matches } = createPasswords({ cost: 4, workers: 1, maxWaiting: 0 })
  await expect(hash('x')).rejects.toThrow('no memory')
  expect(await matches('Passw0rd', await hash('Passw0rd'))).toBe(true)
})

test('nothing matches a missing hash, what bcrypt would cut off, or NUL', async () => {
  const { hash, matches } = createPasswords({ cost: 4 })
  const long = 'ä'.repeat(36)
  const stored = await hash(long)
  expect(await matches(long, stored)).toBe(true)
  expect(await matches(`${long}x`, stored)).toBe(false)
  expect(await matches('x\0y', await hash('x'))).toBe(false)
  expect(await matches('', null)).toBe(false)
  expect(await matches('.', undefined)).toBe(false)
})
