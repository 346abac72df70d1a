/** A private Redis Cluster of three masters on loopback, without replicas: keeps nothing, ends with the process that started it. */
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { freePort, type PrivateRedis, startRedis } from './redis.ts'
import { scratch } from './tools.ts'
import { until } from './wire.ts'

const run = promisify(execFile)

export interface PrivateCluster {
  /** Of one node; from it the others are found. */
  readonly url: string
  readonly nodes: readonly PrivateRedis[]
  /** `redis-cli` against a node. */
  cli(node: PrivateRedis, ...args: string[]): Promise<string>
  /** The node that has the slot of this key. */
  ownerOf(key: string): Promise<PrivateRedis>
  /** Gives the key's slot to another node. */
  moveSlot(key: string, to: PrivateRedis): Promise<void>
  /** A node that takes over where this one goes. Is not among `nodes`; ends with the cluster. */
  addReplica(master: PrivateRedis): Promise<PrivateRedis>
  /** Resolves once every node takes commands. */
  whole(): Promise<void>
  close(): Promise<void>
}

/** Starts it; takes a few seconds. Close it in `afterAll`. */
export async function startCluster(): Promise<PrivateCluster> {
  const folder = await scratch('cluster')
  const nodes: PrivateRedis[] = []
  const replicas: PrivateRedis[] = []
  const close = async () => {
    for (const node of [...nodes, ...replicas]) await node.stop()
    await folder.remove()
  }
  const startNode = () =>
    startRedis(async (port) => [
      // What a replica gets from its master passes through a file.
      '--dir',
      folder.dir,
      '--dbfilename',
      `${port}.rdb`,
      '--cluster-enabled',
      'yes',
      '--cluster-config-file',
      join(folder.dir, `${port}.conf`),
      '--cluster-port',
      `${await freePort()}`,
      '--cluster-node-timeout',
      '1000',
    ])
  const cli = async (node: PrivateRedis, ...args: string[]) =>
    (await run('redis-cli', ['-h', '127.0.0.1', '-p', `${node.port}`, ...args])).stdout.trim()
  const slotOf = (key: string) => cli(nodes[0]!, 'CLUSTER', 'KEYSLOT', key)
  const whole = () =>
    until(
      async () => {
        const infos = await Promise.all(nodes.map((node) => cli(node, 'CLUSTER', 'INFO').catch(String)))
        return infos.every((info) => info.includes('cluster_state:ok') && info.includes('cluster_slots_ok:16384'))
      },
      'the cluster is whole',
      30_000,
    )
  const ownerOf = async (key: string) => {
    const slot = Number(await slotOf(key))
    for (const line of (await cli(nodes[0]!, 'CLUSTER', 'NODES')).split('\n')) {
      const [, address = '', , , , , , , ...ranges] = line.split(' ')
      const has = ranges.some((range) => {
        const [from, to = from] = range.split('-').map(Number)
        return slot >= from! && slot <= to!
      })
      if (has) return nodes.find(({ port }) => address.includes(`:${port}@`))!
    }
    throw new Error(`nobody has ${key}`)
  }
  const meet = async () => {
    for (let n = 0; n < 3; n += 1) nodes.push(await startNode())
    const addresses = nodes.map(({ port }) => `127.0.0.1:${port}`)
    await run('redis-cli', ['--cluster', 'create', ...addresses, '--cluster-replicas', '0', '--cluster-yes'])
    await whole()
  }
  for (let tries = 1; ; tries += 1) {
    try {
      await meet()
      break
    } catch (error) {
      // On a busy machine nodes may lose each other while they meet, or a port that was free: they begin again.
      for (const node of nodes.splice(0)) await node.stop()
      if (tries < 3) continue
      await close()
      const { stdout = '', stderr = '' } = error as { stdout?: string; stderr?: string }
      throw new Error(`the cluster could not be made: ${(error as Error).message}\n${stdout}\n${stderr}`)
    }
  }
  return {
    url: nodes[0]!.url,
    nodes,
    cli,
    ownerOf,
    async moveSlot(key, to) {
      const slot = await slotOf(key)
      const from = await ownerOf(key)
      const [fromId, toId] = [await cli(from, 'CLUSTER', 'MYID'), await cli(to, 'CLUSTER', 'MYID')]
      await cli(to, 'CLUSTER', 'SETSLOT', slot, 'IMPORTING', fromId)
      await cli(from, 'CLUSTER', 'SETSLOT', slot, 'MIGRATING', toId)
      const keys = (await cli(from, 'CLUSTER', 'GETKEYSINSLOT', slot, '1000')).split('\n').filter(Boolean)
      if (keys.length > 0) await cli(from, 'MIGRATE', '127.0.0.1', `${to.port}`, '', '0', '5000', 'KEYS', ...keys)
      for (const node of [to, from, ...nodes]) await cli(node, 'CLUSTER', 'SETSLOT', slot, 'NODE', toId)
    },
    async addReplica(master) {
      const replica = await startNode()
      replicas.push(replica)
      const id = await cli(master, 'CLUSTER', 'MYID')
      const addresses = [replica, master].map(({ port }) => `127.0.0.1:${port}`)
      await run('redis-cli', ['--cluster', 'add-node', ...addresses, '--cluster-slave', '--cluster-master-id', id])
      await until(
        async () => (await cli(replica, 'INFO', 'replication')).includes('master_link_status:up'),
        'the replica follows',
      )
      return replica
    },
    whole,
    close,
  }
}
