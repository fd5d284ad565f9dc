//! Every statement that Postgres is sent.

/// Sets up a session that owns partitions. The server ends it when it says nothing for so long, in a transaction or
/// not, since its partitions must go on without it; `synchronous_commit` because what is committed is then trimmed.
pub(super) const WRITER_SETTINGS: &str = "SET idle_session_timeout = '8s'; \
     SET idle_in_transaction_session_timeout = '8s'; \
     SET statement_timeout = '20s'; \
     SET synchronous_commit = on";

/// Sets up a session that claims an epoch. An epoch that was issued must never be issued again, so it has to be durable.
pub(super) const CLAIM_SETTINGS: &str = "SET idle_session_timeout = '10s'; \
     SET lock_timeout = '10s'; \
     SET synchronous_commit = on";

/// A process waits this long for another that migrates.
pub(super) const MIGRATION_SETTINGS: &str = "SET lock_timeout = '10min'";

pub(super) const HAS_MIGRATIONS: &str = "SELECT to_regclass('starling_migrations') IS NOT NULL";
pub(super) const MIGRATION_TABLE: &str = "CREATE TABLE starling_migrations (\
         version bigint PRIMARY KEY, \
         checksum text NOT NULL, \
         applied_at timestamptz NOT NULL DEFAULT now())";
pub(super) const MIGRATIONS: &str = "SELECT version, checksum FROM starling_migrations ORDER BY version";
pub(super) const MIGRATION_INSERT: &str =
    "INSERT INTO starling_migrations (version, checksum) VALUES ($1, $2)";
pub(super) const INSTALLATION_INSERT: &str =
    "INSERT INTO installation (id) VALUES ($1) ON CONFLICT DO NOTHING";

pub(super) const LOCK: &str = "SELECT pg_advisory_lock($1, $2)";
pub(super) const LOCK_SHARED: &str = "SELECT pg_advisory_lock_shared($1, $2)";
pub(super) const TRY_LOCK: &str = "SELECT pg_try_advisory_lock($1, $2)";
pub(super) const UNLOCK: &str = "SELECT pg_advisory_unlock($1, $2)";
/// How many sessions of this database hold a lock of class $1. `objsubid` 2 means a key of two parts.
pub(super) const HOLDERS: &str = "SELECT count(DISTINCT pid) FROM pg_locks \
     WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND classid::bigint = $1::int \
       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";

pub(super) const INSTALLATION: &str = "SELECT id FROM installation";
pub(super) const FIX_PARTITIONS: &str =
    "UPDATE installation SET partitions = coalesce(partitions, $1) RETURNING partitions";

/// For each conversation given, in that order.
pub(super) const LAST_SEQS: &str = "SELECT m.seq FROM UNNEST($1::text[]) WITH ORDINALITY AS g (id, place) \
     LEFT JOIN LATERAL (SELECT seq FROM messages WHERE conversation_id = g.id ORDER BY seq DESC LIMIT 1) m ON true \
     ORDER BY g.place";
pub(super) const MESSAGE: &str = "SELECT conversation_id, seq, prev, id, time_ms, sender_id, client_id, kind, body, reply_to \
     FROM messages WHERE id = $1";
pub(super) const MESSAGES_FORWARD: &str = "SELECT conversation_id, seq, prev, id, time_ms, sender_id, client_id, kind, body, reply_to \
     FROM messages WHERE conversation_id = $1 AND seq > $2 AND seq < $3 ORDER BY seq LIMIT $4";
pub(super) const MESSAGES_BACKWARD: &str = "SELECT conversation_id, seq, prev, id, time_ms, sender_id, client_id, kind, body, reply_to \
     FROM messages WHERE conversation_id = $1 AND seq > $2 AND seq < $3 ORDER BY seq DESC LIMIT $4";

/// Issues an epoch: the first, the one after the last, or the last once more if it was marked as clean.
pub(super) const CLAIM: &str = "INSERT INTO partition_epoch AS p (partition, epoch, clean) VALUES ($1, 0, false) \
     ON CONFLICT (partition) DO UPDATE \
         SET epoch = CASE WHEN p.clean THEN p.epoch ELSE p.epoch + 1 END, clean = false \
     RETURNING epoch";
pub(super) const MARK_CLEAN: &str = "UPDATE partition_epoch SET clean = true WHERE partition = ANY ($1)";

/// Notes when users were last seen, unless something later is known. In one order, lest two that come at once block each
/// other for ever.
pub(super) const NOTE_SEEN: &str = "INSERT INTO users AS u (user_id, last_seen_ms) \
     SELECT * FROM UNNEST($1::text[], $2::bigint[]) AS s (user_id, ms) ORDER BY s.user_id \
     ON CONFLICT (user_id) DO UPDATE SET last_seen_ms = excluded.last_seen_ms \
     WHERE u.last_seen_ms < excluded.last_seen_ms";
pub(super) const LAST_SEEN: &str = "SELECT user_id, last_seen_ms FROM users WHERE user_id = ANY ($1)";
/// $3 are the direct conversations with each of $2.
pub(super) const SHARING: &str = "SELECT o.user_id FROM UNNEST($2::text[], $3::text[]) AS o (user_id, direct) \
     WHERE EXISTS (SELECT 1 FROM messages WHERE conversation_id = o.direct) \
        OR EXISTS (SELECT 1 FROM members a JOIN members b ON b.conversation_id = a.conversation_id \
                   WHERE a.user_id = $1 AND b.user_id = o.user_id)";

pub(super) const CURSORS: &str = "SELECT partition, epoch, ms, n FROM persister_cursor ORDER BY partition";
/// Moves cursors forward, never back.
pub(super) const MOVE_CURSORS: &str = "INSERT INTO persister_cursor AS c (partition, epoch, ms, n) \
     SELECT DISTINCT ON (g.partition) g.partition, g.epoch, g.ms, g.n \
     FROM UNNEST($1::int[], $2::bigint[], $3::bigint[], $4::bigint[]) AS g (partition, epoch, ms, n) \
     ORDER BY g.partition, g.epoch DESC, g.ms DESC, g.n DESC \
     ON CONFLICT (partition) DO UPDATE SET epoch = excluded.epoch, ms = excluded.ms, n = excluded.n \
     WHERE (c.epoch, c.ms, c.n) < (excluded.epoch, excluded.ms, excluded.n)";

/// Adds messages of which none has a row yet; fails when one has.
pub(super) const COPY: &str = "COPY messages \
         (conversation_id, seq, prev, id, time_ms, sender_id, client_id, kind, body, reply_to) \
     FROM STDIN (FORMAT binary)";
/// Adds those of which none has a row yet, and leaves the others out.
pub(super) const INSERT: &str = "INSERT INTO messages \
         (conversation_id, seq, prev, id, time_ms, sender_id, client_id, kind, body, reply_to) \
     SELECT * FROM UNNEST($1::text[], $2::bigint[], $3::bigint[], $4::uuid[], $5::bigint[], $6::text[], \
                          $7::text[], $8::text[], $9::bytea[], $10::bigint[]) \
     ON CONFLICT DO NOTHING";
/// For each message given: the id of the row at its place, and whether it has a row anywhere.
pub(super) const FIND: &str = "SELECT here.id, own.id IS NOT NULL \
     FROM UNNEST($1::text[], $2::bigint[], $3::uuid[]) WITH ORDINALITY AS g (conversation_id, seq, id, place) \
     LEFT JOIN messages here ON here.conversation_id = g.conversation_id AND here.seq = g.seq \
     LEFT JOIN messages own ON own.id = g.id \
     ORDER BY g.place";

pub(super) const PING: &str = "SELECT 1";
