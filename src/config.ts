import { z } from 'zod'
import { parseDuration } from './platform/duration.ts'
import type { LimitRule } from './platform/limits/limits.ts'

/**
 * The only reader of the environment. Every variable is in `.env.example`; a wrong value stops the start with
 * one line that names the variable and what it should be.
 */

/** `1h` -> milliseconds. */
const duration = (fallback: string) =>
  z
    .string()
    .default(fallback)
    .transform((text, context) => {
      const ms = parseDuration(text)
      if (ms === undefined || ms === 0) {
        context.addIssue('must be a time such as 30s, 15m, 1h or 30d')
        return z.NEVER
      }
      return ms
    })

/** `100/1m` -> 100 points a minute; `off` -> null. */
const rule = (fallback: string) =>
  z
    .string()
    .default(fallback)
    .transform((text, context): LimitRule => {
      if (text.trim() === 'off') return null
      const [points, window = ''] = text.trim().split('/')
      const windowMs = parseDuration(window)
      if (!/^\d{1,7}$/.test(points ?? '') || Number(points) < 1 || !windowMs) {
        context.addIssue('must be a limit such as 100/1m, or off')
        return z.NEVER
      }
      return { points: Number(points), windowMs }
    })

const int = (fallback: number, min: number, max: number) =>
  z
    .string()
    .default(String(fallback))
    .transform((text, context) => {
      const value = /^-?\d{1,15}$/.test(text.trim()) ? Number(text) : Number.NaN
      if (!(value >= min && value <= max)) {
        context.addIssue(`must be a whole number from ${min} to ${max}`)
        return z.NEVER
      }
      return value
    })

const url = (...protocols: string[]) =>
  z
    .string()
    .refine(
      (text) => URL.canParse(text) && protocols.includes(new URL(text).protocol),
      `must be a URL that starts with ${protocols.join('// or ')}//`,
    )

/** `off`, `on`, a number of hops, or addresses and CIDR ranges: what Fastify's `trustProxy` takes. */
const trustProxy = z
  .string()
  .default('off')
  .transform((text): boolean | number | string[] => {
    const value = text.trim()
    if (value === 'off' || value === 'false') return false
    if (value === 'on' || value === 'true') return true
    if (/^\d{1,2}$/.test(value)) return Number(value)
    return value.split(',').map((part) => part.trim())
  })

const list = z
  .string()
  .default('')
  .transform((text) =>
    text
      .split(',')
      .map((part) => part.trim())
      .filter(Boolean),
  )

const environment = z.object({
  HOST: z.string().min(1).default('127.0.0.1'),
  PORT: int(8080, 0, 65_535),
  // Links are made of it: without a slash at its end.
  PUBLIC_URL: url('http:', 'https:')
    .transform((text) => text.replace(/\/+$/, ''))
    .optional(),
  TRUST_PROXY: trustProxy,
  CORS_ORIGINS: list,
  DATA_DIR: z.string().min(1).default('./data'),
  // A unix socket's URL has an empty host, which URL does not take: its form is the driver's business.
  DATABASE_URL: z
    .string()
    .regex(/^postgres(ql)?:\/\/\S+$/, 'must be a URL that starts with postgres://')
    .optional(),
  DATABASE_POOL_SIZE: int(10, 2, 200),
  REDIS_URL: url('redis:', 'rediss:').optional(),
  REDIS_PREFIX: z
    .string()
    .regex(/^[\w:.-]{1,50}$/, 'must be 1 to 50 letters, digits, _ : . or -')
    .default('parley:'),
  JWT_SECRET: z.string().min(32, 'must be at least 32 characters').optional(),
  JWT_PRIVATE_KEY_FILE: z.string().min(1).optional(),
  ACCESS_TOKEN_TTL: duration('1h'),
  REFRESH_TOKEN_TTL: duration('30d'),
  BCRYPT_COST: int(12, 4, 16),
  RATE_LIMIT_GENERAL: rule('100/1m'),
  RATE_LIMIT_PREMIUM: rule('1000/1m'),
  RATE_LIMIT_LOGIN: rule('5/15m'),
  RATE_LIMIT_LOGIN_ACCOUNT: rule('50/15m'),
  RATE_LIMIT_REGISTER: rule('10/1h'),
  RATE_LIMIT_OTP: rule('5/1h'),
  RATE_LIMIT_OTP_ADDRESS: rule('20/1h'),
  RATE_LIMIT_MESSAGE: rule('10/1s'),
  RATE_LIMIT_CONTACT: rule('50/1d'),
  RATE_LIMIT_FRAME: rule('50/1s'),
  MEDIA_RETENTION_DAYS: int(30, 0, 3_650),
  GROUP_MAX_MEMBERS: int(300, 2, 100_000),
  REGISTRATION: z.enum(['open', 'invite', 'closed'], 'must be open, invite or closed').default('open'),
  OTP_SENDER: z.enum(['log', 'webhook'], 'must be log or webhook').default('log'),
  OTP_WEBHOOK_URL: url('http:', 'https:').optional(),
  OTP_WEBHOOK_TOKEN: z.string().min(8, 'must be at least 8 characters').optional(),
  LOG_LEVEL: z
    .enum(
      ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'],
      'must be fatal, error, warn, info, debug, trace or silent',
    )
    .default('info'),
  METRICS_TOKEN: z.string().min(8, 'must be at least 8 characters').optional(),
})

/** Names that `.env.example` has to document. */
export const configNames = Object.keys(environment.shape)

export class ConfigError extends Error {}

export type Config = Readonly<ReturnType<typeof readConfig>>

/** Throws ConfigError with one line that names the variable. An empty variable counts as unset. */
export function readConfig(env: Record<string, string | undefined>) {
  const given = Object.fromEntries(
    Object.entries(env).filter(([name, value]) => value !== undefined && value !== '' && name in environment.shape),
  )
  const parsed = environment.safeParse(given)
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!
    throw new ConfigError(`${issue.path.join('.')} ${issue.message}.`)
  }
  const e = parsed.data
  if (e.DATABASE_URL && !e.JWT_SECRET && !e.JWT_PRIVATE_KEY_FILE) {
    throw new ConfigError('JWT_SECRET must be set (at least 32 characters) when DATABASE_URL is.')
  }
  if (e.OTP_SENDER === 'webhook' && !e.OTP_WEBHOOK_URL) {
    throw new ConfigError('OTP_WEBHOOK_URL must be set when OTP_SENDER is webhook.')
  }
  return Object.freeze({
    host: e.HOST,
    port: e.PORT,
    publicUrl: e.PUBLIC_URL,
    trustProxy: e.TRUST_PROXY,
    corsOrigins: e.CORS_ORIGINS,
    dataDir: e.DATA_DIR,
    databaseUrl: e.DATABASE_URL,
    databasePoolSize: e.DATABASE_POOL_SIZE,
    redisUrl: e.REDIS_URL,
    redisPrefix: e.REDIS_PREFIX,
    jwtSecret: e.JWT_SECRET,
    jwtPrivateKeyFile: e.JWT_PRIVATE_KEY_FILE,
    accessTokenTtlMs: e.ACCESS_TOKEN_TTL,
    refreshTokenTtlMs: e.REFRESH_TOKEN_TTL,
    bcryptCost: e.BCRYPT_COST,
    limits: Object.freeze({
      general: e.RATE_LIMIT_GENERAL,
      premium: e.RATE_LIMIT_PREMIUM,
      login: e.RATE_LIMIT_LOGIN,
      loginAccount: e.RATE_LIMIT_LOGIN_ACCOUNT,
      register: e.RATE_LIMIT_REGISTER,
      otp: e.RATE_LIMIT_OTP,
      otpAddress: e.RATE_LIMIT_OTP_ADDRESS,
      message: e.RATE_LIMIT_MESSAGE,
      contact: e.RATE_LIMIT_CONTACT,
      frame: e.RATE_LIMIT_FRAME,
    }),
    mediaRetentionMs: e.MEDIA_RETENTION_DAYS * 86_400_000,
    groupMaxMembers: e.GROUP_MAX_MEMBERS,
    registration: e.REGISTRATION,
    otp: Object.freeze({ sender: e.OTP_SENDER, webhookUrl: e.OTP_WEBHOOK_URL, webhookToken: e.OTP_WEBHOOK_TOKEN }),
    logLevel: e.LOG_LEVEL,
    metricsToken: e.METRICS_TOKEN,
  })
}
