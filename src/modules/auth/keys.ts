import { createHash, createPrivateKey, createPublicKey, hkdfSync, type JsonWebKey, randomUUID } from 'node:crypto'
import { createSigner, createVerifier } from 'fast-jwt'
import { StartError } from '../../platform/db/migrate.ts'
import { AppError } from '../../platform/errors.ts'

/** What an access token says. Times are Unix seconds. */
export interface Claims {
  sub: string
  sid: string
  /** The number of the refresh token that was given out with it. */
  gen: number
  jti: string
  iat: number
  exp: number
}

export interface Keys {
  sign(claims: Pick<Claims, 'sub' | 'sid' | 'gen'>): string
  /** Throws `invalid_token` or `token_expired`. */
  verify(token: string): Claims
  /** The public key, when tokens are signed with a private one. */
  jwks: { keys: JsonWebKey[] } | undefined
  /** Makes refresh tokens; derived from the secret, so that one does not give away the other. */
  refreshKey: Buffer
  /** Hashes codes sent to phones; derived from the secret, like the one above. */
  codeKey: Buffer
  /** Signs links to files; derived as well. */
  linkKey: Buffer
}

export interface KeysOptions {
  /** At least 32 characters. Signs with HS256, unless there is a private key. */
  secret?: string | undefined
  /** PEM of an RSA key: signs with RS256, so that others can check tokens by the public key. */
  privateKey?: string | undefined
  accessTokenTtlMs: number
}

// Instances' clocks differ a little.
const clockToleranceMs = 2_000

/** Throws StartError when there is no usable key. */
export function createKeys({ secret, privateKey, accessTokenTtlMs }: KeysOptions): Keys {
  const rsa = privateKey === undefined ? undefined : readRsaKey(privateKey)
  // All instances have the same: the secret if there is one, else the private key.
  const material = secret ?? rsa?.private
  if (material === undefined) throw new StartError('JWT_SECRET or JWT_PRIVATE_KEY_FILE must be set.')

  const signer = createSigner({
    key: rsa?.private ?? secret!,
    algorithm: rsa ? 'RS256' : 'HS256',
    expiresIn: accessTokenTtlMs,
    ...(rsa && { kid: rsa.kid }),
  })
  const verifier = createVerifier({
    key: rsa?.public ?? secret!,
    // Pinned: the token does not choose how it is checked.
    algorithms: [rsa ? 'RS256' : 'HS256'],
    clockTolerance: clockToleranceMs,
    requiredClaims: ['sub', 'sid', 'gen', 'exp'],
    cache: false,
  })

  return {
    sign: (claims) => signer({ ...claims, jti: randomUUID() }),
    verify(token) {
      try {
        return verifier(token) as Claims
      } catch (error) {
        throw new AppError((error as { code?: string }).code === 'FAST_JWT_EXPIRED' ? 'token_expired' : 'invalid_token')
      }
    },
    jwks: rsa && { keys: [rsa.jwk] },
    refreshKey: Buffer.from(hkdfSync('sha256', material, '', 'parley refresh tokens', 32)),
    codeKey: Buffer.from(hkdfSync('sha256', material, '', 'parley codes by phone', 32)),
    linkKey: Buffer.from(hkdfSync('sha256', material, '', 'parley links to files', 32)),
  }
}

function readRsaKey(pem: string) {
  try {
    const key = createPrivateKey(pem)
    if (key.asymmetricKeyType !== 'rsa' || (key.asymmetricKeyDetails?.modulusLength ?? 0) < 2048) throw new Error()
    const publicKey = createPublicKey(key)
    const jwk = publicKey.export({ format: 'jwk' })
    // RFC 7638: the key's name is the hash of its required members in order.
    const kid = createHash('sha256')
      .update(JSON.stringify({ e: jwk.e, kty: jwk.kty, n: jwk.n }))
      .digest('base64url')
    return {
      private: key.export({ format: 'pem', type: 'pkcs8' }) as string,
      public: publicKey.export({ format: 'pem', type: 'spki' }) as string,
      jwk: { ...jwk, kid, alg: 'RS256', use: 'sig' },
      kid,
    }
  } catch {
    throw new StartError('JWT_PRIVATE_KEY_FILE must hold an RSA private key of at least 2048 bits in PEM form.')
  }
}
