-- What chat needs beside messages: roles of any name, mutes, bans, receipts, edits, reactions, and where each
-- conversation stands, so that a list of conversations need not look for it.

-- Its last entry, of whatever kind.
ALTER TABLE conversations ADD COLUMN last_seq INTEGER NOT NULL DEFAULT 0;
-- Its last message: entries that only change another one, or the members, do not count. 0 when there is none.
ALTER TABLE conversations ADD COLUMN last_message_seq INTEGER NOT NULL DEFAULT 0;
-- When that was sent; when the conversation was made, as long as there is none.
ALTER TABLE conversations ADD COLUMN last_ms INTEGER NOT NULL DEFAULT 0;

UPDATE conversations SET
    last_seq = coalesce((SELECT max(seq) FROM messages m WHERE m.conversation_id = conversations.id), 0),
    last_message_seq = coalesce((SELECT max(seq) FROM messages m
                                 WHERE m.conversation_id = conversations.id AND m.kind <> 'void'), 0),
    last_ms = coalesce((SELECT time_ms FROM messages m WHERE m.conversation_id = conversations.id AND m.kind <> 'void'
                        ORDER BY seq DESC LIMIT 1), created_ms);

-- The roles of a conversation are those that its kind has in the configuration: the table is made anew, without the
-- constraint on them.
CREATE TABLE members_new (
    conversation_id TEXT    NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    user_id         TEXT    NOT NULL,
    role            TEXT    NOT NULL,
    -- May not write before; NULL when not muted.
    muted_until_ms  INTEGER,
    joined_ms       INTEGER NOT NULL DEFAULT 0,
    -- Up to where the member has read, and up to where its devices have received. They only grow.
    read_seq        INTEGER NOT NULL DEFAULT 0,
    delivered_seq   INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (conversation_id, user_id)
) STRICT, WITHOUT ROWID;
INSERT INTO members_new (conversation_id, user_id, role, joined_ms)
    SELECT m.conversation_id, m.user_id, m.role, c.created_ms
    FROM members m JOIN conversations c ON c.id = m.conversation_id;
DROP TABLE members;
ALTER TABLE members_new RENAME TO members;
CREATE INDEX members_by_user ON members (user_id, conversation_id);

-- Who may not become a member, before `until_ms` or, without it, ever.
CREATE TABLE bans (
    conversation_id TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    user_id         TEXT NOT NULL,
    until_ms        INTEGER,
    PRIMARY KEY (conversation_id, user_id)
) STRICT, WITHOUT ROWID;

-- The message that this one answers or, for an entry that changes another one, which.
ALTER TABLE messages ADD COLUMN reply_to INTEGER;
-- `body` is what the last edit says, and `null` once the message is deleted.
ALTER TABLE messages ADD COLUMN edited_ms INTEGER;
ALTER TABLE messages ADD COLUMN deleted_ms INTEGER;
-- The entry that changed it last; 0 for none.
ALTER TABLE messages ADD COLUMN edit_seq INTEGER NOT NULL DEFAULT 0;
-- Finds the edits of a message that is deleted, which must be emptied too.
CREATE INDEX messages_edits ON messages (conversation_id, reply_to) WHERE kind = 'edit';

-- What each user's last word on each emoji was. A reaction taken back stays here, so that an entry that is stored
-- once more does not bring it back.
CREATE TABLE reactions (
    conversation_id TEXT    NOT NULL,
    seq             INTEGER NOT NULL,
    user_id         TEXT    NOT NULL,
    emoji           TEXT    NOT NULL,
    is_on           INTEGER NOT NULL CHECK (is_on IN (0, 1)),
    event_seq       INTEGER NOT NULL,
    PRIMARY KEY (conversation_id, seq, user_id, emoji)
) STRICT, WITHOUT ROWID;
