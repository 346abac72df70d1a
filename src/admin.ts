import { parseArgs } from 'node:util'
import { ConfigError, readConfig } from './config.ts'
import { type AdminCommand, commands } from './modules/admin/index.ts'
import { asAppError, openDb } from './platform/db/db.ts'
import { StartError } from './platform/db/migrate.ts'
import { openForCommand } from './platform/db/operate.ts'
import { AppError } from './platform/errors.ts'
import { createLog } from './platform/log.ts'
import { createNotices } from './platform/notices.ts'
import { createPasswords } from './platform/passwords.ts'

/**
 * The operator's commands, `npm run admin -- …`: beside a running server or without one, on the same configuration. Exits
 * with 0 when done, 1 when refused, 2 when the command is not one.
 */

const done = 0
const refused = 1
const misused = 2

const usage = (name: string, { usage, what }: AdminCommand) => `  ${`${name} ${usage}`.trim()}\n      ${what}`

const help = () =>
  ['Usage: npm run admin -- <command>', ...Object.entries(commands).map(([name, command]) => usage(name, command))].join('\n')

/** The longest name that the words begin with. */
function find(words: readonly string[]): [name: string, command: AdminCommand, rest: string[]] | undefined {
  for (const length of [2, 1]) {
    const name = words.slice(0, length).join(' ')
    if (Object.hasOwn(commands, name)) return [name, commands[name]!, words.slice(length)]
  }
  return undefined
}

function read(command: AdminCommand, words: string[]) {
  const { values, positionals } = parseArgs({ args: words, options: command.options ?? {}, allowPositionals: true })
  const wanted = command.usage.startsWith('<') ? 1 : 0
  if (positionals.length !== wanted) throw new TypeError(wanted === 1 ? 'One name is needed.' : 'Too many words.')
  return { args: positionals, options: values as Record<string, string | boolean | undefined> }
}

async function run(command: AdminCommand, given: ReturnType<typeof read>): Promise<string[]> {
  // Nothing is signed here, so that the secret need not be at hand.
  const config = readConfig({ ...process.env, JWT_SECRET: '-'.repeat(32) })
  const { connection, close } = await openForCommand({ ...config, log: createLog('warn', process.stderr) })
  try {
    const db = openDb({ connection, poolSize: 2, onError: () => {} })
    try {
      const notices = createNotices(db)
      const lines = await command.run(
        {
          db,
          control: notices,
          passwords: createPasswords({ cost: config.bcryptCost }),
          baseUrl: config.publicUrl ?? `http://localhost:${config.port}`,
        },
        given,
      )
      await notices.told()
      return lines
    } finally {
      await db.close()
    }
  } finally {
    await close()
  }
}

async function main(words: string[]): Promise<number> {
  if (words[0] === 'help' || words[0] === '--help') {
    console.log(help())
    return done
  }
  const found = find(words)
  if (!found) {
    console.error(help())
    return misused
  }
  const [name, command, rest] = found
  let given: ReturnType<typeof read>
  try {
    given = read(command, rest)
  } catch (error) {
    console.error(`${(error as Error).message}\n${`Usage: npm run admin -- ${name} ${command.usage}`.trim()}`)
    return misused
  }
  try {
    for (const line of await run(command, given)) console.log(line)
    return done
  } catch (error) {
    if (error instanceof ConfigError || error instanceof StartError) console.error(error.message)
    else {
      const refusal = asAppError(error)
      const details = Object.entries(refusal.details ?? {}).map(([field, why]) => `${field} ${why}`)
      console.error(details.length > 0 ? `${details.join('; ')}.` : `${refusal.message}.`)
      if (refusal.code === 'internal_error') console.error(error)
      if (error instanceof AppError && refusal.code === 'invalid_input') return misused
    }
    return refused
  }
}

// The embedded database, if it was started for this, stops with the process.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(refused))
process.exitCode = await main(process.argv.slice(2))
