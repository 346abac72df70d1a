import { type Of, pick, rest, who } from './acting.ts'
import type { Person, Run } from './run.ts'
import { sendAs } from './talking.ts'

/** What a person does with another: asks, answers, parts, blocks. */

/** Two ask each other at once; or the two of a direct chat write while the one blocks the other. */
export async function meet(run: Run, { do: what, device, chat, at, undo }: Of<'cross' | 'block_and_send'>): Promise<string> {
  const chatId = pick(run.dms, chat)
  const [a, b] = run.pairs.get(chatId)!.map((id) => run.people.find((person) => person.account.id === id)!) as [Person, Person]
  const ask = (from: Person, to: Person, n: number) =>
    rest(run, 'POST', '/contacts/requests', from.account, n, { user_id: to.account.id })
  if (what === 'cross') return (await Promise.all([ask(a, b, at), ask(b, a, 1 - at)])).join(', ')
  const said = await Promise.all([
    rest(run, undo ? 'DELETE' : 'PUT', `/blocks/${b.account.id}`, a.account, at),
    sendAs(run, pick(b.devices, device), chatId, 1 - at, true, {}),
    sendAs(run, pick(a.devices, device), chatId, at, true, {}),
  ])
  return said.join(', ')
}

export async function relate(run: Run, action: Of<'relate'>): Promise<string> {
  const { op, target, at } = action
  const account = who(run, action)
  const other = pick(
    run.people.filter((person) => person.account.id !== account.id),
    target,
  ).account
  switch (op) {
    case 'ask':
      return rest(run, 'POST', '/contacts/requests', account, at, { user_id: other.id })
    case 'accept':
    case 'drop': {
      const { rows } = await run.world.sql.query<{ request_id: string }>(
        'SELECT request_id FROM relations WHERE user_id = $1 AND request_id IS NOT NULL ORDER BY other_id = $2 DESC LIMIT 1',
        [account.id, other.id],
      )
      if (!rows[0]) return 'nothing waits'
      const path = `/contacts/requests/${rows[0].request_id}`
      return op === 'accept' ? rest(run, 'POST', `${path}/accept`, account, at) : rest(run, 'DELETE', path, account, at)
    }
    case 'part':
      return rest(run, 'DELETE', `/contacts/${other.id}`, account, at)
    case 'block':
      return rest(run, 'PUT', `/blocks/${other.id}`, account, at)
    case 'unblock':
      return rest(run, 'DELETE', `/blocks/${other.id}`, account, at)
  }
}

/** What a run's people hold of each other, where the two sides do not agree. */
export async function checkRelations(run: Run): Promise<string[]> {
  const ids = run.people.map((person) => person.account.id)
  const { rows } = await run.world.sql.query<{ said: string }>(
    `SELECT a.user_id || ' ' || a.state || ', ' || a.other_id || ' ' || coalesce(b.state, 'nothing') AS said
     FROM relations a LEFT JOIN relations b ON b.user_id = a.other_id AND b.other_id = a.user_id
     WHERE a.user_id = ANY($1) AND (a.state, coalesce(b.state, 'none'), a.request_id IS NOT DISTINCT FROM b.request_id) NOT IN
       (('none', 'none', true), ('contact', 'contact', true), ('requested', 'incoming', true), ('incoming', 'requested', true))`,
    [ids],
  )
  return rows.map((row) => row.said)
}
