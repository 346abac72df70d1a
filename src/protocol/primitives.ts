import { z } from 'zod'

/** The smallest pieces of the schemas: each refuses what PostgreSQL could not store or a person could not mean. */

const uuidPattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/i

export const uuid = z.string().regex(uuidPattern, 'must be a UUID').toLowerCase().meta({ format: 'uuid' })

/** Text that can be stored: well-formed UTF-16 (no lone surrogates) without NUL. */
const storable = (text: string) => text.isWellFormed() && !text.includes('\0')

/** Length in code points, which is what a person counts and PostgreSQL's char_length says. */
function codePoints(text: string): number {
  let count = 0
  for (let i = 0; i < text.length; i += 1) {
    count += 1
    const unit = text.charCodeAt(i)
    if (unit >= 0xd800 && unit < 0xdc00) i += 1
  }
  return count
}

/** `min` to `max` code points. */
export const text = (min: number, max: number) =>
  z
    .string()
    // A cheap bound first, so that a huge string is not walked.
    .max(max * 2, `must be at most ${max} characters`)
    .refine(storable, 'must be well-formed text without NUL')
    .refine((value) => value.length <= max || codePoints(value) <= max, `must be at most ${max} characters`)
    .refine((value) => value.length >= min, min === 1 ? 'must not be empty' : `must be at least ${min} characters`)
    .meta({ minLength: min, maxLength: max })

/** Something of it is seen: it is not all white space and characters without a shape (zero-width ones, marks of direction). */
const isSeen = (value: string) => /[^\p{White_Space}\p{Default_Ignorable_Code_Point}]/u.test(value)
const unseen = 'must not be only white space'

/** As `text`, and not white space alone; what surrounds a name is trimmed. */
export const label = (max: number) =>
  text(1, max)
    .refine(isSeen, unseen)
    .transform((value) => value.trim())

/** 1 to 10,000 code points, not only white space; stored and returned as it was sent. */
export const content = text(1, 10_000).refine(isSeen, unseen)

/**
 * One emoji as Unicode recommends them for interchange (RGI, UTS #51): with skin tone, joined by ZWJ, a flag, a keycap; or
 * a single pictograph that this version of the data does not know as such. However many variation selectors it comes with,
 * it is the same emoji, and is kept as it is recommended. No text.
 */
export const emoji = z
  .string()
  .min(1, 'must be one emoji')
  .max(64, 'must be one emoji')
  .meta({ format: 'emoji', examples: ['👍'] })
  .transform(fullyQualified)
  .refine((value) => rgiEmoji.test(value) || /^\p{Extended_Pictographic}\uFE0F?$/u.test(value), 'must be one emoji')

const rgiEmoji = /^\p{RGI_Emoji}$/v

/** With U+FE0F after each character that would be text without it, and nowhere else: a skin tone makes an emoji of what it follows. */
function fullyQualified(value: string): string {
  const qualified = value
    .replaceAll('\uFE0F', '')
    .replace(/(?!\p{Emoji_Presentation})\p{Emoji}(?!\p{Emoji_Modifier})/gu, '$&\uFE0F')
  return rgiEmoji.test(qualified) ? qualified : value
}

export const username = z.string().regex(/^[A-Za-z0-9_]{3,50}$/, 'must be 3 to 50 letters, digits or _')

export const phone = z.string().regex(/^\+[1-9]\d{6,14}$/, 'must be a phone number in E.164 form, such as +4915112345678')

/** As it is sent to a phone. */
export const phoneCode = z.string().regex(/^\d{6}$/, 'must be six digits')

export const email = z.email('must be an email address').max(254, 'must be at most 254 characters')

/** At least 8 characters with an upper-case letter, a lower-case letter and a digit, at most 72 bytes: bcrypt reads no more. */
export const newPassword = z
  .string()
  .max(72, 'must be at most 72 bytes')
  .refine(storable, 'must be well-formed text without NUL')
  .refine(
    (value) => value.length >= 8 && /\p{Lu}/u.test(value) && /\p{Ll}/u.test(value) && /\d/.test(value),
    'must be at least 8 characters with an upper-case letter, a lower-case letter and a digit',
  )
  .refine((value) => new TextEncoder().encode(value).length <= 72, 'must be at most 72 bytes')
  .meta({ minLength: 8, maxLength: 72, format: 'password' })

/** A password as it is tried: anything that could be one, so that old rules do not lock anyone out. */
export const anyPassword = z
  .string()
  .min(1, 'must not be empty')
  .max(1_000, 'must be at most 1000 characters')
  .meta({ format: 'password' })

/** A message's number in its chat, or a chat's version. */
export const counter = z.number().int('must be a whole number').min(0).max(Number.MAX_SAFE_INTEGER)

/** RFC 3339, UTC, milliseconds. */
export const time = z.string().meta({ format: 'date-time', examples: ['2026-01-15T10:05:00.123Z'] })

/** A whole number in a query string. */
export const queryInt = (min: number, max: number) =>
  z
    .string()
    .regex(/^\d{1,15}$/, 'must be a whole number')
    .transform(Number)
    .refine((value) => value >= min && value <= max, `must be from ${min} to ${max}`)
    .meta({ type: 'integer', minimum: min, maximum: max })
