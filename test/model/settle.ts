import { setTimeout as sleep } from 'node:timers/promises'
import { isDeepStrictEqual } from 'node:util'
import { Client } from '../client/client.ts'
import {
  checkCounters,
  checkHearing,
  checkSends,
  comingsOf,
  countUnread,
  deletedChats,
  journalOf,
  shownBeside,
} from './checks.ts'
import { compare } from './compare.ts'
import { checkDeeds, checkGone, checkMentions, checkStored, checkWords, goneTexts } from './life-checks.ts'
import { checkRelations } from './relate.ts'
import { blocksOf, checkShown } from './relation-checks.ts'
import type { Person, Run } from './run.ts'

/** The end of a run: all is kind again, and whoever was live, comes back or is new must see the same. */

/** So long may catching up take on a busy machine. */
const patienceMs = 8_000

/** Asks again until there is nothing to complain of, or it takes too long. */
async function patiently(complain: () => Promise<string[]>): Promise<string[]> {
  const until = Date.now() + patienceMs
  for (;;) {
    const complaints = await complain()
    if (complaints.length === 0 || Date.now() > until) return complaints
    await sleep(20)
  }
}

export async function settle(run: Run): Promise<string[]> {
  const { world, people, devices, logouts } = run
  const { rows } = await world.sql.query<{ id: string }>('SELECT id FROM chats WHERE id = ANY($1) AND deleted_at IS NOT NULL', [
    run.chats,
  ])
  for (const { id } of rows) deletedChats.add(id)
  await tellReactions(run)
  const complaints: string[] = []
  const newest = await Promise.all(people.map((person) => newDevice(run, person)))
  complaints.push(...(await Promise.all(newest.map((client, n) => checkNew(run, people[n]!, client)))).flat())
  const differences = (of: 'stamped' | 'ticks') =>
    devices.flatMap((device) => {
      const fresh = newest[people.findIndex((p) => p.account.id === device.userId)]!
      return device.isOpen ? compare(device.client.state, fresh.state)[of].map((said) => `${device.name}: ${said}`) : []
    })
  // Whoever is connected gets there without asking: the hub finds what the bus lost, if it did.
  if (run.lossy) world.gap()
  complaints.push(...(await patiently(async () => differences('stamped').map((said) => `live: ${said}`))))
  for (const { client, device, wasOpen } of logouts) {
    complaints.push(...(await patiently(async () => (client.isOpen ? [`${device} is signed out and still connected`] : []))))
    if (wasOpen && client.closedWith !== 4001 && client.closedWith !== 1005)
      complaints.push(`${device} was signed out, and closed with ${client.closedWith}`)
  }
  await Promise.all(devices.map(async (device, n) => (device.isOpen ? device.client.sync() : device.connect(n % 2))))
  for (const device of devices) if (!device.isOpen) complaints.push(`${device.name} could not come back`)
  complaints.push(...(await patiently(async () => differences('stamped').map((said) => `resumed: ${said}`))))
  complaints.push(...(await patiently(async () => differences('ticks').map((said) => `ticks: ${said}`))))
  const journal = await journalOf(world.sql, run.chats)
  const [blocks, comings] = [await blocksOf(run), await comingsOf(world.sql, run.channels)]
  complaints.push(...(await checkCounters(world.sql, run.chats)), ...(await checkSends(run, journal, blocks)))
  complaints.push(...(await checkRelations(run)))
  complaints.push(...(await checkStored(world.sql, run.chats)), ...(await checkDeeds(run, journal, blocks)))
  complaints.push(...(await checkWords(world.sql, run.chats)))
  complaints.push(...(await checkMentions(run, journal)))
  const gone = await goneTexts(run)
  for (const device of devices) {
    complaints.push(...device.complaints)
    for (const hearing of device.hearings)
      complaints.push(...checkHearing(run, hearing, journal, comings), ...checkGone(hearing, gone))
  }
  for (const client of newest) client.close()
  for (const device of devices) device.disconnect()
  return complaints
}

/** In channels they wait for each other before they are told. */
async function tellReactions({ world, channels }: Run): Promise<void> {
  if (channels.length === 0) return
  await world.sql.query(`UPDATE channel_reactions_due SET at = now() - interval '1 minute' WHERE chat_id = ANY($1)`, [channels])
  await patiently(async () => {
    const { rows } = await world.sql.query('SELECT 1 FROM channel_reactions_due WHERE chat_id = ANY($1)', [channels])
    return rows.length > 0 ? ['reactions are not told'] : []
  })
}

async function newDevice(run: Run, { account }: Person): Promise<Client> {
  const { url } = run.world.servers.instances[run.texts % 2]!
  return new Client({ url, userId: account.id, token: () => account.token }).connect()
}

/** A new device shows what the database says, counted the slow way. */
async function checkNew(run: Run, { account }: Person, { state }: Client): Promise<string[]> {
  const complaints: string[] = []
  complaints.push(...(await checkShown(run.world.sql, account.id, state)))
  const counted = await countUnread(run.world.sql, account.id)
  for (const [id, chat] of state.chats) {
    const name = `${account.username} ${id}`
    const { unread, mentions } = counted.get(id) ?? {}
    if (unread !== chat.toldUnread || unread !== state.unread(id))
      complaints.push(`${name}: ${unread} are unread, told ${chat.toldUnread}, shown ${state.unread(id)}`)
    if (mentions !== chat.toldMentions || mentions !== state.mentions(id))
      complaints.push(`${name}: ${mentions} mentions, told ${chat.toldMentions}, shown ${state.mentions(id)}`)
    const beside = await shownBeside(run.world.sql, id, account.id)
    for (const message of chat.messages.values()) {
      const { reactions, quote } = beside.get(message.seq)!
      const { seq, content, deleted } = message.reply_to ?? {}
      const shownThere = [
        [...message.reactions].sort((a, b) => (a.emoji < b.emoji ? -1 : 1)),
        message.reply_to && { seq, content, deleted },
      ]
      if (!isDeepStrictEqual(shownThere, [reactions, quote]))
        complaints.push(`${name} #${message.seq}: shows ${JSON.stringify(shownThere)}, is ${JSON.stringify([reactions, quote])}`)
      if (message.sender_id !== account.id || message.message_type === 'system' || !('status' in message)) continue
      const shown = state.status(id, message.seq)
      if (message.status !== shown)
        complaints.push(`${account.username} ${id} #${message.seq}: told ${message.status}, shown ${shown}`)
    }
  }
  const { rows } = await run.world.sql.query<{ chat_id: string }>(
    `SELECT m.chat_id FROM chat_members m JOIN chats c ON c.id = m.chat_id WHERE m.user_id = $1 AND m.left_at IS NULL AND c.deleted_at IS NULL`,
    [account.id],
  )
  const mine = rows.map((row) => row.chat_id).sort()
  const shown = [...state.chats.keys()].sort()
  if (JSON.stringify(mine) !== JSON.stringify(shown)) complaints.push(`${account.username} is in ${mine}, shown ${shown}`)
  return complaints
}
