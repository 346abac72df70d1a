import { createServer, type Server } from './app.ts'
import { ConfigError, readConfig } from './config.ts'
import { type Context, openContext } from './context.ts'
import { StartError } from './platform/db/migrate.ts'

/** Start, signals, graceful stop; nothing else. */

/** What takes longer than this to stop is left behind: nothing acknowledged depends on it. */
const stopWithinMs = 9_000

let context: Context | undefined
let server: Server | undefined
let stopping = false

/** Ends with `code` when all is closed, or when that takes too long. */
async function stop(code: number): Promise<void> {
  if (stopping) return
  stopping = true
  setTimeout(() => process.exit(code || 1), stopWithinMs).unref()
  try {
    await server?.close()
    await context?.close()
  } catch (error) {
    context?.log.error({ err: error }, 'could not stop cleanly')
    process.exit(code || 1)
  }
  process.exit(code)
}

function refuse(why: string): void {
  console.error(`Parley cannot go on: ${why}`)
  process.exitCode = 1
  void stop(1)
}

process.on('SIGTERM', () => void stop(0))
process.on('SIGINT', () => void stop(0))
process.on('unhandledRejection', (error) => {
  context?.log.error({ err: error }, 'a promise failed and nobody asked for it')
})

try {
  const config = readConfig(process.env)
  context = await openContext({ config, onFatal: refuse })
  if (!stopping) {
    server = await createServer(context)
    await server.app.listen({ host: config.host, port: config.port })
    const { port } = server.app.server.address() as { port: number }
    const host =
      config.host === '0.0.0.0' || config.host === '::'
        ? 'localhost'
        : config.host.includes(':')
          ? `[${config.host}]`
          : config.host
    console.log(`Parley is ready on http://${host}:${port}`)
  }
} catch (error) {
  const { code, message, syscall } = error as NodeJS.ErrnoException
  if (error instanceof ConfigError || error instanceof StartError) refuse(message)
  else if (code === 'EADDRINUSE') refuse(`PORT ${process.env.PORT ?? 8080} is in use by another program.`)
  else if (code === 'EACCES' && syscall === 'listen') refuse(`PORT ${process.env.PORT} is not for this user to take.`)
  else if (code === 'EADDRNOTAVAIL' || code === 'ENOTFOUND') refuse(`HOST ${process.env.HOST} is no address of this machine.`)
  else {
    console.error(error)
    refuse(message)
  }
}
