-- Channels and ways into a chat: slugs, invite links, the directory, views, and reactions that are told together.

-- A chat by its slug, beside `chats.slug`: written together under the chat's lock, and keyed for looking up.
CREATE TABLE chat_slugs (
  slug     text PRIMARY KEY,
  chat_id  uuid NOT NULL
);

-- Links into a group or channel. Who comes in by one is decided under the chat's lock; `uses` never passes `max_uses`.
CREATE TABLE chat_invites (
  code        text PRIMARY KEY,
  chat_id     uuid NOT NULL,
  created_by  uuid NOT NULL,
  created_at  timestamptz(3) NOT NULL DEFAULT now(),
  expires_at  timestamptz(3),
  max_uses    integer,
  uses        integer NOT NULL DEFAULT 0,
  revoked_at  timestamptz(3)
) WITH (fillfactor = 80);
CREATE INDEX chat_invites_of_chat ON chat_invites (chat_id, created_at, code) WHERE revoked_at IS NULL;

-- Owner and admins, without walking past ten thousand subscribers. Who left is neither.
CREATE INDEX chat_members_staff ON chat_members (chat_id, joined_at, user_id) WHERE role IN ('owner', 'admin');

-- The directory: by any part of name, slug or description.
CREATE INDEX chats_directory ON chats USING gin (lower(name) gin_trgm_ops, slug gin_trgm_ops, lower(description) gin_trgm_ops)
  WHERE type = 'channel' AND is_public AND deleted_at IS NULL;
-- Deleted channels, whose subscribers are taken out a few at a time.
CREATE INDEX chats_deleted_channels ON chats (id) WHERE type = 'channel' AND deleted_at IS NOT NULL;

-- How often a channel's messages were seen, as a histogram of read cursors: a cursor that moves from a to b adds 1 at b and
-- takes 1 away at a, so that the sum of what stands at or after a message is the number of cursors that passed it.
-- Level 1 counts single seqs, level 2 blocks of 64, level 3 blocks of 4,096: a sum reads a few dozen rows.
CREATE TABLE channel_views (
  chat_id  uuid NOT NULL,
  level    smallint NOT NULL,
  pos      bigint NOT NULL,
  delta    bigint NOT NULL,
  PRIMARY KEY (chat_id, level, pos)
) WITH (fillfactor = 50);

-- Reactions in channels that nobody was told of yet: one row for each, so that none waits for another. Whoever tells takes
-- the rows that it sees, and reads the reactions after that.
CREATE TABLE channel_reactions_due (
  chat_id  uuid NOT NULL,
  seq      bigint NOT NULL,
  n        bigint GENERATED ALWAYS AS IDENTITY,
  at       timestamptz(3) NOT NULL DEFAULT now(),
  PRIMARY KEY (chat_id, seq, n)
);
CREATE INDEX channel_reactions_due_at ON channel_reactions_due (at);
