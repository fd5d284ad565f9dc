-- When each user was last seen, for those who are not connected.
CREATE TABLE users (
    user_id      text COLLATE "C" PRIMARY KEY,
    last_seen_ms bigint NOT NULL
) WITH (fillfactor = 80);
