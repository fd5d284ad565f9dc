-- What Starling keeps for ever.

-- One row: which installation this is, and with how many partitions it was made.
CREATE TABLE installation (
    one        boolean  PRIMARY KEY DEFAULT true CHECK (one),
    id         text     NOT NULL CHECK (length(id) = 8),
    partitions integer  CHECK (partitions BETWEEN 1 AND 16384)
);

-- Conversations whose members are not already told by their id.
CREATE TABLE conversations (
    id         text COLLATE "C" PRIMARY KEY,
    kind       text   NOT NULL,
    name       text,
    version    bigint NOT NULL CHECK (version > 0),
    created_ms bigint NOT NULL
);

CREATE TABLE members (
    conversation_id text COLLATE "C" NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    user_id         text COLLATE "C" NOT NULL,
    role            text NOT NULL CHECK (role IN ('owner', 'member')),
    PRIMARY KEY (conversation_id, user_id)
);

-- A message's id is made of its conversation, its sender and the sender's name for it, where it has one:
-- the unique id is also what makes a retry recognisable for ever.
CREATE TABLE messages (
    conversation_id text COLLATE "C" NOT NULL,
    seq             bigint NOT NULL,
    prev            bigint NOT NULL CHECK (prev >= 0),
    id              uuid   NOT NULL UNIQUE,
    time_ms         bigint NOT NULL,
    sender_id       text COLLATE "C" NOT NULL,
    client_id       text COLLATE "C",
    kind            text COLLATE "C" NOT NULL,
    -- JSON, byte for byte as it was sent.
    body            bytea  NOT NULL,
    PRIMARY KEY (conversation_id, seq),
    CHECK (prev < seq)
);

-- Up to where each partition's log is committed to `messages`.
CREATE TABLE persister_cursor (
    partition integer PRIMARY KEY,
    epoch     bigint NOT NULL,
    ms        bigint NOT NULL,
    n         bigint NOT NULL
);

-- The epoch last issued. Epochs of 2^32 seqs stay below 2^53.
CREATE TABLE partition_epoch (
    partition integer PRIMARY KEY,
    epoch     bigint  NOT NULL CHECK (epoch BETWEEN 0 AND 2097151),
    clean     boolean NOT NULL
);
