-- What messages are found by. Made in the background from `messages` and nothing else: emptying both tables rebuilds it.

-- How far each chat has been indexed. Whoever changes what is indexed of a chat (the indexer, an edit, a delete) holds this
-- row; sends do not touch it. Messages above `indexed_seq` are searched where they stand.
CREATE TABLE search_positions (
  chat_id      uuid PRIMARY KEY,
  indexed_seq  bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- A row for each word of each 1,024 messages of a chat (segment = seq / 1024), folded: lower case, no accents. `messages`
-- says which of them have it: up to 63 numbers (seq % 1024) of two bytes each, or 1,024 bits. Hence a row stays small
-- enough to be updated in its page. Words are compared byte by byte, whatever the database's locale is.
CREATE TABLE search_words (
  chat_id   uuid NOT NULL,
  segment   integer NOT NULL,
  word      text COLLATE "C" NOT NULL,
  messages  bytea NOT NULL,
  PRIMARY KEY (chat_id, segment, word)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.1);

-- All pieces of three characters of a word. pg_trgm knows letters by the database's LC_CTYPE, and in the C locale none
-- but those of English.
CREATE FUNCTION search_pieces(word text) RETURNS text[] LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN ARRAY(SELECT substr(word, n, 3) FROM generate_series(1, char_length(word) - 2) AS n);

-- Finds words by a part of them. What waits to be sorted in is read by every search: it is kept short.
CREATE INDEX search_words_pieces ON search_words USING gin (search_pieces(word)) WITH (gin_pending_list_limit = 256)
  WHERE word >= '!' AND char_length(word) > 3;
