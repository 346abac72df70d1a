import { createHash, createHmac, timingSafeEqual } from 'node:crypto'
import { parse, stringify } from 'uuid'

/**
 * Refresh tokens are made, not drawn: the same session and number give the same token, so that a client that lost an answer
 * can be given the same one again although only its hash is stored. Layout: session id (16 bytes), number (4), HMAC (32).
 */

const bytesLong = 52
const signedLong = 20
const form = /^[\w-]{70}$/

/** What a token claims to be; whether it is genuine only the session's salt can tell. */
export interface ClaimedToken {
  sessionId: string
  generation: number
  isGenuine(key: Buffer, salt: Buffer): boolean
}

function macOf(key: Buffer, signed: Buffer, salt: Buffer): Buffer {
  return createHmac('sha256', key).update(signed).update(salt).digest()
}

export function makeRefreshToken(key: Buffer, sessionId: string, generation: number, salt: Buffer): string {
  const signed = Buffer.alloc(signedLong)
  signed.set(parse(sessionId))
  signed.writeUInt32BE(generation, 16)
  return Buffer.concat([signed, macOf(key, signed, salt)]).toString('base64url')
}

/** Undefined for what is no refresh token at all. */
export function readRefreshToken(token: string): ClaimedToken | undefined {
  if (!form.test(token)) return undefined
  const bytes = Buffer.from(token, 'base64url')
  // The last character has bits to spare: only one spelling is the token.
  if (bytes.length !== bytesLong || bytes.toString('base64url') !== token) return undefined
  const signed = bytes.subarray(0, signedLong)
  try {
    return {
      sessionId: stringify(bytes.subarray(0, 16)),
      generation: signed.readUInt32BE(16),
      isGenuine: (key, salt) => timingSafeEqual(macOf(key, signed, salt), bytes.subarray(signedLong)),
    }
  } catch {
    // These 16 bytes are no UUID.
    return undefined
  }
}

/** What is stored of a token. */
export const hashOf = (token: string): Buffer => createHash('sha256').update(token).digest()
