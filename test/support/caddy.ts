import { readFile } from 'node:fs/promises'
import { request as httpRequest, type IncomingMessage } from 'node:http'
import { request as httpsRequest, type RequestOptions } from 'node:https'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { WebSocket } from 'ws'
import { freePort } from './redis.ts'
import { ensureTool, root, scratch, start } from './tools.ts'

/** Not `localhost`, so that what holds for a public name is tried; the certificate is Caddy's own all the same. */
const domain = 'chat.test'

export type Answer = { status: number; headers: IncomingMessage['headers']; body: Buffer }
export type Caddy = Awaited<ReturnType<typeof startCaddy>>

/** The repository's Caddyfile in a real Caddy on 127.0.0.1, in front of the given port. What differs is only what its environment offers. */
export async function startCaddy(upstreamPort: number, env: Record<string, string> = {}) {
  ensureTool('caddy', 'caddy')
  const { dir, remove } = await scratch('caddy')
  const [httpPort, httpsPort] = [await freePort(), await freePort()]
  const logFile = join(dir, 'access.log')
  const caddy = await start('caddy', ['run', '--config', join(root, 'Caddyfile'), '--adapter', 'caddyfile'], {
    cwd: dir,
    ready: /serving initial configuration/,
    env: {
      PATH: process.env.PATH,
      HOME: dir,
      XDG_DATA_HOME: dir,
      XDG_CONFIG_HOME: dir,
      DOMAIN: domain,
      API_UPSTREAM: `127.0.0.1:${upstreamPort}`,
      ADMIN: 'off',
      HTTP_PORT: `${httpPort}`,
      HTTPS_PORT: `${httpsPort}`,
      // `debug`: what the log holds then must be harmless too.
      GLOBAL_OPTIONS: 'debug\nlocal_certs\nskip_install_trust\ndefault_bind 127.0.0.1',
      ACCESS_LOG: `file ${logFile}`,
      ...env,
    },
  }).catch(async (error) => {
    await remove()
    throw error
  })
  const stop = async () => {
    await caddy.stop()
    await remove()
  }

  let ca = ''
  /** An https request whose answer's headers have come; the body is still to be read. */
  function open(path: string, options: RequestOptions & { body?: Buffer } = {}): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      const { body, headers, ...rest } = options
      const target = { host: '127.0.0.1', port: httpsPort, servername: domain, ca, path, agent: false }
      const request = httpsRequest({ ...target, ...rest, headers: { host: domain, ...headers } }, resolve)
      request.once('error', reject)
      request.end(body)
    })
  }

  try {
    // The first handshakes fail until the certificate is made.
    for (const end = Date.now() + 10_000; ; await sleep(50)) {
      try {
        ca = await readFile(join(dir, 'caddy/pki/authorities/local/root.crt'), 'utf8')
        ;(await open('/health')).resume()
        break
      } catch (error) {
        if (Date.now() > end) throw new Error(`Caddy did not serve https in 10 s: ${error}\n${caddy.output()}`)
      }
    }
  } catch (error) {
    await stop()
    throw error
  }

  return {
    open,
    stop,
    async get(path: string, options: RequestOptions & { body?: Buffer } = {}): Promise<Answer> {
      const message = await open(path, options)
      const chunks = await message.toArray()
      return { status: message.statusCode!, headers: message.headers, body: Buffer.concat(chunks) }
    },
    plain(path: string): Promise<IncomingMessage> {
      return new Promise((resolve, reject) => {
        const request = httpRequest(
          { host: '127.0.0.1', port: httpPort, path, headers: { host: domain }, agent: false },
          (message) => {
            message.resume()
            resolve(message)
          },
        )
        request.once('error', reject).end()
      })
    },
    socket(path: string, headers: Record<string, string> = {}): WebSocket {
      // Node's own TLS option, which the types of `ws` leave out.
      const options = { ca, servername: domain, headers: { host: domain, ...headers } }
      return new WebSocket(`wss://127.0.0.1:${httpsPort}${path}`, options)
    },
    accessLog: () => readFile(logFile, 'utf8').catch(() => ''),
    output: () => caddy.output(),
  }
}
