-- People, sessions, chats, messages.
-- Every table of chat data is keyed by chat_id first and has no foreign key to users, so that chats can be distributed
-- by chat_id one day. Times have milliseconds, because that is what the API promises.

CREATE EXTENSION IF NOT EXISTS pg_trgm;

CREATE TABLE users (
  id                 uuid PRIMARY KEY,
  username           text,
  display_name       text NOT NULL,
  phone              text,
  email              text,
  phone_verified_at  timestamptz(3),
  email_verified_at  timestamptz(3),
  password_hash      text,
  bio                text NOT NULL DEFAULT '',
  avatar             jsonb,
  status             text NOT NULL DEFAULT 'online' CHECK (status IN ('online', 'away', 'invisible')),
  privacy_last_seen  text NOT NULL DEFAULT 'everyone' CHECK (privacy_last_seen IN ('everyone', 'contacts', 'nobody')),
  privacy_dm         text NOT NULL DEFAULT 'everyone' CHECK (privacy_dm IN ('everyone', 'contacts')),
  is_premium         boolean NOT NULL DEFAULT false,
  created_at         timestamptz(3) NOT NULL DEFAULT now(),
  last_seen          timestamptz(3),
  deleted_at         timestamptz(3)
);
-- Unique without regard to case; these also serve login.
CREATE UNIQUE INDEX users_username ON users (lower(username));
CREATE UNIQUE INDEX users_email ON users (lower(email));
CREATE UNIQUE INDEX users_phone ON users (phone);
CREATE INDEX users_deleted ON users (deleted_at) WHERE deleted_at IS NOT NULL;
-- Search by any part of a name.
CREATE INDEX users_search ON users USING gin (lower(username) gin_trgm_ops, lower(display_name) gin_trgm_ops) WHERE deleted_at IS NULL;

-- Counts what is a user's alone: read cursors, settings of chats, contacts. Narrow, because it is updated in place all day.
CREATE TABLE user_clock (
  user_id  uuid PRIMARY KEY,
  version  bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

CREATE TABLE sessions (
  id                    uuid PRIMARY KEY,
  user_id               uuid NOT NULL REFERENCES users,
  -- The refresh tokens of a session are numbered; number `generation` is the current one.
  generation            integer NOT NULL DEFAULT 1,
  -- The newest generation whose access token has been used: its refresh token has arrived.
  confirmed_generation  integer NOT NULL DEFAULT 0,
  refresh_hash          bytea NOT NULL,
  salt                  bytea NOT NULL,
  device                text NOT NULL DEFAULT '',
  ip                    text NOT NULL DEFAULT '',
  created_at            timestamptz(3) NOT NULL DEFAULT now(),
  last_used_at          timestamptz(3) NOT NULL DEFAULT now(),
  expires_at            timestamptz(3) NOT NULL,
  ended_at              timestamptz(3)
) WITH (fillfactor = 80);
CREATE INDEX sessions_of_user ON sessions (user_id) WHERE ended_at IS NULL;
CREATE INDEX sessions_expiry ON sessions (expires_at);

-- Failed logins are counted here, where an outage of Redis cannot reset them. The columns are rate-limiter-flexible's.
CREATE TABLE login_failures (
  key     varchar(255) PRIMARY KEY,
  points  integer NOT NULL DEFAULT 0,
  expire  bigint
);
CREATE INDEX login_failures_expire ON login_failures (expire);

CREATE TABLE chats (
  id           uuid PRIMARY KEY,
  type         text NOT NULL CHECK (type IN ('dm', 'group', 'channel')),
  name         text,
  description  text NOT NULL DEFAULT '',
  avatar       jsonb,
  slug         text,
  owner_id     uuid,
  -- The chat's version in which this row changed last.
  version      bigint NOT NULL DEFAULT 0,
  created_at   timestamptz(3) NOT NULL DEFAULT now(),
  deleted_at   timestamptz(3)
);

-- The two clocks of a chat. Every change of shared state locks this row first. Nothing but its key is indexed and most of
-- a page stays free, so that updates stay in place; vacuum comes by often, because every message leaves a dead row.
CREATE TABLE chat_counters (
  chat_id       uuid PRIMARY KEY REFERENCES chats,
  last_seq      bigint NOT NULL DEFAULT 0,
  version       bigint NOT NULL DEFAULT 0,
  -- Goes up with everything that may change who may do what: send permission is decided against it under the lock.
  acl_version   bigint NOT NULL DEFAULT 1,
  member_count  integer NOT NULL DEFAULT 0
) WITH (fillfactor = 25, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500, autovacuum_analyze_scale_factor = 0.5, autovacuum_vacuum_cost_delay = 0);

-- Members; those who left stay as tombstones with the version of their leaving. Cursors live here and never go back.
CREATE TABLE chat_members (
  chat_id        uuid NOT NULL REFERENCES chats,
  user_id        uuid NOT NULL,
  role           text NOT NULL CHECK (role IN ('owner', 'admin', 'member', 'subscriber')),
  -- The chat's version in which membership or role changed last; cursors take no version.
  version        bigint NOT NULL,
  joined_at      timestamptz(3) NOT NULL DEFAULT now(),
  -- The chat's last_seq when they joined: older messages do not count for their ticks.
  joined_seq     bigint NOT NULL DEFAULT 0,
  left_at        timestamptz(3),
  read_seq       bigint NOT NULL DEFAULT 0,
  delivered_seq  bigint NOT NULL DEFAULT 0,
  read_at        timestamptz(3),
  PRIMARY KEY (chat_id, user_id)
) WITH (fillfactor = 70);
CREATE INDEX chat_members_version ON chat_members (chat_id, version);

-- My chats: what a user sees and set in a chat, keyed by the user. `version` is the user's clock at the last change.
CREATE TABLE user_chats (
  user_id       uuid NOT NULL,
  chat_id       uuid NOT NULL,
  is_member     boolean NOT NULL DEFAULT true,
  version       bigint NOT NULL,
  -- Archived when the chat stood at this seq: newer messages take it out again, unless muted.
  archived_seq  bigint,
  pinned_at     timestamptz(3),
  muted_until   timestamptz(3),
  -- A direct chat that I deleted for myself: what is not newer is gone for me.
  cleared_seq   bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (user_id, chat_id)
) WITH (fillfactor = 70);

-- The one direct chat between two people (or of one with themselves), lower id first.
CREATE TABLE dm_pairs (
  user_a   uuid NOT NULL,
  user_b   uuid NOT NULL,
  chat_id  uuid NOT NULL,
  PRIMARY KEY (user_a, user_b),
  CHECK (user_a <= user_b)
);

-- No foreign keys: the insert happens under the lock of the chat's counters row, which vouches for the chat, and a check
-- per row would lock the chat's row too.
CREATE TABLE messages (
  chat_id       uuid NOT NULL,
  seq           bigint NOT NULL,
  version       bigint NOT NULL,
  id            uuid NOT NULL,
  sender_id     uuid NOT NULL,
  client_id     uuid NOT NULL,
  created_at    timestamptz(3) NOT NULL,
  edited_at     timestamptz(3),
  deleted_at    timestamptz(3),
  pinned_at     timestamptz(3),
  reply_to_seq  bigint,
  -- True once anything changed after sending. A message that never changed is found by its seq (see sync).
  changed       boolean NOT NULL DEFAULT false,
  message_type  text NOT NULL,
  content       text NOT NULL,
  system        jsonb,
  PRIMARY KEY (chat_id, seq)
);
-- A message by its id alone; ids are time-ordered, so that this grows at its right edge.
CREATE INDEX messages_id ON messages (id);
-- The same send again is the same message.
CREATE UNIQUE INDEX messages_client_id ON messages (chat_id, sender_id, client_id);
-- Catching up on edits and deletes.
CREATE INDEX messages_changed ON messages (chat_id, version) WHERE changed;
