-- When each user was last seen, for those who are not connected.
CREATE TABLE users (
    user_id      TEXT PRIMARY KEY,
    last_seen_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
