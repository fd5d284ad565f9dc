//! Every statement that SQLite is given.

pub(super) const MIGRATION_TABLE: &str = "CREATE TABLE IF NOT EXISTS starling_migrations (version INTEGER PRIMARY KEY, checksum TEXT NOT NULL) STRICT";
pub(super) const MIGRATIONS: &str = "SELECT version, checksum FROM starling_migrations ORDER BY version";
pub(super) const MIGRATION_INSERT: &str =
    "INSERT INTO starling_migrations (version, checksum) VALUES (?1, ?2)";
pub(super) const INSTALLATION_INSERT: &str =
    "INSERT INTO installation (one, id) VALUES (1, ?1) ON CONFLICT DO NOTHING";

pub(super) const INSTALLATION: &str = "SELECT id FROM installation";
pub(super) const FIX_PARTITIONS: &str =
    "UPDATE installation SET partitions = coalesce(partitions, ?1) RETURNING partitions";

pub(super) const LAST_SEQ: &str =
    "SELECT seq FROM messages WHERE conversation_id = ?1 ORDER BY seq DESC LIMIT 1";
pub(super) const MESSAGE: &str = "SELECT conversation_id, seq, prev, id, time_ms, sender_id, client_id, kind, body, reply_to \
     FROM messages WHERE id = ?1";
pub(super) const MESSAGES_FORWARD: &str = "SELECT conversation_id, seq, prev, id, time_ms, sender_id, client_id, kind, body, reply_to \
     FROM messages WHERE conversation_id = ?1 AND seq > ?2 AND seq < ?3 ORDER BY seq LIMIT ?4";
pub(super) const MESSAGES_BACKWARD: &str = "SELECT conversation_id, seq, prev, id, time_ms, sender_id, client_id, kind, body, reply_to \
     FROM messages WHERE conversation_id = ?1 AND seq > ?2 AND seq < ?3 ORDER BY seq DESC LIMIT ?4";

/// Issues an epoch: the first, the one after the last, or the last once more if it was marked as clean.
pub(super) const CLAIM: &str = "INSERT INTO partition_epoch AS p (partition, epoch, clean) VALUES (?1, 0, 0) \
     ON CONFLICT (partition) DO UPDATE \
         SET epoch = CASE WHEN p.clean THEN p.epoch ELSE p.epoch + 1 END, clean = 0 \
     RETURNING epoch";
/// Moves what the write-ahead log has into the database file.
pub(super) const CHECKPOINT: &str = "PRAGMA wal_checkpoint(TRUNCATE)";
pub(super) const MARK_CLEAN: &str = "UPDATE partition_epoch SET clean = 1 WHERE partition = ?1";

/// Notes when a user was last seen, unless something later is known.
pub(super) const NOTE_SEEN: &str = "INSERT INTO users AS u (user_id, last_seen_ms) VALUES (?1, ?2) \
     ON CONFLICT (user_id) DO UPDATE SET last_seen_ms = excluded.last_seen_ms \
     WHERE u.last_seen_ms < excluded.last_seen_ms";
pub(super) const LAST_SEEN: &str = "SELECT last_seen_ms FROM users WHERE user_id = ?1";
/// ?3 is their direct conversation.
pub(super) const IS_SHARING: &str = "SELECT EXISTS (SELECT 1 FROM messages WHERE conversation_id = ?3) \
     OR EXISTS (SELECT 1 FROM members a JOIN members b ON b.conversation_id = a.conversation_id \
                WHERE a.user_id = ?1 AND b.user_id = ?2)";

pub(super) const CURSORS: &str = "SELECT partition, epoch, ms, n FROM persister_cursor ORDER BY partition";
/// Moves a cursor forward, never back.
pub(super) const MOVE_CURSOR: &str = "INSERT INTO persister_cursor AS c (partition, epoch, ms, n) \
     VALUES (?1, ?2, ?3, ?4) \
     ON CONFLICT (partition) DO UPDATE SET epoch = excluded.epoch, ms = excluded.ms, n = excluded.n \
     WHERE (c.epoch, c.ms, c.n) < (excluded.epoch, excluded.ms, excluded.n)";

pub(super) const INSERT: &str = "INSERT INTO messages \
         (conversation_id, seq, prev, id, time_ms, sender_id, client_id, kind, body, reply_to) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO NOTHING";
/// The id of the row at a message's place, and whether the message has a row anywhere.
pub(super) const FIND: &str = "SELECT (SELECT id FROM messages WHERE conversation_id = ?1 AND seq = ?2), \
     EXISTS (SELECT 1 FROM messages WHERE id = ?3)";

pub(super) const PING: &str = "SELECT 1";
