import type { Faker } from '@faker-js/faker'
import { faker as fakerDE } from '@faker-js/faker/locale/de'
import { faker as fakerEN } from '@faker-js/faker/locale/en'
import { faker as fakerES } from '@faker-js/faker/locale/es'
import { faker as fakerFR } from '@faker-js/faker/locale/fr'
import { nameChat, reactions, say, type Tone } from './talk.ts'

/** Everything that is to be made, known before the first call: the same numbers and the same seed are the same plan. */

export interface PlannedPerson {
  username: string
  display_name: string
  bio: string
}

export interface Line {
  /** Places in the list of people. */
  by: number
  /** `{3}` stands for the username of the fourth person. */
  text: string
  /** Place in the chat's lines. */
  reply_to?: number
  reactions: { by: number; emoji: string }[]
  edited?: string
  deleted: boolean
  /** Who reads up to here before the next line. */
  readers: number[]
}

export interface PlannedChat {
  type: 'dm' | 'group' | 'channel'
  name: string
  description: string
  /** The first one makes it. */
  members: number[]
  lines: Line[]
  /** Who has read everything in the end. */
  readers: number[]
}

export interface Forward {
  by: number
  from: { chat: number; line: number }
  to: number
}

export interface Plan {
  people: PlannedPerson[]
  /** Pairs who become contacts. */
  contacts: [number, number][]
  chats: PlannedChat[]
  forwards: Forward[]
}

export interface PlanOptions {
  users: number
  messages: number
  seed: number
  /** Whether the server has channels. */
  channels: boolean
}

export function makePlan({ users, messages, seed, channels }: PlanOptions): Plan {
  const f = fakerEN
  const all = [fakerEN, fakerDE, fakerFR, fakerES]
  for (const [n, faker] of all.entries()) faker.seed(seed * all.length + n)
  // Dates that a sentence names are to be the same tomorrow.
  f.setDefaultRefDate('2026-01-15T10:00:00.000Z')
  const surnames: string[] = []
  const people = makePeople(f, all, users, surnames)
  const everybody = people.map((_, n) => n)
  const pairs = somePairs(f, users, Math.round(users * 1.5))
  const chats: PlannedChat[] = pairs.map((members) => emptyChat('dm', '', '', members))
  const tones: Tone[] = pairs.map(() => f.helpers.arrayElement(['friends', 'family', 'work'] as const))
  const add = (type: 'group' | 'channel', tone: Tone, members: number[]) => {
    const description = f.datatype.boolean(0.5) ? f.company.catchPhrase() : ''
    chats.push(emptyChat(type, nameChat(f, tone, surnames[members[0]!]!), description, members))
    tones.push(tone)
  }
  for (let n = 0; users > 2 && n < Math.max(1, Math.round(users / 6)); n += 1) {
    const members = f.helpers.arrayElements(everybody, { min: 3, max: Math.min(12, users) })
    add('group', f.helpers.arrayElement(['friends', 'family', 'work'] as const), members)
  }
  for (let n = 0; channels && n < Math.max(1, Math.round(users / 25)); n += 1)
    add('channel', 'news', f.helpers.arrayElements(everybody, { min: Math.ceil(users / 2), max: users }))

  const forwarded = Math.floor(messages / 50)
  spread(f, chats, tones, messages - forwarded)
  const forwards = makeForwards(f, chats, forwarded)
  // Where nothing could be forwarded, it is said instead.
  if (forwards.length < forwarded) spread(f, chats, tones, forwarded - forwards.length)
  for (const chat of chats) chat.readers = chat.members.filter(() => f.datatype.boolean(0.6))
  return { people, contacts: pairs.filter(() => f.datatype.boolean(0.8)), chats, forwards }
}

const emptyChat = (type: PlannedChat['type'], name: string, description: string, members: number[]): PlannedChat => ({
  type,
  name,
  description,
  members,
  lines: [],
  readers: [],
})

function makePeople(f: Faker, all: readonly Faker[], count: number, surnames: string[]): PlannedPerson[] {
  const taken = new Set<string>()
  return Array.from({ length: count }, () => {
    const local = f.helpers.weightedArrayElement(all.map((value, n) => ({ value, weight: n === 0 ? 3 : 1 })))
    const [first, last] = [local.person.firstName(), local.person.lastName()]
    surnames.push(last)
    const plain = asciiName(`${first}_${last}`)
    let username = plain
    for (let n = 2; taken.has(username); n += 1) username = `${plain}${n}`
    taken.add(username)
    const bio = f.datatype.boolean(0.6) ? f.person.bio() : ''
    return { username, display_name: `${first} ${last}`, bio }
  })
}

/** `Jürgen Groß` -> `jurgen_gross`: what a username may be made of, with room for a number behind it. */
function asciiName(name: string): string {
  const plain = name
    .toLowerCase()
    .replaceAll('ß', 'ss')
    .normalize('NFD')
    .replace(/[\u0300-\u036f]/g, '')
  return plain
    .replace(/[^a-z0-9_]+/g, '')
    .slice(0, 40)
    .padEnd(3, '_')
}

function somePairs(f: Faker, users: number, wanted: number): [number, number][] {
  const pairs = new Map<string, [number, number]>()
  const most = Math.min(wanted, (users * (users - 1)) / 2)
  while (pairs.size < most) {
    const a = f.number.int({ max: users - 1 })
    const b = f.number.int({ max: users - 1 })
    if (a !== b) pairs.set([a, b].sort((x, y) => x - y).join(), [a, b])
  }
  return [...pairs.values()]
}

/** Gives each line to a chat: some chats are talked in a lot, most a little. */
function spread(f: Faker, chats: PlannedChat[], tones: readonly Tone[], lines: number): void {
  const order = f.helpers.shuffle(chats.map((_, n) => n))
  const weights = order.map((n, rank) => ({ value: n, weight: (chats[n]!.type === 'dm' ? 1 : 3) / (rank + 3) }))
  for (let made = 0; made < lines; made += 1) {
    const n = f.helpers.weightedArrayElement(weights)
    chats[n]!.lines.push(nextLine(f, chats[n]!, tones[n]!))
  }
}

function nextLine(f: Faker, { type, members, lines }: PlannedChat, tone: Tone): Line {
  const others = members.slice(1)
  const by = type === 'channel' ? members[0]! : f.helpers.arrayElement(members)
  let text = say(f, tone)
  if (type === 'group' && f.datatype.boolean(0.08)) text = `@{${f.helpers.arrayElement(others)}} ${text}`
  const line: Line = {
    by,
    text,
    reactions: f.datatype.boolean(0.15)
      ? f.helpers.arrayElements(members, { min: 1, max: Math.min(4, members.length) }).map((who) => ({
          by: who,
          emoji: f.helpers.arrayElement(reactions),
        }))
      : [],
    deleted: f.datatype.boolean(0.005),
    readers: f.datatype.boolean(0.2) ? [f.helpers.arrayElement(members)] : [],
  }
  const before = lines.length - f.number.int({ min: 1, max: 8 })
  if (f.datatype.boolean(0.15) && lines[before]?.deleted === false) line.reply_to = before
  if (!line.deleted && f.datatype.boolean(0.03)) line.edited = `${text} (I mean it)`
  return line
}

/** Something that was said in one chat of a person, passed on to another of theirs. */
function makeForwards(f: Faker, chats: readonly PlannedChat[], wanted: number): Forward[] {
  const mayWrite = ({ type, members }: PlannedChat, person: number) =>
    type === 'channel' ? members[0] === person : members.includes(person)
  const sources = chats.flatMap(({ lines }, chat) => (lines.some(({ deleted }) => !deleted) ? [chat] : []))
  const forwards: Forward[] = []
  for (let tries = 0; sources.length > 0 && forwards.length < wanted && tries < wanted * 10; tries += 1) {
    const chat = f.helpers.arrayElement(sources)
    const by = f.helpers.arrayElement(chats[chat]!.members)
    const targets = chats.flatMap((target, n) => (n !== chat && mayWrite(target, by) ? [n] : []))
    const line = f.number.int({ max: chats[chat]!.lines.length - 1 })
    if (targets.length > 0 && !chats[chat]!.lines[line]!.deleted)
      forwards.push({ by, from: { chat, line }, to: f.helpers.arrayElement(targets) })
  }
  return forwards
}
