-- Pictures of people, groups and channels. A row stands for two files, which are written after it and removed before it:
-- nothing is in the storage that nobody owns.
CREATE TABLE avatars (
  id          uuid PRIMARY KEY,
  -- Where its files are, without size and extension.
  path        text NOT NULL,
  user_id     uuid,
  chat_id     uuid,
  created_at  timestamptz(3) NOT NULL DEFAULT now(),
  -- Not in use: not yet, or no longer. From then on its files are kept for a while, and shown to nobody.
  unused_at   timestamptz(3) DEFAULT now(),
  CHECK (num_nonnulls(user_id, chat_id) = 1)
);
CREATE INDEX avatars_unused ON avatars (unused_at) WHERE unused_at IS NOT NULL;
CREATE INDEX avatars_user ON avatars (user_id) WHERE unused_at IS NULL;
CREATE INDEX avatars_chat ON avatars (chat_id) WHERE unused_at IS NULL;

-- What is deleted lets go of its picture.
CREATE INDEX chats_deleted ON chats (deleted_at) WHERE deleted_at IS NOT NULL;
