import { AppError } from '../../platform/errors.ts'
import type { Log } from '../../platform/log.ts'

/** How a code gets to a phone. */
export interface CodeSender {
  /** Resolves once it is on its way. Rejects with `unavailable`; nobody will get the code then. */
  send(message: { phone: string; code: string; expires_in: number }): Promise<void>
}

export interface SenderConfig {
  sender: 'log' | 'webhook'
  webhookUrl?: string | undefined
  webhookToken?: string | undefined
}

const answerWithinMs = 5_000

export function createCodeSender({ sender, webhookUrl, webhookToken }: SenderConfig, log: Pick<Log, 'warn'>): CodeSender {
  return sender === 'webhook' && webhookUrl !== undefined ? webhook(webhookUrl, webhookToken) : logOnly(log)
}

/** For trying it out: whoever reads the log can sign in. */
function logOnly(log: Pick<Log, 'warn'>): CodeSender {
  return {
    async send({ phone, code }) {
      log.warn({ phone, code }, 'a code was asked for; no SMS is sent, because OTP_SENDER is log')
    },
  }
}

function webhook(url: string, token: string | undefined): CodeSender {
  return {
    async send(message) {
      try {
        const answer = await fetch(url, {
          method: 'POST',
          headers: { 'content-type': 'application/json', ...(token !== undefined && { authorization: `Bearer ${token}` }) },
          body: JSON.stringify(message),
          // The token is for this address and no other.
          redirect: 'manual',
          signal: AbortSignal.timeout(answerWithinMs),
        })
        await answer.body?.cancel()
        if (!answer.ok) throw new Error(`OTP_WEBHOOK_URL answered ${answer.status}`)
      } catch (error) {
        throw new AppError('unavailable', { retryAfter: 5, cause: error })
      }
    },
  }
}
