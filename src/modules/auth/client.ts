import type { FastifyRequest } from 'fastify'
import type { Client } from './deps.ts'

const maxDeviceLength = 200

/** The User-Agent is shown to the user later: short, and nothing that a terminal or a database would stumble over. */
export function clientOf({ ip, headers }: FastifyRequest): Client {
  const device = (headers['user-agent'] ?? '')
    .toWellFormed()
    .replace(/[\s\p{Cc}\p{Cf}]+/gu, ' ')
    .trim()
  return { ip, device: device.slice(0, maxDeviceLength).toWellFormed() }
}
