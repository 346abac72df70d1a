-- What happens to a message after it was sent: edits, deletion, forwards, mentions, reactions, pins, receipts.
-- All of it is keyed by the chat and written under the lock of the chat's counters row.

ALTER TABLE messages
  -- Who wrote it first, and the public channel it was posted in: what a forwarded message is attributed to.
  ADD COLUMN forward_sender_id  uuid,
  ADD COLUMN forward_chat_id    uuid,
  -- Members called by @username, in the order of the text.
  ADD COLUMN mentions           uuid[];
CREATE INDEX messages_pinned ON messages (chat_id, pinned_at) WHERE pinned_at IS NOT NULL;

-- Earlier texts of an edited message, each with the time it was written at. Gone with the message.
CREATE TABLE message_edits (
  chat_id    uuid NOT NULL,
  seq        bigint NOT NULL,
  -- The chat's version that replaced this text.
  version    bigint NOT NULL,
  content    text NOT NULL,
  edited_at  timestamptz(3) NOT NULL,
  PRIMARY KEY (chat_id, seq, version)
);

CREATE TABLE message_reactions (
  chat_id     uuid NOT NULL,
  seq         bigint NOT NULL,
  emoji       text NOT NULL,
  user_id     uuid NOT NULL,
  created_at  timestamptz(3) NOT NULL DEFAULT now(),
  PRIMARY KEY (chat_id, seq, emoji, user_id)
);

-- Counts mentions after a read cursor. A row goes when its message is deleted or no longer mentions the person.
CREATE TABLE message_mentions (
  chat_id    uuid NOT NULL,
  user_id    uuid NOT NULL,
  seq        bigint NOT NULL,
  sender_id  uuid NOT NULL,
  PRIMARY KEY (chat_id, user_id, seq)
);

-- When somebody's cursors came where: 64 places for each member and kind, taken in turn by seq, so that the list is
-- bounded without being swept. The oldest moves are overwritten; what they covered then has the time of the next one.
CREATE TABLE cursor_moves (
  chat_id  uuid NOT NULL,
  user_id  uuid NOT NULL,
  is_read  boolean NOT NULL,
  slot     smallint NOT NULL,
  seq      bigint NOT NULL,
  at       timestamptz(3) NOT NULL,
  PRIMARY KEY (chat_id, user_id, is_read, slot)
) WITH (fillfactor = 80);

-- A public channel is found in the directory and may be read without subscribing.
ALTER TABLE chats ADD COLUMN is_public boolean NOT NULL DEFAULT false;
