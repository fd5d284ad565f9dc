-- What chat needs beside messages: roles of any name, mutes, bans, receipts, edits, reactions, and where each
-- conversation stands, so that a list of conversations need not look for it.

ALTER TABLE conversations
    -- Its last entry, of whatever kind.
    ADD COLUMN last_seq         bigint NOT NULL DEFAULT 0,
    -- Its last message: entries that only change another one, or the members, do not count. 0 when there is none.
    ADD COLUMN last_message_seq bigint NOT NULL DEFAULT 0,
    -- When that was sent; when the conversation was made, as long as there is none.
    ADD COLUMN last_ms          bigint NOT NULL DEFAULT 0;

UPDATE conversations c SET
    last_seq = coalesce((SELECT max(seq) FROM messages m WHERE m.conversation_id = c.id), 0),
    last_message_seq = coalesce((SELECT max(seq) FROM messages m WHERE m.conversation_id = c.id AND m.kind <> 'void'), 0),
    last_ms = coalesce((SELECT time_ms FROM messages m WHERE m.conversation_id = c.id AND m.kind <> 'void'
                        ORDER BY seq DESC LIMIT 1), c.created_ms);

-- The roles of a conversation are those that its kind has in the configuration.
ALTER TABLE members DROP CONSTRAINT members_role_check;
ALTER TABLE members
    -- May not write before; NULL when not muted.
    ADD COLUMN muted_until_ms bigint,
    ADD COLUMN joined_ms      bigint NOT NULL DEFAULT 0,
    -- Up to where the member has read, and up to where its devices have received. They only grow.
    ADD COLUMN read_seq       bigint NOT NULL DEFAULT 0,
    ADD COLUMN delivered_seq  bigint NOT NULL DEFAULT 0;
UPDATE members m SET joined_ms = c.created_ms FROM conversations c WHERE c.id = m.conversation_id;

-- Rows that change in place with every batch find room for it on their page.
ALTER TABLE conversations SET (fillfactor = 80);
ALTER TABLE members SET (fillfactor = 80);

-- Who may not become a member, before `until_ms` or, without it, ever.
CREATE TABLE bans (
    conversation_id text COLLATE "C" NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    user_id         text COLLATE "C" NOT NULL,
    until_ms        bigint,
    PRIMARY KEY (conversation_id, user_id)
);

ALTER TABLE messages
    -- The message that this one answers or, for an entry that changes another one, which.
    ADD COLUMN reply_to   bigint,
    -- `body` is what the last edit says, and `null` once the message is deleted.
    ADD COLUMN edited_ms  bigint,
    ADD COLUMN deleted_ms bigint,
    -- The entry that changed it last; 0 for none.
    ADD COLUMN edit_seq   bigint NOT NULL DEFAULT 0;
-- Finds the edits of a message that is deleted, which must be emptied too.
CREATE INDEX messages_edits ON messages (conversation_id, reply_to) WHERE kind = 'edit';

-- What each user's last word on each emoji was. A reaction taken back stays here, so that an entry that is stored
-- once more does not bring it back.
CREATE TABLE reactions (
    conversation_id text COLLATE "C" NOT NULL,
    seq             bigint NOT NULL,
    user_id         text COLLATE "C" NOT NULL,
    emoji           text COLLATE "C" NOT NULL,
    is_on           boolean NOT NULL,
    event_seq       bigint NOT NULL,
    PRIMARY KEY (conversation_id, seq, user_id, emoji)
);
