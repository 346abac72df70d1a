import { randomUUID } from 'node:crypto'
import { type Api, ApiError, each, type Person } from './api.ts'
import { pictureOf } from './picture.ts'
import type { Line, Plan, PlannedChat, PlannedPerson } from './plan.ts'

/** Carries out a plan. What is said in a chat is said in its order; chats are filled side by side. */

export interface Progress {
  people: number
  chats: number
  messages: number
}

export interface FillOptions {
  api: Api
  offers: ReadonlySet<string>
  password: string
  progress: Progress
}

interface Made {
  id: string
  /** Messages by their place in the chat's lines. */
  messages: string[]
}

/** Passwords are dear to make: more at once only wait for each other. */
const registeredAtOnce = 4
const chatsAtOnce = 8

/** Resolves with the people, in the order of the plan. */
export async function fill(plan: Plan, options: FillOptions): Promise<Person[]> {
  const { api, offers, password, progress } = options
  const people: Person[] = []
  await each(plan.people, registeredAtOnce, async (planned, n) => {
    people[n] = await register(api, planned, password)
    if (planned.bio !== '') await api.call('PATCH', '/users/me', { as: people[n], body: { bio: planned.bio } })
    // Some never get round to it.
    if (n % 6 !== 5) await show(options, people[n]!, '/users/me/avatar', planned.username)
    progress.people += 1
  })
  if (offers.has('POST /contacts/requests')) {
    // Two requests that cross make a contact.
    await each(plan.contacts, chatsAtOnce, async ([a, b]) => {
      for (const [from, to] of [
        [a, b],
        [b, a],
      ] as const)
        await api.call('POST', '/contacts/requests', { as: people[from]!, body: { user_id: people[to]!.id } })
    })
  }
  const made: Made[] = []
  await each(plan.chats, chatsAtOnce, async (chat, n) => {
    made[n] = { id: await makeChat(api, people, chat), messages: [] }
    if (chat.type !== 'dm') await show(options, people[chat.members[0]!]!, `/chats/${made[n]!.id}/avatar`, chat.name)
    progress.chats += 1
  })
  // The longest first, so that none is left over in the end.
  const order = plan.chats.map((_, n) => n).sort((a, b) => plan.chats[b]!.lines.length - plan.chats[a]!.lines.length)
  await each(order, chatsAtOnce, async (n) => {
    for (const line of plan.chats[n]!.lines) {
      await speak(api, people, made[n]!, line)
      progress.messages += 1
    }
  })
  for (const { by, from, to } of plan.forwards) {
    const body = { chat_ids: [made[to]!.id], client_id: randomUUID() }
    await api.call('POST', `/messages/${made[from.chat]!.messages[from.line]}/forward`, { as: people[by]!, body })
    progress.messages += 1
  }
  await each(plan.chats, chatsAtOnce, async ({ readers }, n) => {
    for (const reader of readers) await api.call('POST', `/chats/${made[n]!.id}/read`, { as: people[reader]!, body: {} })
  })
  return people
}

/** Gives somebody, or a chat, the picture that goes with a name. */
async function show({ api, offers }: FillOptions, as: Person, path: string, name: string): Promise<void> {
  if (!offers.has('PUT /users/me/avatar')) return
  const body = new FormData()
  body.append('file', new Blob([new Uint8Array(await pictureOf(name))], { type: 'image/png' }), `${name}.png`)
  await api.call('PUT', path, { as, body })
}

/** With a number behind the name where it is taken: the same plan may be filled in twice. */
async function register(api: Api, { username, display_name }: PlannedPerson, password: string): Promise<Person> {
  for (let n = 1; ; n += 1) {
    const name = n === 1 ? username : `${username}_${n}`
    try {
      const body = { username: name, display_name, password }
      const { user_id, token, refresh_token } = await api.call<{ user_id: string; token: string; refresh_token: string }>(
        'POST',
        '/auth/register',
        { body },
      )
      return { id: user_id, username: name, display_name, token, refresh_token }
    } catch (error) {
      if (!(error instanceof ApiError) || error.code !== 'username_taken') throw error
    }
  }
}

async function makeChat(api: Api, people: readonly Person[], chat: PlannedChat): Promise<string> {
  const { type, name, description, members } = chat
  const [owner, ...others] = members.map((n) => people[n]!)
  if (type === 'dm') return (await api.call<{ id: string }>('GET', `/chats/dm/${others[0]!.id}`, { as: owner! })).id
  if (type === 'group') {
    const body = { type, name, description, member_ids: others.map(({ id }) => id) }
    return (await api.call<{ id: string }>('POST', '/chats', { as: owner!, body })).id
  }
  const body = { name, description, is_public: true }
  const { id } = await api.call<{ id: string }>('POST', '/channels', { as: owner!, body })
  for (const reader of others) await api.call('POST', `/channels/${id}/subscribe`, { as: reader })
  return id
}

async function speak(api: Api, people: readonly Person[], { id, messages }: Made, line: Line): Promise<void> {
  const spoken = (text: string) => text.replace(/\{(\d+)\}/g, (_, n: string) => people[Number(n)]!.username)
  const as = people[line.by]!
  const body = {
    chat_id: id,
    content: spoken(line.text),
    // Sent again after an answer that was lost, it is the same message.
    client_id: randomUUID(),
    ...(line.reply_to !== undefined && { reply_to_id: messages[line.reply_to] }),
  }
  const message = await api.call<{ id: string; seq: number }>('POST', '/messages', { as, body })
  messages.push(message.id)
  const path = `/messages/${message.id}`
  for (const { by, emoji } of line.reactions) await api.call('POST', `${path}/reactions`, { as: people[by]!, body: { emoji } })
  if (line.edited !== undefined) await api.call('PATCH', path, { as, body: { content: spoken(line.edited) } })
  if (line.deleted) await api.call('DELETE', path, { as })
  for (const reader of line.readers)
    await api.call('POST', `/chats/${id}/read`, { as: people[reader]!, body: { seq: message.seq } })
}
