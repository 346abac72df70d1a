/** A private Redis: keeps nothing, listens on loopback only, and ends with the process that started it. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'

export interface PrivateRedis {
  readonly url: string
  readonly port: number
  /** Of the running process; undefined while stopped. */
  readonly pid: number | undefined
  /** Kills it with SIGKILL unless told otherwise, also while paused. Leaves no file. */
  stop(signal?: NodeJS.Signals): Promise<void>
  /** Starts it again, empty, on the same port. */
  start(): Promise<void>
  /** Freezes it: connections stay open and nothing answers. */
  pause(): void
  resume(): void
}

/** Starts a Redis on a free port. Stop it in `afterAll`. `more` are arguments beside those that every one has. */
export async function startRedis(more: (port: number) => Promise<string[]> = async () => []): Promise<PrivateRedis> {
  for (let attempt = 1; ; attempt++) {
    const port = await freePort()
    const redis = privateRedis(port, await more(port))
    try {
      await redis.start()
      return redis
    } catch (error) {
      // Somebody else may have taken the port meanwhile.
      if (attempt === 5) throw error
    }
  }
}

function privateRedis(port: number, more: string[]): PrivateRedis {
  let child: ChildProcess | undefined
  const killAtExit = () => child?.kill('SIGKILL')

  async function start() {
    if (child) throw new Error(`Redis already runs on port ${port}`)
    const args = [
      '--port',
      `${port}`,
      '--bind',
      '127.0.0.1',
      '--save',
      '',
      '--appendonly',
      'no',
      '--dir',
      tmpdir(),
      '--dbfilename',
      `parley-${port}.rdb`,
      ...more,
    ]
    const dieWithUs = hasSetpriv() ? ['setpriv', '--pdeathsig', 'KILL', '--'] : []
    const [file, ...rest] = [...dieWithUs, 'redis-server', ...args]
    const started = spawn(file!, rest, { detached: true, stdio: ['ignore', 'pipe', 'pipe'] })
    let output = ''
    for (const stream of [started.stdout, started.stderr]) {
      stream.on('data', (chunk) => {
        if (output.length < 10_000) output += chunk
      })
    }
    let ended: string | undefined
    started.once('error', (error) => {
      ended = error.message
    })
    started.once('exit', (code, signal) => {
      ended = `exit code ${code ?? signal}`
      if (child === started) child = undefined
    })
    child = started
    process.on('exit', killAtExit)
    for (const end = Date.now() + 10_000; !(await answersPing(port)); await sleep(10)) {
      if (ended === undefined && Date.now() < end) continue
      await stop()
      throw new Error(`redis-server did not start on port ${port} (${ended ?? 'no answer'}): ${output.slice(-500)}`)
    }
    // Another Redis may be the one that answers.
    if (ended !== undefined) throw new Error(`redis-server did not start on port ${port} (${ended}): ${output.slice(-500)}`)
  }

  async function stop(signal: NodeJS.Signals = 'SIGKILL') {
    process.off('exit', killAtExit)
    const running = child
    if (!running?.pid || running.exitCode !== null || running.signalCode !== null) return
    const exited = once(running, 'exit')
    running.kill(signal)
    await exited
  }

  return {
    url: `redis://127.0.0.1:${port}`,
    port,
    get pid() {
      return child?.pid
    },
    start,
    stop,
    pause: () => void child?.kill('SIGSTOP'),
    resume: () => void child?.kill('SIGCONT'),
  }
}

/** A TCP port that is free on loopback now, below 32768: above it are those that the kernel gives to outgoing connections. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(20_000, 32_768)
    const isFree = await new Promise<boolean>((resolve) => {
      const probe = createServer()
      probe.once('error', () => resolve(false))
      probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(true)))
    })
    if (isFree) return port
  }
}

function answersPing(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => socket.write('PING\r\n'))
    const done = (answer: boolean) => {
      socket.destroy()
      resolve(answer)
    }
    socket.setTimeout(1_000, () => done(false))
    socket.once('data', (data) => done(data.toString().startsWith('+PONG')))
    socket.once('error', () => done(false))
    socket.once('close', () => done(false))
  })
}

let setpriv: boolean | undefined
function hasSetpriv(): boolean {
  setpriv ??= spawnSync('setpriv', ['--pdeathsig', 'KILL', '--', 'true']).status === 0
  return setpriv
}
