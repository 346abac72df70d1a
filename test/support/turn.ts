import { createHash, createHmac, randomBytes } from 'node:crypto'
import { createSocket } from 'node:dgram'
import { isIPv6 } from 'node:net'

/**
 * Just enough of a TURN client (RFC 8656, over UDP) to ask coturn what it allows. It never sends anything to a peer, so a
 * rule with a hole is found without a packet leaving the machine.
 */

const cookie = 0x2112a442
const binding = 0x0001
const allocate = 0x0003
const createPermission = 0x0008
const attribute = {
  username: 0x0006,
  integrity: 0x0008,
  error: 0x0009,
  realm: 0x0014,
  nonce: 0x0015,
  peer: 0x0012,
  relayed: 0x0016,
  family: 0x0017,
  transport: 0x0019,
}

type Attributes = [type: number, value: Buffer][]
type Response = { id: Buffer; ok: boolean; error: number; get: (type: number) => Buffer | undefined }

/** TURN REST credentials as the server makes them. */
export function turnCredentials(secret: string, user: string, expiresIn = 60) {
  const username = `${Math.floor(Date.now() / 1000) + expiresIn}:${user}`
  return { username, credential: createHmac('sha1', secret).update(username).digest('base64') }
}

function encode(attributes: Attributes): Buffer {
  return Buffer.concat(
    attributes.map(([type, value]) => {
      const head = Buffer.alloc(4)
      head.writeUInt16BE(type)
      head.writeUInt16BE(value.length, 2)
      return Buffer.concat([head, value, Buffer.alloc(-value.length & 3)])
    }),
  )
}

function message(type: number, id: Buffer, attributes: Attributes, key?: Buffer): Buffer {
  const head = Buffer.alloc(20)
  const body = encode(attributes)
  head.writeUInt16BE(type)
  head.writeUInt32BE(cookie, 4)
  id.copy(head, 8)
  // The length counts the signature, the signature does not cover itself.
  head.writeUInt16BE(body.length + (key ? 24 : 0), 2)
  if (!key) return Buffer.concat([head, body])
  const signature = createHmac('sha1', key).update(head).update(body).digest()
  return Buffer.concat([head, body, encode([[attribute.integrity, signature]])])
}

function decode(data: Buffer): Response {
  const found = new Map<number, Buffer>()
  for (let at = 20; at + 4 <= data.length; ) {
    const length = data.readUInt16BE(at + 2)
    found.set(data.readUInt16BE(at), data.subarray(at + 4, at + 4 + length))
    at += 4 + length + (-length & 3)
  }
  const error = found.get(attribute.error)
  return {
    id: data.subarray(8, 20),
    ok: (data.readUInt16BE(0) & 0x0110) === 0x0100,
    error: error ? error[2]! * 100 + error[3]! : 0,
    get: (type) => found.get(type),
  }
}

function addressBytes(address: string): Buffer {
  if (!isIPv6(address)) return Buffer.from(address.split('.').map(Number))
  // URL writes an address out in its shortest hexadecimal form, also one that ends in dotted IPv4.
  const [left = '', right] = new URL(`http://[${address}]`).hostname.slice(1, -1).split('::')
  const groups = (text = '') => text.split(':').filter(Boolean)
  const zeros = right === undefined ? 0 : 8 - groups(left).length - groups(right).length
  const all = [...groups(left), ...Array<string>(zeros).fill('0'), ...groups(right)]
  return Buffer.from(all.map((group) => group.padStart(4, '0')).join(''), 'hex')
}

/** Everything after the port is XORed with the cookie, and for IPv6 also with the transaction's id. */
function xorAddress(bytes: Buffer, id: Buffer): Buffer {
  const mask = Buffer.alloc(16)
  mask.writeUInt32BE(cookie)
  id.copy(mask, 4)
  return Buffer.from(bytes.map((byte, n) => byte ^ mask[n]!))
}

export type Turn = Awaited<ReturnType<typeof openTurn>>

/** One client on 127.0.0.1; answers are waited for 2 s. Errors are TURN's numbers, 0 is success. */
export async function openTurn(port: number, { username, credential } = { username: '', credential: '' }) {
  const socket = createSocket('udp4')
  await new Promise<void>((resolve) => socket.connect(port, '127.0.0.1', resolve))
  let realm: Buffer = Buffer.alloc(0)
  let nonce: Buffer = Buffer.alloc(0)

  function ask(type: number, attributesFor: (id: Buffer) => Attributes, signed: boolean): Promise<Response> {
    const id = randomBytes(12)
    const login: Attributes = [
      [attribute.username, Buffer.from(username)],
      [attribute.realm, realm],
      [attribute.nonce, nonce],
    ]
    const key = createHash('md5').update(`${username}:${realm}:${credential}`).digest()
    const attributes = attributesFor(id)
    const data = signed ? message(type, id, [...attributes, ...login], key) : message(type, id, attributes)
    return new Promise((resolve, reject) => {
      const finish = (result: () => void) => {
        clearTimeout(late)
        socket.off('message', read).off('error', fail)
        result()
      }
      const late = setTimeout(() => finish(() => reject(new Error('The TURN server does not answer.'))), 2_000)
      const read = (answer: Buffer) => {
        if (answer.subarray(8, 20).equals(id)) finish(() => resolve(decode(answer)))
      }
      const fail = (error: Error) => finish(() => reject(error))
      socket.on('message', read).on('error', fail)
      socket.send(data)
    })
  }

  return {
    close: () => socket.close(),
    /** Is anybody there? */
    ping: () =>
      ask(binding, () => [], false).then(
        ({ ok }) => ok,
        () => false,
      ),
    async allocate(family: 4 | 6 = 4): Promise<{ error: number; relayed?: string }> {
      const attributes = (): Attributes => [
        [attribute.transport, Buffer.from([17, 0, 0, 0])],
        [attribute.family, Buffer.from([family === 6 ? 2 : 1, 0, 0, 0])],
      ]
      const challenge = await ask(allocate, attributes, false)
      realm = challenge.get(attribute.realm) ?? realm
      nonce = challenge.get(attribute.nonce) ?? nonce
      const answer = await ask(allocate, attributes, true)
      const relayed = answer.get(attribute.relayed)
      if (!answer.ok || !relayed) return { error: answer.error }
      const bytes = xorAddress(relayed.subarray(4), answer.id)
      return { error: 0, relayed: family === 4 ? bytes.join('.') : bytes.toString('hex') }
    },
    /** May the relay send to this address? 403 says no. */
    async permit(address: string): Promise<number> {
      const peer = (id: Buffer) =>
        Buffer.concat([Buffer.from([0, isIPv6(address) ? 2 : 1, 0x21, 0x12]), xorAddress(addressBytes(address), id)])
      return (await ask(createPermission, (id) => [[attribute.peer, peer(id)]], true)).error
    },
  }
}
