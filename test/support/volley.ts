import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'vitest'
import type { Client } from '../client/client.ts'
import type { Account, TestServers } from './server.ts'

/** Sends of one person into one chat that race, round after round, with what shuts them out of it. Two instances. */
export function createVolleys(
  servers: TestServers,
  { as, sender, chatId, refusal }: { as: Account; sender: Client; chatId: string; refusal: [status: number, code: string] },
) {
  const [status, code] = refusal
  /** What was acknowledged, and what was refused. */
  const kept: string[] = []
  const refused: string[] = []
  const note = (content: string, isSent: boolean) => (isSent ? kept : refused).push(content)
  const post = (content: string, at: number) => servers.call('POST', '/messages', { as, body: { chat_id: chatId, content }, at })

  async function send(content: string, n: number): Promise<void> {
    // Some of them before what they race with, some at the same time, some after.
    if (n % 3 === 2) await sleep(n)
    if (n % 2) {
      const answer = await post(content, n > 3 ? 1 : 0)
      expect([201, status]).toContain(answer.status)
      note(content, answer.status === 201)
    } else {
      await sender.send(chatId, content).then(
        () => note(content, true),
        (error: { code?: string }) => {
          expect(error.code).toBe(code)
          note(content, false)
        },
      )
    }
  }

  return {
    kept,
    refused,
    /** Six sends, `round.n`, over REST and WebSocket. Resolves once all are answered. */
    fire: async (round: number): Promise<void> => {
      await Promise.all(Array.from({ length: 6 }, (_, n) => send(`${round}.${n}`, n)))
    },
    /** They are shut out: whatever arrives is refused, wherever it arrives. */
    async checkShut(): Promise<void> {
      const late = await Promise.all([0, 1].map((at) => post('late', at)))
      expect(late.map((answer) => [answer.status, answer.body.code])).toEqual([refusal, refusal])
    },
  }
}
