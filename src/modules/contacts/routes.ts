import { answers, Done } from '../../platform/http/answers.ts'
import type { App } from '../../platform/http/types.ts'
import { UserPublic } from '../../protocol/resources.ts'
import { setBlocked } from './blocks.ts'
import type { ContactDeps } from './deps.ts'
import { listBlocks, listContacts, listRequests } from './lists.ts'
import * as schema from './schema.ts'
import { acceptRequest, dropRequest, removeContact, requestContact } from './service.ts'

const tags = ['contacts']

/** `/contacts/…` and `/blocks/…` */
export function contactRoutes(app: App, deps: ContactDeps): void {
  app.get(
    '/contacts',
    {
      schema: {
        tags,
        summary: 'My contacts: online first, then by name',
        description: 'Whom I block is not in it until they are unblocked.',
        querystring: schema.ContactsQuery,
        response: answers({ 200: schema.ContactList }),
      },
    },
    ({ identity, query }) => listContacts(deps, identity.user_id, query),
  )

  app.delete(
    '/contacts/:user_id',
    {
      schema: {
        tags,
        summary: 'Remove a contact, on both sides; chats stay',
        params: schema.UserParams,
        response: answers({ 200: Done }, ['contact_not_found']),
      },
    },
    async ({ identity, params }) => {
      await removeContact(deps, identity.user_id, params.user_id)
      return { message: 'Contact removed' }
    },
  )

  app.get(
    '/contacts/requests',
    {
      schema: {
        tags,
        summary: 'Requests that wait, the newest first',
        querystring: schema.RequestsQuery,
        response: answers({ 200: schema.RequestList }),
      },
    },
    ({ identity, query }) => listRequests(deps, identity.user_id, query),
  )

  app.post(
    '/contacts/requests',
    {
      schema: {
        tags,
        summary: 'Ask somebody to be a contact',
        description:
          'Asking again is the same request (200). Where the other one has asked already, the two are contacts at once (200, `relation: "contact"`).',
        body: schema.NewRequest,
        response: answers({ 200: schema.RequestAnswer, 201: schema.RequestAnswer }, [
          'user_not_found',
          'already_contacts',
          'not_allowed',
          'user_blocked',
        ]),
      },
    },
    async ({ identity, body }, reply) => {
      const { answer, created } = await requestContact(deps, identity.user_id, body.user_id)
      return reply.code(created ? 201 : 200).send(answer)
    },
  )

  app.post(
    '/contacts/requests/:id/accept',
    {
      schema: {
        tags,
        summary: 'Accept a request that was made to me; answers the new contact',
        params: schema.RequestParams,
        response: answers({ 200: UserPublic }, ['request_not_found', 'user_blocked']),
      },
    },
    ({ identity, params }) => acceptRequest(deps, identity.user_id, params.id),
  )

  app.delete(
    '/contacts/requests/:id',
    {
      schema: {
        tags,
        summary: 'Reject a request that was made to me, or take back one of mine',
        params: schema.RequestParams,
        response: answers({ 200: Done }, ['request_not_found']),
      },
    },
    async ({ identity, params }) => {
      await dropRequest(deps, identity.user_id, params.id)
      return { message: 'Request dropped' }
    },
  )

  app.get(
    '/blocks',
    {
      schema: {
        tags,
        summary: 'Whom I block',
        querystring: schema.BlocksQuery,
        response: answers({ 200: schema.BlockList }),
      },
    },
    ({ identity, query }) => listBlocks(deps, identity.user_id, query),
  )

  app.put(
    '/blocks/:user_id',
    {
      schema: {
        tags,
        summary: 'Block somebody',
        description: 'They are not told. What they send to me directly is refused, and neither sees the other come or go.',
        params: schema.UserParams,
        response: answers({ 200: Done }, ['user_not_found']),
      },
    },
    async ({ identity, params }) => {
      await setBlocked(deps, identity.user_id, params.user_id, true)
      return { message: 'Blocked' }
    },
  )

  app.delete(
    '/blocks/:user_id',
    {
      schema: {
        tags,
        summary: 'Block somebody no longer; what was between us is as it was',
        params: schema.UserParams,
        response: answers({ 200: Done }),
      },
    },
    async ({ identity, params }) => {
      await setBlocked(deps, identity.user_id, params.user_id, false)
      return { message: 'Unblocked' }
    },
  )
}
