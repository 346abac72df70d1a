import { readdir, readFile } from 'node:fs/promises'
import { connect as connectTcp } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import sharp from 'sharp'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { Invite, InvitePreview } from '../src/modules/chats/schema.ts'
import { sweepAvatars } from '../src/modules/media/index.ts'
import { sql } from '../src/platform/db/db.ts'
import { createDiskStorage } from '../src/platform/storage.ts'
import { Chat, Me, UserPublic } from '../src/protocol/resources.ts'
import { checkChat, connect, ok, refusal, rest } from './support/check.ts'
import { colour, fileForm, pictureForm } from './support/pictures.ts'
import { type Account, startServers, type TestServers } from './support/server.ts'

/** Pictures of people, groups and channels: what becomes of them, and who sees them. */

let servers: TestServers
beforeAll(async () => {
  servers = await startServers({ instances: 2, env: { MEDIA_RETENTION_DAYS: '0' } })
})
afterAll(() => servers.close())

const { get, post, patch, remove, people } = rest(() => servers)
const context = () => servers.instances[0]!.context
const red = () => colour('red').jpeg().toBuffer()
const put = (as: Account, path: string, body: unknown, at = 0) => servers.call('PUT', path, { as, body, at })
const mine = async (as: Account, bytes: Buffer) => (await ok(put(as, '/users/me/avatar', fileForm(bytes)), Me)).avatar_url!
const fetched = (as: Account | undefined, path: string, headers: Record<string, string> = {}, at = 0) =>
  fetch(servers.instances[at]!.url + path, { headers: { ...headers, ...(as && { authorization: `Bearer ${as.token}` }) } })
const seen = async (as: Account | undefined, path: string) => (await fetched(as, path)).status
/** All files in the storage of the first instance. */
async function files(): Promise<string[]> {
  const root = join(context().config.dataDir, 'uploads')
  const found = await readdir(root, { recursive: true, withFileTypes: true }).catch(() => [])
  return found.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name))
}

test('a picture becomes a square in two sizes, upright and without metadata, and everybody is told', async () => {
  const [anna, ben] = await people(2)
  const dm = await servers.dm(anna, ben)
  const device = await connect(servers, anna, { at: 1 })
  // As a camera held upright writes it: turned by 90°, with the place where it was taken.
  const original = await colour('red', 800, 600)
    .composite([{ input: await colour('blue', 800, 300).png().toBuffer(), top: 0, left: 0 }])
    .withExif({ IFD0: { Copyright: 'somebody' }, IFD3: { GPSLatitude: '51/1 30/1 0/1' } })
    .withMetadata({ orientation: 6 })
    .jpeg()
    .toBuffer()
  expect((await sharp(original).metadata()).exif).toBeDefined()
  const url = await mine(anna, original)
  expect(url).toMatch(/^\/api\/v1\/media\/uploads\/\d{4}\/\d\d\/\d\d\/[0-9a-f-]{36}\.webp$/)
  for (const [query, side] of [
    ['', 512],
    ['?size=large', 512],
    ['?size=small', 128],
  ] as const) {
    const answer = await fetched(ben, url + query)
    expect([answer.status, answer.headers.get('content-type')]).toEqual([200, 'image/webp'])
    expect(answer.headers.get('cache-control')).toBe('private, max-age=31536000, immutable')
    expect(answer.headers.get('content-security-policy')).toBe("default-src 'none'; sandbox")
    const bytes = Buffer.from(await answer.arrayBuffer())
    expect(await sharp(bytes).metadata()).toMatchObject({ format: 'webp', width: side, height: side })
    expect((await sharp(bytes).metadata()).exif).toBeUndefined()
    // What was at the top of the sensor is on the right.
    const { data, info } = await sharp(bytes).raw().toBuffer({ resolveWithObject: true })
    const at = (x: number) => Array.from(data.subarray(((info.height / 2) * info.width + x) * info.channels).subarray(0, 3))
    expect(at(4)[0]).toBeGreaterThan(200)
    expect(at(side - 4)[2]).toBeGreaterThan(200)
    const again = await fetched(ben, url + query, { 'if-none-match': answer.headers.get('etag')! })
    expect([again.status, await again.text()]).toEqual([304, ''])
  }
  expect((await ok(get(ben, `/users/${anna.id}`), UserPublic)).avatar_url).toBe(url)
  expect((await ok(get(ben, `/chats/${dm}`), Chat.loose())).avatar_url).toBe(url)
  const told = await device.waitFor('me_updated', (event) => event.me.avatar_url === url)
  expect(told.me.id).toBe(anna.id)
  // Beside messages the new one stands at once, on the other instance too.
  await vi.waitFor(async () => {
    const { body } = await post(anna, '/messages', { chat_id: dm, content: 'look' }, 1)
    expect(body).toMatchObject({ sender: { avatar_url: url } })
  })
  expect((await ok(remove(anna, '/users/me/avatar'), Me)).avatar_url).toBeNull()
  await device.waitFor('me_updated', (event) => event.me.avatar_url === null)
  expect(await seen(anna, url)).toBe(404)
  const clock = async () => (await context().db.query(sql`SELECT version FROM user_clock WHERE user_id = ${anna.id}`))[0]
  const before = await clock()
  expect((await ok(remove(anna, '/users/me/avatar'), Me)).avatar_url).toBeNull()
  expect(await clock()).toEqual(before)
})

test('what is no picture is refused, and leaves nothing', async () => {
  const [anna] = await people(1)
  const sweep = () => sweepAvatars({ db: context().db, storage: context().storage, retentionMs: 0 })
  await sweep()
  const before = await files()
  const jpeg = await red()
  const svg = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>'
  const huge = await colour('red', 9_000, 9_000).png().toBuffer()
  for (const [body, why] of [
    [fileForm(svg), '415 unsupported_media_type'],
    [fileForm('%PDF-1.7 hello'), '415 unsupported_media_type'],
    [fileForm(await colour('red').tiff().toBuffer()), '415 unsupported_media_type'],
    [fileForm(await colour('red').avif().toBuffer()), '415 unsupported_media_type'],
    [fileForm(''), '415 unsupported_media_type'],
    [fileForm(jpeg.subarray(0, jpeg.length / 2)), '400 invalid_image'],
    [fileForm(huge), '400 invalid_image'],
    [fileForm(Buffer.alloc(10 * 2 ** 20 + 1)), '413 body_too_large'],
    [fileForm(jpeg, 'picture'), '400 invalid_input'],
    [new FormData(), '400 invalid_input'],
    [{ file: 'x' }, '415 unsupported_media_type'],
    [undefined, '415 unsupported_media_type'],
  ] as const)
    expect(await refusal(put(anna, '/users/me/avatar', body))).toBe(why)
  // What is no form, or ends before its end.
  for (const [type, body] of [
    ['multipart/form-data', 'x'],
    ['multipart/form-data; boundary=b', '--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'],
  ] as const) {
    const headers = { authorization: `Bearer ${anna.token}`, 'content-type': type }
    const answer = await fetch(`${servers.instances[0]!.url}/api/v1/users/me/avatar`, { method: 'PUT', headers, body })
    expect([answer.status, await answer.json()]).toEqual([400, expect.objectContaining({ code: 'malformed_body' })])
  }
  for (const name of ['x.webp', '..%2f..%2fx.webp', `${'0'.repeat(36)}.svg`, `${'0'.repeat(36)}.webp`, `${'-'.repeat(36)}.webp`])
    expect(await seen(anna, `/api/v1/media/uploads/2026/01/01/${name}`)).toBe(400)
  await ok(remove(anna, '/users/me/avatar'), Me)
  await sweep()
  expect(await files()).toEqual(before)
  // Every kind that is one is taken.
  for (const bytes of [
    await colour('red').png().toBuffer(),
    await colour('red').webp().toBuffer(),
    await colour('red').gif().toBuffer(),
  ])
    await mine(anna, bytes)
})

test('what is too large is answered, and cut off if it goes on all the same', async () => {
  const [anna] = await people(1)
  const { hostname, port } = new URL(servers.instances[0]!.url)
  const head = `PUT /api/v1/users/me/avatar HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${anna.token}\r\nContent-Type: multipart/form-data; boundary=b\r\n`
  const part = '--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
  const block = Buffer.alloc(1_000_000, 'x')
  for (const announced of [true, false]) {
    const socket = connectTcp(Number(port), hostname)
    let heard = ''
    socket.on('data', (data) => {
      heard += data
    })
    // Cut while we write: that is the point.
    socket.on('error', () => {})
    const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()))
    socket.write(`${head}${announced ? 'Content-Length: 1000000000000' : 'Transfer-Encoding: chunked'}\r\n\r\n`)
    const send = (bytes: Buffer | string) =>
      announced
        ? socket.write(bytes)
        : socket.write(Buffer.concat([Buffer.from(`${bytes.length.toString(16)}\r\n`), Buffer.from(bytes), Buffer.from('\r\n')]))
    send(part)
    // It would never end.
    while (!socket.closed) {
      if (socket.writableLength < 2 * block.length) send(block)
      await sleep(2)
    }
    await closed
    expect(heard).toMatch(/^HTTP\/1.1 413 /)
  }
})

test('the picture of a group: owner and admins set it, members see it, and nobody else', async () => {
  const [owner, admin, member, stranger] = await people(4)
  const id = await servers.group(owner, [admin, member])
  await patch(owner, `/chats/${id}/members/${admin.id}`, { role: 'admin' })
  const device = await connect(servers, member, { at: 1 })
  const path = `/chats/${id}/avatar`
  const { avatar_url } = await ok(put(admin, path, await pictureForm()), Chat)
  const event = await device.waitFor('chat_updated', (e) => e.chat_id === id && e.chat.avatar_url === avatar_url)
  await device.waitFor('new_message', (e) => e.message.system?.action === 'avatar_changed' && e.message.sender_id === admin.id)
  expect(event.version).toBeGreaterThan(0)
  expect([await seen(owner, avatar_url!), await seen(member, avatar_url!), await seen(stranger, avatar_url!)]).toEqual([
    200, 200, 404,
  ])
  expect(await seen(undefined, avatar_url!)).toBe(401)
  const before = await checkChat(context().db, id)
  expect(await refusal(put(member, path, await pictureForm()))).toBe('403 forbidden')
  expect(await refusal(put(stranger, path, await pictureForm()))).toBe('404 chat_not_found')
  expect(await refusal(put(owner, `/chats/${await servers.dm(owner, member)}/avatar`, await pictureForm()))).toBe(
    '400 not_a_group',
  )
  expect(await refusal(remove(member, path))).toBe('403 forbidden')
  expect(await refusal(put(owner, path, fileForm('nothing')))).toBe('415 unsupported_media_type')
  expect(await checkChat(context().db, id)).toEqual(before)

  // Who is removed sees it no more; a replaced one is seen by nobody; whoever comes back from away knows the new one.
  device.close()
  await ok(remove(owner, `/chats/${id}/members/${admin.id}`), Chat.loose().partial())
  expect(await seen(admin, avatar_url!)).toBe(404)
  const { avatar_url: second } = await ok(put(owner, path, await pictureForm(), 1), Chat)
  expect([await seen(member, avatar_url!), await seen(member, second!)]).toEqual([404, 200])
  await device.connect()
  await vi.waitFor(() => expect(device.state.chats.get(id)?.chat.avatar_url).toBe(second))
  expect((await ok(remove(owner, path), Chat)).avatar_url).toBeNull()
  const { version } = await checkChat(context().db, id)
  expect((await ok(remove(owner, path), Chat)).version).toBe(version)
})

test('a public channel shows its picture to all, a private one to its readers, a deleted one to nobody', async () => {
  const [owner, reader] = await people(2)
  const { id } = await ok(post(owner, '/channels', { name: 'News', is_public: true }), Chat.loose(), 201)
  const { avatar_url } = await ok(put(owner, `/chats/${id}/avatar`, await pictureForm()), Chat)
  expect(await seen(reader, avatar_url!)).toBe(200)
  expect(await refusal(put(reader, `/chats/${id}/avatar`, await pictureForm()))).toBe('403 forbidden')
  const { code } = await ok(post(owner, `/chats/${id}/invites`), Invite, 201)
  const behindLink = async (as: Account) => (await ok(get(as, `/invites/${code}`), InvitePreview)).avatar_url
  expect(await behindLink(reader)).toBe(avatar_url)
  await patch(owner, `/chats/${id}`, { is_public: false })
  expect([await behindLink(reader), await behindLink(owner)]).toEqual([null, avatar_url])
  expect([await seen(reader, avatar_url!), await seen(owner, avatar_url!)]).toEqual([404, 200])
  await remove(owner, `/chats/${id}`)
  expect(await seen(owner, avatar_url!)).toBe(404)
})

test('a signed link shows what its owner may see, until it ends', async () => {
  const [anna, ben] = await people(2)
  const id = await servers.group(anna, [ben])
  const { avatar_url } = await ok(put(anna, `/chats/${id}/avatar`, await pictureForm()), Chat)
  const sign = async (as: Account) => (await post(as, '/media/sign')).body as { query: string; expires_at: string }
  const { query, expires_at } = await sign(ben)
  expect(Date.parse(expires_at) - Date.now()).toBeGreaterThan(14 * 60_000)
  const linked = async (q: string, at = 0) => (await fetched(undefined, `${avatar_url}?${q}`, {}, at)).status
  expect([await linked(query), await linked(query, 1), await linked(`size=small&${query}`)]).toEqual([200, 200, 200])
  const given = new URLSearchParams(query)
  const other = (change: Record<string, string>) => new URLSearchParams({ ...Object.fromEntries(given), ...change }).toString()
  expect(await linked(other({ u: anna.id }))).toBe(401)
  expect(await linked(other({ t: String(Number(given.get('t')) + 1) }))).toBe(401)
  expect(await linked(other({ s: 'x'.repeat(43) }))).toBe(401)
  expect(await linked(`u=${ben.id}`)).toBe(400)
  vi.useFakeTimers({ toFake: ['Date'], now: Date.parse(expires_at) + 1_000 })
  expect(await linked(query)).toBe(401)
  vi.useRealTimers()
  await remove(anna, `/chats/${id}/members/${ben.id}`)
  expect(await linked(query)).toBe(404)
  const mineToo = await sign(anna)
  expect(await linked(mineToo.query)).toBe(200)
  await context().db.query(sql`UPDATE users SET disabled_at = now() WHERE id = ${anna.id}`)
  expect(await linked(mineToo.query)).toBe(404)
})

test('two pictures at once: one is shown, and no file stays that nobody shows', async () => {
  const [anna, ben] = await people(2)
  const id = await servers.group(anna, [ben])
  const paths = ['/users/me/avatar', `/chats/${id}/avatar`]
  for (let round = 0; round < 4; round += 1)
    await Promise.all(
      paths.flatMap((path) => [0, 1].map(async (at) => ok(put(anna, path, await pictureForm(), at), Chat.loose().partial()))),
    )
  // What an instance that died in between left: a row, and perhaps its files.
  const left = 'uploads/2026/01/01/018f0000-0000-7000-8000-000000000001'
  await context().db.query(
    sql`INSERT INTO avatars (id, path, user_id) VALUES ('018f0000-0000-7000-8000-000000000001', ${left}, ${anna.id})`,
  )
  await context().storage.write(`${left}_small.webp`, Buffer.from('x'))
  for (const { storage, db } of servers.instances.map((one) => one.context)) await sweepAvatars({ db, storage, retentionMs: 0 })
  const rows = await context().db.query<{ path: string }>(
    sql`SELECT path FROM avatars WHERE user_id = ${anna.id} OR chat_id = ${id}`,
  )
  expect(rows).toHaveLength(2)
  const { avatar_url: me } = await ok(get(anna, '/users/me'), Me)
  const { avatar_url: group } = await ok(get(anna, `/chats/${id}`), Chat.loose())
  expect(rows.map(({ path }) => `/api/v1/media/${path}.webp`).sort()).toEqual([me, group].sort())
  expect((await files()).some((file) => file.includes('018f0000-0000'))).toBe(false)

  // What is unused is kept for its time; an account that goes takes its picture with it.
  const sweep = (retentionMs: number) => sweepAvatars({ db: context().db, storage: context().storage, retentionMs })
  const kept = (await files()).length
  expect((await remove(anna, '/users/me/avatar')).status).toBe(200)
  await sweep(60_000)
  expect(await files()).toHaveLength(kept)
  expect((await servers.call('DELETE', '/users/me', { as: ben, body: { password: 'Secret123' } })).status).toBe(200)
  await sweep(0)
  expect((await context().db.query(sql`SELECT 1 AS n FROM avatars WHERE user_id = ${anna.id}`)).length).toBe(0)
})

test('the storage writes whole files, below its folder alone', async () => {
  const storage = createDiskStorage(join(context().config.dataDir, 'elsewhere'))
  await storage.write('a/b/c.webp', Buffer.from('first'))
  await Promise.all(Array.from({ length: 20 }, (_, n) => storage.write('a/b/c.webp', Buffer.alloc(50_000, n))))
  const bytes = (await storage.read('a/b/c.webp'))!
  expect(bytes.equals(Buffer.alloc(50_000, bytes[0]))).toBe(true)
  expect(await readdir(join(context().config.dataDir, 'elsewhere/a/b'))).toEqual(['c.webp'])
  await storage.remove('a/b/c.webp')
  await storage.remove('a/b/c.webp')
  expect(await storage.read('a/b/c.webp')).toBeUndefined()
  for (const path of ['../x.webp', 'a/../../x', '/etc/passwd', 'a//b', 'a/.b', 'a\0b'])
    await expect(async () => storage.write(path, Buffer.from('x'))).rejects.toThrow('no name')
  expect(await readFile(join(context().config.dataDir, 'x.webp')).catch(() => 'none')).toBe('none')
})
