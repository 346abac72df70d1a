import multipart from '@fastify/multipart'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { z } from 'zod'
import { AppError } from '../../platform/errors.ts'
import { tokenOf } from '../../platform/http/access.ts'
import { answers } from '../../platform/http/answers.ts'
import type { App } from '../../platform/http/types.ts'
import { Chat, Me } from '../../protocol/resources.ts'
import { avatarFor, maxAvatarBytes, removeChatAvatar, removeMyAvatar, setChatAvatar, setMyAvatar } from './avatars.ts'
import type { MediaDeps } from './deps.ts'
import { readLink, signLinks } from './links.ts'
import { ChatPath, FilePath, FileQuery, Links } from './schema.ts'
import { withFile } from './upload.ts'

const uploading = ['unsupported_media_type', 'invalid_image', 'body_too_large', 'overloaded'] as const
const managing = ['chat_not_found', 'forbidden', 'not_a_group'] as const
const description = 'JPEG, PNG, GIF or WebP of at most 10 MiB, made a square of 512 and one of 128 pixels, without metadata.'

/** Pictures, and the links to them. */
export async function mediaRoutes(app: App, deps: MediaDeps): Promise<void> {
  await app.register(multipart, {
    limits: { fileSize: maxAvatarBytes + 1, files: 1, fields: 0, parts: 1, headerPairs: 20 },
  })

  app.put(
    '/users/me/avatar',
    {
      config: { upload: true },
      schema: { tags: ['users'], summary: 'Set my picture', description, response: answers({ 200: Me }, uploading) },
    },
    async (request) => withFile(request, maxAvatarBytes, (file) => setMyAvatar(deps, request.identity.user_id, file)),
  )

  app.delete(
    '/users/me/avatar',
    { schema: { tags: ['users'], summary: 'Remove my picture', response: answers({ 200: Me }) } },
    ({ identity }) => removeMyAvatar(deps, identity.user_id),
  )

  app.put(
    '/chats/:id/avatar',
    {
      config: { upload: true },
      schema: {
        tags: ['chats'],
        summary: 'Set the picture of a group or channel (owner, admins)',
        description,
        params: ChatPath,
        response: answers({ 200: Chat }, [...managing, ...uploading]),
      },
    },
    async (request) => {
      const { identity, params } = request
      // Before the picture is read, and once more when it is put in its place.
      await deps.checkMayEditChat(identity.user_id, params.id)
      return withFile(request, maxAvatarBytes, (file) => setChatAvatar(deps, identity.user_id, params.id, file))
    },
  )

  app.delete(
    '/chats/:id/avatar',
    {
      schema: {
        tags: ['chats'],
        summary: 'Remove the picture of a group or channel (owner, admins)',
        params: ChatPath,
        response: answers({ 200: Chat }, managing),
      },
    },
    ({ identity, params }) => removeChatAvatar(deps, identity.user_id, params.id),
  )

  app.post(
    '/media/sign',
    {
      schema: {
        tags: ['media'],
        summary: 'A query that lets a browser show me files',
        description: 'For `<img src>`, which sends no token: good for all files that I may see, for a quarter of an hour.',
        response: answers({ 200: Links }),
      },
    },
    ({ identity }) => signLinks(deps.signKey, identity.user_id),
  )

  app.get(
    '/media/uploads/:year/:month/:day/:name',
    {
      // Asked for by the dozen when a list of chats is shown, and once each: they may be kept for ever.
      config: { public: true, rateLimit: false },
      schema: {
        tags: ['media'],
        summary: 'A picture, for whoever may see it',
        description:
          'What `avatar_url` names. Of people for everybody who is signed in (by token, or by the query of `POST /media/sign`), of a group or channel for those who may read it; once it is replaced, for nobody.',
        security: [{ bearerAuth: [] }, {}],
        params: FilePath,
        querystring: FileQuery,
        response: {
          ...answers({}, ['not_found']),
          200: {
            description: 'The picture',
            content: { 'image/webp': { schema: z.any().meta({ type: 'string', format: 'binary' }) } },
          },
        },
      },
    },
    async (request, reply) => {
      const { year, month, day, name } = request.params
      const { size } = request.query
      const id = name.slice(0, 36)
      const bytes = await avatarFor(deps, await viewerOf(deps, request), {
        path: `uploads/${year}/${month}/${day}/${id}`,
        id,
        size,
      })
      if (!bytes) throw new AppError('not_found')
      const etag = `"${id}-${size}"`
      reply
        .header('ETag', etag)
        .header('Cache-Control', 'private, max-age=31536000, immutable')
        // Whatever a browser makes of it, it runs nothing.
        .header('Content-Security-Policy', "default-src 'none'; sandbox")
      if (request.headers['if-none-match'] === etag) return (reply as FastifyReply).code(304).send()
      return reply.type('image/webp').send(bytes)
    },
  )
}

async function viewerOf(deps: MediaDeps, request: FastifyRequest<{ Querystring: z.output<typeof FileQuery> }>): Promise<string> {
  const { u, t, s } = request.query
  if (u === undefined || t === undefined || s === undefined) return (await deps.authenticate(tokenOf(request))).user_id
  const viewer = readLink(deps.signKey, { u, t, s })
  if (viewer === undefined) throw new AppError('invalid_token')
  return viewer
}
