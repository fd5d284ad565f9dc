//! The statements about conversations, members and what became of messages.

pub(super) const MEMBERSHIP: &str = "SELECT c.version, c.kind, m.role, m.muted_until_ms FROM conversations c \
     LEFT JOIN members m ON m.conversation_id = c.id AND m.user_id = ?2 WHERE c.id = ?1";
pub(super) const CREATE: &str = "INSERT INTO conversations (id, kind, name, version, created_ms, last_ms) \
     VALUES (?1, ?2, ?3, 1, ?4, ?4) ON CONFLICT DO NOTHING";
pub(super) const JOIN: &str =
    "INSERT INTO members (conversation_id, user_id, role, joined_ms) VALUES (?1, ?2, ?3, ?4)";
pub(super) const CONVERSATION: &str = "SELECT c.kind, c.name, c.created_ms, m.user_id, m.role \
     FROM conversations c LEFT JOIN members m ON m.conversation_id = c.id WHERE c.id = ?1 ORDER BY m.user_id";
pub(super) const MEMBERS: &str = "SELECT user_id, role, muted_until_ms, joined_ms \
     FROM members WHERE conversation_id = ?1 ORDER BY user_id";

pub(super) const IS_BANNED: &str = "SELECT EXISTS (SELECT 1 FROM bans \
     WHERE conversation_id = ?1 AND user_id = ?2 AND (until_ms IS NULL OR until_ms > ?3))";
/// They have read what was stored before.
pub(super) const ADD_MEMBER: &str = "INSERT INTO members \
         (conversation_id, user_id, role, joined_ms, read_seq, delivered_seq) \
     SELECT id, ?2, ?3, ?4, last_seq, last_seq FROM conversations WHERE id = ?1 ON CONFLICT DO NOTHING";
pub(super) const REMOVE_MEMBER: &str =
    "DELETE FROM members WHERE conversation_id = ?1 AND user_id = ?2 RETURNING role";
pub(super) const COUNT_MEMBERS: &str = "SELECT count(*) FROM members WHERE conversation_id = ?1";
/// Makes the moderator, or else the member, who has been there longest owner, when there is none.
pub(super) const PROMOTE: &str = "UPDATE members SET role = 'owner' WHERE conversation_id = ?1 AND user_id = (\
         SELECT user_id FROM members WHERE conversation_id = ?1 AND role IN ('moderator', 'member') \
           AND NOT EXISTS (SELECT 1 FROM members WHERE conversation_id = ?1 AND role = 'owner') \
         ORDER BY role = 'moderator' DESC, joined_ms, user_id LIMIT 1) RETURNING user_id";
pub(super) const IS_LAST_OWNER: &str = "SELECT EXISTS (\
         SELECT 1 FROM members WHERE conversation_id = ?1 AND user_id = ?2 AND role = 'owner') \
     AND NOT EXISTS (\
         SELECT 1 FROM members WHERE conversation_id = ?1 AND user_id <> ?2 AND role = 'owner')";
pub(super) const SET_ROLE: &str =
    "UPDATE members SET role = ?3 WHERE conversation_id = ?1 AND user_id = ?2 AND role <> ?3";
pub(super) const MUTE: &str = "UPDATE members SET muted_until_ms = ?3 \
     WHERE conversation_id = ?1 AND user_id = ?2 AND muted_until_ms IS NOT ?3";
pub(super) const BAN: &str = "INSERT INTO bans AS b (conversation_id, user_id, until_ms) \
     SELECT id, ?2, ?3 FROM conversations WHERE id = ?1 \
     ON CONFLICT (conversation_id, user_id) DO UPDATE SET until_ms = excluded.until_ms \
     WHERE b.until_ms IS NOT excluded.until_ms";
pub(super) const UNBAN: &str = "DELETE FROM bans WHERE conversation_id = ?1 AND user_id = ?2";
pub(super) const RENAME: &str = "UPDATE conversations SET name = ?2 WHERE id = ?1 AND name IS NOT ?2";
pub(super) const RAISE_VERSION: &str =
    "UPDATE conversations SET version = version + 1 WHERE id = ?1 RETURNING version";

/// Messages of others that the member `m` has not read, up to 100: those that count and are not deleted.
macro_rules! unread {
    () => {
        "(SELECT count(*) FROM (\
             SELECT 1 FROM messages u WHERE u.conversation_id = m.conversation_id \
               AND u.seq > m.read_seq AND u.sender_id <> m.user_id AND u.deleted_ms IS NULL \
               AND u.kind NOT IN ('void', 'edit', 'delete', 'reaction', 'members') LIMIT 100))"
    };
}

/// Summaries of what is chosen; what is dear is done for one page alone.
macro_rules! summaries {
    ($chosen:literal) => {
        concat!(
            "SELECT m.id, m.kind, m.name, m.created_ms, m.last_ms, m.last_seq, m.role, m.muted_until_ms, m.read_seq, ",
            unread!(),
            ", (SELECT count(*) FROM members n WHERE n.conversation_id = m.id), \
             (SELECT group_concat(user_id, ' ') FROM (\
                 SELECT user_id FROM members o WHERE o.conversation_id = m.id AND o.user_id <> m.user_id \
                 ORDER BY user_id LIMIT 10)), \
             l.edited_ms, l.deleted_ms, \
             l.conversation_id, l.seq, l.prev, l.id, l.time_ms, l.sender_id, l.client_id, l.kind, l.body, l.reply_to \
             FROM (SELECT c.*, own.conversation_id, own.user_id, own.role, own.muted_until_ms, own.read_seq \
                   FROM members own CROSS JOIN conversations c ON c.id = own.conversation_id \
                   WHERE own.user_id = ?1 AND ",
            $chosen,
            ") AS m \
             LEFT JOIN messages l ON l.conversation_id = m.id AND l.seq = m.last_message_seq \
             ORDER BY m.last_ms DESC, m.id DESC"
        )
    };
}

pub(super) const CONVERSATIONS_OF: &str =
    summaries!("(?2 IS NULL OR (c.last_ms, c.id) < (?2, ?3)) ORDER BY c.last_ms DESC, c.id DESC LIMIT ?4");
pub(super) const SUMMARY: &str = summaries!("own.conversation_id = ?2");

pub(super) const VERSION: &str = "SELECT version FROM conversations WHERE id = ?1";
pub(super) const IS_MEMBER: &str =
    "SELECT EXISTS (SELECT 1 FROM members WHERE conversation_id = ?1 AND user_id = ?2)";

pub(super) const MARKS: &str =
    "SELECT read_seq, delivered_seq FROM members WHERE conversation_id = ?1 AND user_id = ?2";
pub(super) const MARK: &str =
    "UPDATE members SET read_seq = ?3, delivered_seq = ?4 WHERE conversation_id = ?1 AND user_id = ?2";
pub(super) const RECEIPTS: &str = "SELECT user_id, read_seq, delivered_seq FROM members \
     WHERE conversation_id = ?1 AND delivered_seq > 0 ORDER BY read_seq DESC, user_id LIMIT ?2";
pub(super) const UNREAD_OF: &str = concat!(
    "SELECT m.user_id, ",
    unread!(),
    " FROM members m WHERE m.conversation_id = ?1 ORDER BY m.user_id LIMIT ?2"
);

pub(super) const CHANGED: &str = "SELECT seq, edited_ms, deleted_ms, body FROM messages \
     WHERE conversation_id = ?1 AND seq = ?2 AND edit_seq > 0";
pub(super) const REACTIONS: &str = "SELECT emoji, user_id FROM reactions \
     WHERE conversation_id = ?1 AND seq = ?2 AND is_on = 1 ORDER BY event_seq";

pub(super) const TOUCH: &str = "UPDATE conversations SET \
         last_seq = max(last_seq, ?2), \
         last_ms = CASE WHEN ?3 > last_message_seq THEN ?4 ELSE last_ms END, \
         last_message_seq = max(last_message_seq, ?3) \
     WHERE id = ?1";
pub(super) const MAKE_DIRECT: &str = "INSERT INTO conversations \
         (id, kind, version, created_ms, last_seq, last_message_seq, last_ms) \
     VALUES (?1, 'direct', 1, ?4, ?2, ?3, ?4)";
pub(super) const MARK_SENDER: &str = "UPDATE members SET read_seq = ?3, delivered_seq = max(delivered_seq, ?3) \
     WHERE conversation_id = ?1 AND user_id = ?2 AND read_seq < ?3";
pub(super) const EDIT: &str = "UPDATE messages SET body = ?5, edited_ms = ?4, edit_seq = ?3 \
     WHERE id = ?2 AND conversation_id = ?1 AND edit_seq < ?3 AND deleted_ms IS NULL";
pub(super) const DELETE: &str = "UPDATE messages SET \
         body = CAST('null' AS BLOB), deleted_ms = ?4, edit_seq = max(edit_seq, ?3) \
     WHERE id = ?2 AND conversation_id = ?1 AND deleted_ms IS NULL";
/// Empties the edits of a message that is deleted.
pub(super) const EMPTY: &str = "UPDATE messages SET body = ?4 \
     WHERE conversation_id = ?1 AND kind = 'edit' AND reply_to = ?2 AND body <> ?4 \
       AND EXISTS (SELECT 1 FROM messages t WHERE t.id = ?3 AND t.deleted_ms IS NOT NULL)";
pub(super) const REACT: &str = "INSERT INTO reactions AS r (conversation_id, seq, user_id, emoji, is_on, event_seq) \
     SELECT conversation_id, seq, ?3, ?4, ?5, ?6 FROM messages WHERE id = ?2 AND conversation_id = ?1 \
     ON CONFLICT (conversation_id, seq, user_id, emoji) DO UPDATE SET is_on = excluded.is_on, event_seq = excluded.event_seq \
     WHERE r.event_seq < excluded.event_seq";
