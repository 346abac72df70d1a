-- Contacts, requests and blocks. A row is what `user_id` holds of `other_id`: their own view, under the version of their own
-- clock. What two people share (a request, a contact) stands in both rows and is written together, under both clocks; a
-- block stands in the blocker's row alone, so that the other side is told nothing. Rows stay when all is over: `sync` tells
-- from them what has ended.

CREATE TABLE relations (
  user_id     uuid NOT NULL,
  other_id    uuid NOT NULL,
  -- Of a request: `requested` with who asked, `incoming` with who was asked.
  state       text NOT NULL CHECK (state IN ('none', 'requested', 'incoming', 'contact')),
  blocked     boolean NOT NULL DEFAULT false,
  -- The request's id, the same in both rows, while it waits.
  request_id  uuid,
  -- When this state began.
  since       timestamptz(3) NOT NULL,
  -- The user's clock at the last change of this row.
  version     bigint NOT NULL,
  PRIMARY KEY (user_id, other_id),
  CHECK (user_id <> other_id),
  CHECK ((request_id IS NOT NULL) = (state IN ('requested', 'incoming')))
) WITH (fillfactor = 80);
-- The contacts of a user, and who is told of their coming.
CREATE INDEX relations_contacts ON relations (user_id, other_id) WHERE state = 'contact';
-- Requests that wait, by direction; ids are time-ordered, so that the newest come first backwards.
CREATE INDEX relations_requests ON relations (user_id, state, request_id) WHERE request_id IS NOT NULL;
-- Whom a user blocks: looked up with every count of unread messages.
CREATE INDEX relations_blocked ON relations (user_id, other_id) WHERE blocked;
-- Catching up, in the order of the user's clock.
CREATE INDEX relations_version ON relations (user_id, version);
