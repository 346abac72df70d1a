import { z } from 'zod'
import { time, uuid } from '../../protocol/primitives.ts'

export const ChatPath = z.strictObject({ id: uuid })

export const FilePath = z.strictObject({
  year: z.string().regex(/^\d{4}$/, 'must be a year'),
  month: z.string().regex(/^\d\d$/, 'must be a month'),
  day: z.string().regex(/^\d\d$/, 'must be a day'),
  name: z.string().regex(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.webp$/, 'must be the name of a file'),
})

export const FileQuery = z
  .strictObject({
    size: z.enum(['large', 'small'], 'must be large or small').default('large').describe('512 or 128 pixels'),
    u: z.string().max(100).optional().describe('With `t` and `s` from `POST /media/sign`: instead of a token'),
    t: z.string().max(20).optional(),
    s: z.string().max(100).optional(),
  })
  .refine(({ u, t, s }) => [u, t, s].every((one) => one === undefined) || [u, t, s].every((one) => one !== undefined), {
    path: ['s'],
    message: 'u, t and s go together',
  })

export const Links = z.object({
  query: z.string().describe('To be added to the URL of a file, after `?` or `&`'),
  expires_at: time,
})
