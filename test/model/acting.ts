import type { Account } from '../support/server.ts'
import type { Run } from './run.ts'
import type { Action } from './script.ts'

/** What all actions need. */

export type Of<K extends Action['do']> = Extract<Action, { do: K }>

export const pick = <T>(list: readonly T[], n: number): T => list[n % list.length]!

export const who = (run: Run, { device }: { device: number }): Account => {
  const { userId } = pick(run.devices, device)
  return run.people.find((person) => person.account.id === userId)!.account
}

export async function rest(run: Run, method: string, path: string, as: Account, at: number, body?: object): Promise<string> {
  const answer = await run.world.servers.call(method, path, { as, at, ...(body && { body }) })
  return answer.status < 400 ? 'ok' : String(answer.body.code)
}
