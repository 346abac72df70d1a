import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

/** An SMS service as OTP_SENDER=webhook calls it: takes codes, and fails as it is told to. */

export interface Sms {
  /** For the server's environment. */
  env: Record<string, string>
  /** All that came, oldest first. */
  messages: { phone: string; code: string; expires_in: number; authorization: string | undefined }[]
  /** The last code that came for this phone. */
  codeOf(phone: string): string
  /** The status of the next answers; 0: none at all. */
  status: number
  close(): Promise<void>
}

export async function startSms(): Promise<Sms> {
  const server = createServer((request, response) => {
    let body = ''
    request.on('data', (chunk) => {
      body += chunk
    })
    request.on('end', () => {
      sms.messages.push({ ...JSON.parse(body), authorization: request.headers.authorization })
      if (sms.status !== 0) response.writeHead(sms.status, { location: '/elsewhere' }).end('thank you')
    })
  })
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
  const sms: Sms = {
    env: {
      OTP_SENDER: 'webhook',
      OTP_WEBHOOK_URL: `http://127.0.0.1:${(server.address() as AddressInfo).port}/sms`,
      OTP_WEBHOOK_TOKEN: 'a token for tests',
    },
    messages: [],
    codeOf(phone) {
      const found = sms.messages.findLast((message) => message.phone === phone)
      if (!found) throw new Error(`no code came for ${phone}`)
      return found.code
    },
    status: 202,
    close: () =>
      new Promise((closed) => {
        server.close(() => closed())
        server.closeAllConnections()
      }),
  }
  return sms
}
