-- What Starling keeps for ever.

-- One row: which installation this is, and with how many partitions it was made.
CREATE TABLE installation (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    id         TEXT    NOT NULL CHECK (length(id) = 8),
    partitions INTEGER CHECK (partitions BETWEEN 1 AND 16384)
) STRICT;

-- Conversations whose members are not already told by their id.
CREATE TABLE conversations (
    id         TEXT PRIMARY KEY,
    kind       TEXT    NOT NULL,
    name       TEXT,
    version    INTEGER NOT NULL CHECK (version > 0),
    created_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE members (
    conversation_id TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    user_id         TEXT NOT NULL,
    role            TEXT NOT NULL CHECK (role IN ('owner', 'member')),
    PRIMARY KEY (conversation_id, user_id)
) STRICT, WITHOUT ROWID;

-- A message's id is made of its conversation, its sender and the sender's name for it, where it has one:
-- the unique id is also what makes a retry recognisable for ever.
CREATE TABLE messages (
    conversation_id TEXT    NOT NULL,
    seq             INTEGER NOT NULL,
    prev            INTEGER NOT NULL CHECK (prev >= 0),
    id              BLOB    NOT NULL UNIQUE CHECK (length(id) = 16),
    time_ms         INTEGER NOT NULL,
    sender_id       TEXT    NOT NULL,
    client_id       TEXT,
    kind            TEXT    NOT NULL,
    -- JSON, byte for byte as it was sent.
    body            BLOB    NOT NULL,
    PRIMARY KEY (conversation_id, seq),
    CHECK (prev < seq)
) STRICT;

-- Up to where each partition's log is committed to `messages`.
CREATE TABLE persister_cursor (
    partition INTEGER PRIMARY KEY,
    epoch     INTEGER NOT NULL,
    ms        INTEGER NOT NULL,
    n         INTEGER NOT NULL
) STRICT;

-- The epoch last issued. Epochs of 2^32 seqs stay below 2^53.
CREATE TABLE partition_epoch (
    partition INTEGER PRIMARY KEY,
    epoch     INTEGER NOT NULL CHECK (epoch BETWEEN 0 AND 2097151),
    clean     INTEGER NOT NULL CHECK (clean IN (0, 1))
) STRICT;
