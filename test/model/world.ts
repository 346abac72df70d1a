import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import type { Bus } from '../../src/platform/bus/bus.ts'
import { createMemoryBus, createMemoryExchange, type MemoryExchange } from '../../src/platform/bus/memory.ts'
import type { Db, Queryable, Sql } from '../../src/platform/db/db.ts'
import { createMemoryLimits } from '../../src/platform/limits/memory.ts'
import { createMemoryPresence, createMemoryPresenceHub } from '../../src/platform/presence/memory.ts'
import { startServers, type TestServers } from '../support/server.ts'

/**
 * Two instances over one exchange that can be made unkind, with the mishaps of the code's surroundings at hand: a process
 * that dies between commit and publication, a commit whose answer is lost, a database that answers late. Beside them a
 * journal, kept by triggers, of what really happened: which change took which version, and who was a member when.
 */

/** Mishaps of one instance; numbers are how many times it is still to happen. */
export interface Mishaps {
  /** News are committed and never told, here or elsewhere. */
  loseTell: number
  /** The batch of messages is committed, its answer is lost with the connection. */
  ambiguousInsert: number
  /** The connection is lost before the batch. */
  failedInsert: number
  ambiguousTransaction: number
  /** Subscriptions take long; answers of the database come late, and statements of one snapshot are far apart. */
  slow: boolean
}

export interface World {
  servers: TestServers
  exchange: MemoryExchange
  buses: ReturnType<typeof createMemoryBus>[]
  mishaps: Mishaps[]
  /** For the test's own questions. */
  sql: pg.Pool
  random: () => number
  kind(): void
  unkind(lossy: boolean): void
  /** The bus goes and comes back: every instance has to find what it missed. */
  gap(): void
  close(): Promise<void>
}

const none = (): Mishaps => ({ loseTell: 0, ambiguousInsert: 0, failedInsert: 0, ambiguousTransaction: 0, slow: false })

export async function createWorld(): Promise<World> {
  const exchange = createMemoryExchange()
  const hub = createMemoryPresenceHub()
  const limits = createMemoryLimits()
  const buses = [0, 1].map(() => createMemoryBus(exchange, { subscribeTimeoutMs: 60 }))
  const stores = [0, 1].map(() => createMemoryPresence(hub))
  const servers = await startServers({
    instances: 2,
    overrides: (n) => ({ bus: buses[n]!, limits, presence: stores[n]! }),
  })
  const sql = new pg.Pool({ connectionString: servers.databaseUrl, max: 4 })
  await sql.query(journal)
  const mishaps = [none(), none()]
  const world: World = {
    servers,
    exchange,
    buses,
    mishaps,
    sql,
    random: Math.random,
    kind() {
      exchange.unkind = undefined
      for (const mine of mishaps) Object.assign(mine, none())
      exchange.restore()
    },
    unkind(lossy) {
      exchange.unkind = { random: () => world.random(), drop: lossy ? 0.25 : 0, double: 0.2, reorder: 0.3, delayMs: 25 }
    },
    gap() {
      exchange.outage()
      exchange.restore()
    },
    async close() {
      world.kind()
      await sql.end()
      await servers.close()
      await Promise.all([...buses.map((bus) => bus.close()), ...stores.map((store) => store.close()), limits.close()])
    },
  }
  for (const [n, { context, server }] of servers.instances.entries()) {
    slowBus(buses[n]!, mishaps[n]!, () => world.random())
    breakDb(context.db, mishaps[n]!, () => world.random())
    const { hub: told } = server
    const tell = told.tell.bind(told)
    const sweep = told.sweep.bind(told)
    // The sweep that goes round by itself would find anything in the end, and hide what should have been found at once.
    told.sweep = async (everything) => (everything ? sweep(true) : undefined)
    told.tell = (stream, events) => {
      if (mishaps[n]!.loseTell === 0) return tell(stream, events)
      mishaps[n]!.loseTell -= 1
    }
  }
  return world
}

/** Subscribing takes its time, in order. */
function slowBus(bus: Bus, mishaps: Mishaps, random: () => number): void {
  const { subscribe, unsubscribe } = { subscribe: bus.subscribe, unsubscribe: bus.unsubscribe }
  let before: Promise<unknown> = Promise.resolve()
  bus.subscribe = (channels) => {
    const turn = before.then(() => (mishaps.slow ? sleep(random() * 30) : undefined))
    before = turn
    return turn.then(() => subscribe(channels))
  }
  bus.unsubscribe = (channels) => {
    before = before.then(() => unsubscribe(channels))
  }
}

const lost = () => Object.assign(new Error('the connection was lost (by the test)'), { code: '08006' })

function breakDb(db: Db, mishaps: Mishaps, random: () => number): void {
  const { query, transaction, snapshot } = { query: db.query, transaction: db.transaction, snapshot: db.snapshot }
  const late = async <T>(answer: Promise<T>): Promise<T> => {
    const value = await answer
    if (mishaps.slow && random() < 0.4) await sleep(random() * 20)
    return value
  }
  db.query = async <Row extends object>(statement: Sql): Promise<Row[]> => {
    const isBatch = statement.text.includes('WITH expected AS')
    if (isBatch && mishaps.failedInsert > 0) {
      mishaps.failedInsert -= 1
      throw lost()
    }
    const rows = await late(query<Row>(statement))
    if (isBatch && mishaps.ambiguousInsert > 0) {
      mishaps.ambiguousInsert -= 1
      throw lost()
    }
    return rows
  }
  db.transaction = async (work) => {
    const result = await transaction(work)
    if (mishaps.ambiguousTransaction > 0) {
      mishaps.ambiguousTransaction -= 1
      throw lost()
    }
    return late(Promise.resolve(result))
  }
  db.snapshot = (work) =>
    snapshot((tx) => {
      const slow: Queryable = { query: (statement) => late(tx.query(statement)) }
      return work(slow)
    })
}

/** One row per version taken, per change of membership, of a text, of a reaction; one per cursor that went back. */
const journal = `
CREATE TABLE j_versions (chat_id uuid, version bigint, what text, seq bigint, xid bigint DEFAULT txid_current(),
  -- Nothing else of the row changed.
  bare boolean DEFAULT false);
CREATE TABLE j_texts (chat_id uuid, seq bigint, version bigint, was text, became text, deleted boolean);
CREATE INDEX ON j_versions (chat_id, seq);
CREATE INDEX ON j_texts (chat_id, seq);
CREATE TABLE j_blocks (user_id uuid, other_id uuid, blocked boolean, at timestamptz DEFAULT clock_timestamp());
CREATE TABLE j_forwarded (chat_id uuid, content text);
CREATE TABLE j_reactions (chat_id uuid, seq bigint, user_id uuid, emoji text, added boolean, xid bigint DEFAULT txid_current(),
  at timestamptz DEFAULT clock_timestamp());
CREATE TABLE j_members (chat_id uuid, user_id uuid, version bigint, active boolean, role text, at timestamptz DEFAULT clock_timestamp());
CREATE INDEX ON j_members (chat_id, user_id, version);
CREATE TABLE j_backwards (chat_id uuid, user_id uuid, was jsonb, became jsonb);

CREATE FUNCTION j_version() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF TG_TABLE_NAME = 'chats' THEN
    IF NEW.version > 0 THEN INSERT INTO j_versions VALUES (NEW.id, NEW.version, TG_TABLE_NAME); END IF;
  ELSIF TG_TABLE_NAME = 'messages' THEN
    INSERT INTO j_versions (chat_id, version, what, seq, bare) VALUES (NEW.chat_id, NEW.version, TG_TABLE_NAME, NEW.seq,
      TG_OP = 'UPDATE' AND to_jsonb(NEW) - '{version,changed}'::text[] = to_jsonb(OLD) - '{version,changed}'::text[]);
  ELSIF NEW.version > 0 THEN INSERT INTO j_versions VALUES (NEW.chat_id, NEW.version, TG_TABLE_NAME); END IF;
  RETURN NULL;
END $$;
CREATE FUNCTION j_text() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO j_texts VALUES (NEW.chat_id, NEW.seq, NEW.version, OLD.content, NEW.content, NEW.deleted_at IS NOT NULL);
  RETURN NULL;
END $$;
CREATE FUNCTION j_block() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO j_blocks VALUES (NEW.user_id, NEW.other_id, NEW.blocked);
  RETURN NULL;
END $$;
CREATE FUNCTION j_forward() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO j_forwarded VALUES (NEW.chat_id, NEW.content);
  RETURN NULL;
END $$;
CREATE FUNCTION j_reaction() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF TG_OP = 'INSERT' THEN INSERT INTO j_reactions VALUES (NEW.chat_id, NEW.seq, NEW.user_id, NEW.emoji, true);
  ELSE INSERT INTO j_reactions VALUES (OLD.chat_id, OLD.seq, OLD.user_id, OLD.emoji, false); END IF;
  RETURN NULL;
END $$;
CREATE FUNCTION j_member() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF TG_OP = 'DELETE' THEN INSERT INTO j_members VALUES (OLD.chat_id, OLD.user_id, 0, false);
  ELSE INSERT INTO j_members VALUES (NEW.chat_id, NEW.user_id, NEW.version, NEW.left_at IS NULL, NEW.role); END IF;
  RETURN NULL;
END $$;
CREATE FUNCTION j_cursor() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.read_seq < OLD.read_seq OR NEW.delivered_seq < OLD.delivered_seq OR NEW.delivered_seq < NEW.read_seq THEN
    INSERT INTO j_backwards VALUES (NEW.chat_id, NEW.user_id, to_jsonb(OLD), to_jsonb(NEW));
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER j AFTER INSERT OR UPDATE OF version ON messages FOR EACH ROW EXECUTE FUNCTION j_version();
CREATE TRIGGER j AFTER INSERT OR UPDATE OF version ON chats FOR EACH ROW EXECUTE FUNCTION j_version();
CREATE TRIGGER j AFTER INSERT OR UPDATE OF version ON chat_members FOR EACH ROW EXECUTE FUNCTION j_version();
CREATE TRIGGER jt AFTER UPDATE ON messages FOR EACH ROW
  WHEN (OLD.content <> NEW.content OR OLD.deleted_at IS DISTINCT FROM NEW.deleted_at) EXECUTE FUNCTION j_text();
CREATE TRIGGER jb AFTER INSERT OR UPDATE OF blocked ON relations FOR EACH ROW EXECUTE FUNCTION j_block();
CREATE TRIGGER jf AFTER INSERT ON messages FOR EACH ROW WHEN (NEW.forward_sender_id IS NOT NULL) EXECUTE FUNCTION j_forward();
CREATE TRIGGER jr AFTER INSERT OR DELETE ON message_reactions FOR EACH ROW EXECUTE FUNCTION j_reaction();
CREATE TRIGGER jm AFTER INSERT OR DELETE OR UPDATE OF version ON chat_members FOR EACH ROW EXECUTE FUNCTION j_member();
CREATE TRIGGER jc AFTER UPDATE ON chat_members FOR EACH ROW EXECUTE FUNCTION j_cursor();
`
