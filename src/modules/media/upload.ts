import { createWriteStream } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import type { FastifyRequest } from 'fastify'
import { AppError } from '../../platform/errors.ts'

/** What a form has besides its file, at most. */
const formBytes = 65_536

/**
 * Does `work` with the one file of a form, `file`, which is on the disk as long as it lasts: however many upload slowly, it
 * takes no memory. Rejects with `unsupported_media_type`, `malformed_body`, `invalid_input`, and with `body_too_large` as
 * soon as that is known.
 */
export async function withFile<T>(request: FastifyRequest, most: number, work: (file: string) => Promise<T>): Promise<T> {
  if (!request.isMultipart()) throw new AppError('unsupported_media_type')
  if (Number(request.headers['content-length'] ?? 0) > most + formBytes) throw new AppError('body_too_large')
  const folder = await mkdtemp(join(tmpdir(), 'parley-upload-'))
  try {
    const file = join(folder, 'file')
    await receive(request, most, file)
    return await work(file)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

async function receive(request: FastifyRequest, most: number, file: string): Promise<void> {
  try {
    const part = await request.file()
    if (part?.fieldname !== 'file') throw new AppError('invalid_input', { details: { file: 'must be a file' } })
    let bytes = 0
    await pipeline(
      part.file,
      async function* (chunks: AsyncIterable<Buffer>) {
        for await (const chunk of chunks) {
          bytes += chunk.length
          if (bytes > most) throw new AppError('body_too_large')
          yield chunk
        }
      },
      createWriteStream(file),
    )
  } catch (error) {
    // What the parser has against a form that is none has no status of its own.
    const isParsers = !(error instanceof AppError) && (error as { statusCode?: number }).statusCode === undefined
    throw isParsers && !isOfDisk(error) ? new AppError('malformed_body', { cause: error }) : error
  }
}

/** Errors of the file system name the call that failed. */
const isOfDisk = (error: unknown) => (error as NodeJS.ErrnoException).syscall !== undefined
