import { parseArgs } from 'node:util'
import { createApi } from './api.ts'
import { fill } from './fill.ts'
import { makePlan } from './plan.ts'

/** `npm run seed`: fills a running server with people who talk, through its public interface alone. See docs/running.md. */

const usage = `npm run seed -- [--users 50] [--messages 5000] [--url http://127.0.0.1:8080] [--password …] [--seed 1]

Fills a running server with people, chats and messages. The same numbers and the same --seed say the same things;
run again, it adds more people. A large fill wants a server with RATE_LIMIT_GENERAL, RATE_LIMIT_REGISTER,
RATE_LIMIT_MESSAGE and RATE_LIMIT_CONTACT set to off; otherwise it waits as long as the server asks.`

function refuse(why: string): never {
  console.error(why)
  process.exit(1)
}

function readArguments() {
  try {
    const { values } = parseArgs({
      options: {
        users: { type: 'string', default: '50' },
        messages: { type: 'string', default: '5000' },
        url: { type: 'string', default: 'http://127.0.0.1:8080' },
        password: { type: 'string', default: 'Welcome2Parley' },
        seed: { type: 'string', default: '1' },
        help: { type: 'boolean', short: 'h', default: false },
      },
    })
    return values
  } catch (error) {
    return refuse(`${(error as Error).message}\n\n${usage}`)
  }
}

function whole(name: string, text: string, min: number, max: number): number {
  const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN
  if (!(value >= min && value <= max)) refuse(`--${name} must be a whole number from ${min} to ${max}`)
  return value
}

const given = readArguments()
if (given.help) {
  console.log(usage)
  process.exit(0)
}
const users = whole('users', given.users, 2, 100_000)
const messages = whole('messages', given.messages, 0, 10_000_000)
const seed = whole('seed', given.seed, 0, 999_999_999)
if (!URL.canParse(given.url)) refuse('--url must be a URL such as http://127.0.0.1:8080')
const url = given.url.replace(/\/+$/, '')

const begun = Date.now()
const elapsed = () => `${((Date.now() - begun) / 1_000).toFixed(1)} s`
const progress = { people: 0, chats: 0, messages: 0 }
let told = 0
const api = createApi(url, (seconds, what) => {
  // One line for all who wait.
  if (Date.now() < told) return
  told = Date.now() + Math.max(5, seconds) * 1_000
  console.log(`The server asks to wait ${seconds} s (${what}). RATE_LIMIT_*=off in its environment makes a large fill fast.`)
})

try {
  const offers = await api.offers()
  const plan = makePlan({ users, messages, seed, channels: offers.has('POST /channels') })
  const ticker = setInterval(() => {
    const { people, chats, messages: sent } = progress
    console.log(`${elapsed()}: ${people}/${users} people, ${chats}/${plan.chats.length} chats, ${sent}/${messages} messages`)
  }, 2_000)
  const people = await fill(plan, { api, offers, password: given.password, progress }).finally(() => clearInterval(ticker))
  const count = (type: string) => plan.chats.filter((chat) => chat.type === type).length
  console.log(
    `Made ${people.length} people, ${count('dm')} direct chats, ${count('group')} groups, ${count('channel')} channels and ${messages} messages in ${elapsed()}.`,
  )
  console.log(`Everybody's password is ${given.password}\nLogins:`)
  for (const { username, display_name } of people) console.log(`  ${username}  (${display_name})`)
} catch (error) {
  refuse(`It stopped after ${elapsed()}: ${(error as Error).message}`)
}
