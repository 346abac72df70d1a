import type { FastifyRequest } from 'fastify'

/** How people reach the server, for links in its answers: as configured, else as the request asked for it. Without a slash at its end. */
export const baseUrl = ({ protocol, host }: Pick<FastifyRequest, 'protocol' | 'host'>, publicUrl: string | undefined): string =>
  publicUrl ?? `${protocol}://${host}`
