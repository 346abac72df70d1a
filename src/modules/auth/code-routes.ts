import { answers } from '../../platform/http/answers.ts'
import type { App } from '../../platform/http/types.ts'
import { Me } from '../../protocol/resources.ts'
import { signInByCode, verifyMyPhone } from './by-phone.ts'
import { clientOf } from './client.ts'
import { requestCode } from './codes.ts'
import type { AuthDeps } from './deps.ts'
import { CodeRequest, CodeSent, MyPhone, PhoneVerification, SignedIn } from './schema.ts'

const tags = ['auth']
const config = { public: true }

/** `/auth/otp/…` and `/users/me/phone` */
export function codeRoutes(app: App, deps: AuthDeps): void {
  app.route({
    method: 'POST',
    url: '/auth/otp/request',
    config,
    schema: {
      tags,
      summary: 'Send a code to a phone',
      description:
        'Six digits, good for five minutes, five tries and one use; a new code replaces the old. The answer is the same whether an account has this phone or not. 503 when it could not be sent.',
      body: CodeRequest,
      response: answers({ 202: CodeSent }, [], config),
    },
    handler: async (request, reply) => {
      const sent = await requestCode(deps, request.body.phone, clientOf(request))
      reply.code(202)
      return { message: 'If the number can be reached, a code is on its way', ...sent }
    },
  })

  app.route({
    method: 'POST',
    url: '/auth/otp/verify',
    config,
    schema: {
      tags,
      summary: 'Sign in, or make an account, by a code sent to a phone',
      description:
        'Signs in to the account that has verified this phone (200). Otherwise makes one (201), by the same rules as registering; an account that holds the phone unverified loses it. To verify the phone of an account that is there already, sign in to it and use `PUT /users/me/phone`.',
      body: PhoneVerification,
      response: answers(
        { 200: SignedIn, 201: SignedIn },
        ['invalid_code', 'account_disabled', 'registration_closed', 'invite_required', 'invalid_invite', 'phone_taken'],
        config,
      ),
    },
    handler: async (request, reply) => {
      const { created, answer } = await signInByCode(deps, request.body, clientOf(request))
      reply.code(created ? 201 : 200)
      return answer
    },
  })

  app.route({
    method: 'PUT',
    url: '/users/me/phone',
    schema: {
      tags,
      summary: 'Add my phone, or verify it, by a code sent to it',
      description: 'An account that holds it unverified loses it; where another has verified it, it stays theirs (409).',
      body: MyPhone,
      response: answers({ 200: Me }, ['invalid_code', 'phone_taken', 'user_not_found']),
    },
    handler: ({ identity, body }) => verifyMyPhone(deps, identity.user_id, body),
  })
}
