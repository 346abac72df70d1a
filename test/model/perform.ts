import { setTimeout as sleep } from 'node:timers/promises'
import type { HistoryPage } from '../client/chat-state.ts'
import type { Account } from '../support/server.ts'
import { type Of, pick, rest, who } from './acting.ts'
import type { Device } from './device.ts'
import { live, post } from './life.ts'
import { meet, relate } from './relate.ts'
import type { Run } from './run.ts'
import { type Action, type Fault, losses } from './script.ts'
import { moveCursor, send, sendAgain, sendTwice } from './talking.ts'

/** Carries out one action against the real thing; resolves with a word for the log. */

export async function perform(run: Run, action: Action): Promise<string> {
  switch (action.do) {
    case 'send':
      return send(run, action)
    case 'send_twice':
      return sendTwice(run, action)
    case 'send_again':
      return sendAgain(run, action)
    case 'read':
    case 'delivered':
      return moveCursor(run, action)
    case 'edit':
    case 'delete':
    case 'react':
    case 'pin':
    case 'forward':
    case 'race':
    case 'call_and_remove':
      return live(run, action)
    case 'cross':
    case 'block_and_send':
      return meet(run, action)
    case 'add':
    case 'remove':
    case 'role':
      return changeMember(run, action)
    case 'transfer': {
      const { chat, account, target } = await group(run, { ...action, actor: 'owner' })
      return rest(run, 'POST', `/chats/${chat}/transfer`, account, action.at, { user_id: target })
    }
    case 'rename': {
      const { chat, account } = await group(run, action)
      run.texts += 1
      return rest(run, 'PATCH', `/chats/${chat}`, account, action.at, { name: `name ${run.texts}` })
    }
    case 'leave':
      return rest(run, 'POST', `/chats/${pick(run.groups, action.chat)}/leave`, who(run, action), action.at, {})
    case 'delete_group': {
      const { chat, account } = await group(run, { ...action, actor: 'owner' })
      return rest(run, 'DELETE', `/chats/${chat}`, account, action.at)
    }
    case 'clear_dm': {
      const [chat, account] = [pick(run.dms, action.chat), who(run, action)]
      run.cleared.add(`${chat} ${account.id}`)
      return rest(run, 'DELETE', `/chats/${chat}`, account, action.at)
    }
    case 'create_group':
      return createGroup(run, action)
    case 'settings':
      return settings(run, action)
    case 'relate':
      return relate(run, action)
    case 'join':
      return rest(run, 'POST', `/invites/${run.invite}/join`, who(run, action), action.at)
    case 'post':
      return post(run, action)
    case 'subscribe':
    case 'staff':
      return inChannel(run, action)
    case 'connect':
      await pick(run.devices, action.device).connect(action.at)
      return 'done'
    case 'disconnect':
      pick(run.devices, action.device).disconnect()
      return 'done'
    case 'logout':
      return logout(run, pick(run.devices, action.device), action.at)
    case 'sync':
      return syncPage(pick(run.devices, action.device), action.limit)
    case 'history':
      return history(run, action)
    case 'fault':
      return fault(run, action.kind, action.at)
    case 'pause':
      await sleep(action.ms)
      return 'done'
  }
}

// --- groups ------------------------------------------------------------------------------------------------------------

interface GroupAction {
  device: number
  chat: number
  actor: 'owner' | 'anybody'
  target?: number
  fit?: boolean
  do?: string
}

async function group(run: Run, action: GroupAction): Promise<{ chat: string; account: Account; target: string }> {
  const chat = pick(run.groups, action.chat)
  const { rows } = await run.world.sql.query<{ owner_id: string }>('SELECT owner_id FROM chats WHERE id = $1', [chat])
  const owner = run.people.find((person) => person.account.id === rows[0]?.owner_id)
  const account = action.actor === 'owner' && owner ? owner.account : who(run, action)
  const everybody = run.people.map((person) => person.account.id)
  const members = await run.world.sql.query<{ user_id: string }>(
    'SELECT user_id FROM chat_members WHERE chat_id = $1 AND left_at IS NULL',
    [chat],
  )
  const inside = new Set(members.rows.map((row) => row.user_id))
  const fitting = everybody.filter((id) => inside.has(id) === (action.do !== 'add') && id !== account.id)
  const candidates = action.fit !== false && fitting.length > 0 ? fitting : everybody
  return { chat, account, target: pick(candidates, action.target ?? 0) }
}

async function changeMember(run: Run, action: Of<'add' | 'remove' | 'role'>): Promise<string> {
  const { chat, account, target } = await group(run, action)
  const path = `/chats/${chat}/members`
  const said = `${chat.slice(-4)} ${run.people.findIndex((p) => p.account.id === target)} `
  if (action.do === 'add') return said + (await rest(run, 'POST', path, account, action.at, { user_ids: [target] }))
  if (action.do === 'remove') return said + (await rest(run, 'DELETE', `${path}/${target}`, account, action.at))
  const role = action.admin ? 'admin' : 'member'
  return said + (await rest(run, 'PATCH', `${path}/${target}`, account, action.at, { role }))
}

async function inChannel(run: Run, action: Of<'subscribe' | 'staff'>): Promise<string> {
  const [channel] = run.channels
  if (channel === undefined) return 'no channel'
  const me = who(run, action)
  if (action.do === 'subscribe')
    return rest(run, action.undo ? 'DELETE' : 'POST', `/channels/${channel}/subscribe`, me, action.at)
  const owner = run.people[0]!.account
  const path = `/chats/${channel}/members/${pick(run.people, action.target).account.id}`
  return rest(run, 'PATCH', path, owner, action.at, { role: action.admin ? 'admin' : 'member' })
}

async function createGroup(run: Run, action: Of<'create_group'>): Promise<string> {
  const owner = who(run, action)
  const member_ids = run.people.map((p) => p.account.id).filter((id, n) => id !== owner.id && (action.members >> n) & 1)
  run.texts += 1
  const { status, body } = await run.world.servers.call<{ id: string }>('POST', '/chats', {
    as: owner,
    at: action.at,
    body: { type: 'group', name: `group ${run.texts}`, member_ids },
  })
  if (status !== 201) return String(body.code)
  run.groups.push(body.id)
  run.chats.push(body.id)
  return body.id
}

async function settings(run: Run, action: Of<'settings'>): Promise<string> {
  const { archived, pinned, muted } = action
  const muted_until = muted === undefined ? undefined : muted ? '2099-01-01T00:00:00.000Z' : null
  const body = {
    ...(archived !== undefined && { archived }),
    ...(pinned !== undefined && { pinned }),
    ...(muted_until !== undefined && { muted_until }),
  }
  const path = `/chats/${pick(run.chats, action.chat)}/settings`
  return rest(run, 'PATCH', path, who(run, action), action.at, body)
}

// --- devices -----------------------------------------------------------------------------------------------------------

async function logout(run: Run, device: Device, at: number): Promise<string> {
  // One session of each user stays, for REST calls.
  const { account, client } = device
  if (device.signedOut || run.people.some((person) => person.account.token === account.token)) return 'kept'
  device.signedOut = true
  run.logouts.push({ device: device.name, account, client, wasOpen: device.isOpen })
  return rest(run, 'POST', '/auth/logout', account, at)
}

async function syncPage(device: Device, limit: number): Promise<string> {
  if (!device.isOpen) return 'not connected'
  device.client.syncLimit = limit
  await device.client.sync()
  device.client.syncLimit = undefined
  return 'done'
}

async function history(run: Run, action: Of<'history'>): Promise<string> {
  const device = pick(run.devices, action.device)
  const chatId = pick(run.chats, action.chat)
  const { client } = device
  const { lastSeq = 5 } = client.state.chats.get(chatId) ?? {}
  const before = 1 + (action.before % (lastSeq + 3))
  const answer = await run.world.servers.call<HistoryPage>('GET', `/chats/${chatId}/messages?limit=5&before=${before}`, {
    as: who(run, action),
    at: action.at,
  })
  if (answer.status !== 200) return String(answer.body.code)
  run.later.push({ step: run.step + 1 + action.delay, work: () => client.page(chatId, answer.body) })
  return `${answer.body.messages.length} messages at ${answer.body.version}`
}

// --- mishaps -----------------------------------------------------------------------------------------------------------

function fault({ world, lossy }: Run, kind: Fault, at: number): string {
  if (!lossy && losses.has(kind)) return 'not in this run'
  const { exchange, buses, mishaps } = world
  const mine = mishaps[at]!
  switch (kind) {
    case 'unkind':
      world.unkind(lossy)
      return 'done'
    case 'kind':
      exchange.unkind = undefined
      return 'done'
    case 'outage':
      exchange.outage()
      return 'done'
    case 'restore':
      exchange.restore()
      return 'done'
    case 'disconnect_bus':
      exchange.disconnect(buses[at]!)
      return 'done'
    case 'reconnect_bus':
      exchange.reconnect(buses[at]!)
      return 'done'
    case 'lose_tell':
      mine.loseTell += 1
      return 'done'
    case 'ambiguous_insert':
      mine.ambiguousInsert += 1
      return 'done'
    case 'failed_insert':
      mine.failedInsert += 1
      return 'done'
    case 'ambiguous_transaction':
      mine.ambiguousTransaction += 1
      return 'done'
    case 'slow':
      mine.slow = !mine.slow
      return 'done'
  }
}
