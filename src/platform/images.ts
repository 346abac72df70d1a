import sharp from 'sharp'
import { AppError } from './errors.ts'
import { createLimiter } from './limiter.ts'

/** Work on pictures: in the thread pool, and only so much of it at once, because a picture of 50 megapixels takes 200 MB while it lasts. */

// Pictures as people send them, and nothing that is a program to the library that reads it (SVG, PDF).
sharp.block({ operation: ['VipsForeignLoad'] })
sharp.unblock({
  operation: ['VipsForeignLoadJpeg', 'VipsForeignLoadPng', 'VipsForeignLoadNsgif', 'VipsForeignLoadWebp'],
})
// No picture is asked for twice.
sharp.cache(false)
sharp.concurrency(1)

const maxPixels = 50_000_000
/** Pictures at once, and callers that may wait: the last one waits some ten seconds. */
const inTurn = createLimiter(2, 50)

/** Sides in pixels. */
export const squares = { large: 512, small: 128 } as const
export type SquareSize = keyof typeof squares

/**
 * The picture in this file as a square in two sizes, WebP without metadata, turned as the camera was held; of an animation the first
 * frame. Rejects with `unsupported_media_type` for what is no JPEG, PNG, GIF or WebP by its bytes, `invalid_image` for one
 * that is broken or has more than 50 megapixels, and `overloaded`.
 */
export function squareImages(file: string): Promise<Record<SquareSize, Buffer>> {
  return inTurn(async () => {
    try {
      const picture = sharp(file, { limitInputPixels: maxPixels, failOn: 'error', pages: 1 }).autoOrient()
      const square = (side: number) => picture.clone().resize(side, side, { fit: 'cover' }).webp({ quality: 80 }).toBuffer()
      return { large: await square(squares.large), small: await square(squares.small) }
    } catch (cause) {
      const isOther = /unsupported image format/.test((cause as Error).message)
      throw new AppError(isOther ? 'unsupported_media_type' : 'invalid_image', { cause })
    }
  })
}
