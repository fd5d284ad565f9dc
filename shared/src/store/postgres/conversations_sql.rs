//! The statements about conversations, members and what became of messages.
//!
//! Every change of members runs with the row of the conversation locked ([`LOCK`]), and answers with one row: why it
//! was not done, the version that the membership has become, whom it was about, and who became owner by it.

/// Locks the conversation's row. Whoever writes a conversation and its members locks them in this order.
pub(super) const LOCK: &str = "SELECT 1 FROM conversations WHERE id = $1 FOR UPDATE";

/// For each conversation given and the user at the same place, in that order.
pub(super) const MEMBERSHIPS: &str = "SELECT c.version, c.kind, m.role, m.muted_until_ms \
     FROM UNNEST($1::text[], $2::text[]) WITH ORDINALITY AS g (id, user_id, place) \
     LEFT JOIN conversations c ON c.id = g.id \
     LEFT JOIN members m ON m.conversation_id = c.id AND m.user_id = g.user_id \
     ORDER BY g.place";
/// Makes a conversation and its members, or neither; says how many conversations were made.
pub(super) const CREATE: &str = "WITH made AS (\
         INSERT INTO conversations (id, kind, name, version, created_ms, last_ms) VALUES ($1, $2, $3, 1, $4, $4) \
         ON CONFLICT DO NOTHING RETURNING id), \
     joined AS (\
         INSERT INTO members (conversation_id, user_id, role, joined_ms) \
         SELECT made.id, u.user_id, u.role, $4 FROM made, UNNEST($5::text[], $6::text[]) AS u (user_id, role)) \
     SELECT count(*) FROM made";
pub(super) const CONVERSATION: &str = "SELECT c.kind, c.name, c.created_ms, m.user_id, m.role \
     FROM conversations c LEFT JOIN members m ON m.conversation_id = c.id WHERE c.id = $1 ORDER BY m.user_id";
pub(super) const MEMBERS: &str = "SELECT user_id, role, muted_until_ms, joined_ms \
     FROM members WHERE conversation_id = $1 ORDER BY user_id";

/// Adds those of $2 who are missing, as $3, if all together are at most $4 and nobody of them is banned at $5.
pub(super) const ADD_MEMBERS: &str = "WITH wanted AS (\
         SELECT u.user_id FROM UNNEST($2::text[]) AS u (user_id) \
         EXCEPT SELECT user_id FROM members WHERE conversation_id = $1), \
     banned AS (\
         SELECT 1 FROM bans b JOIN wanted w ON w.user_id = b.user_id \
         WHERE b.conversation_id = $1 AND (b.until_ms IS NULL OR b.until_ms > $5)), \
     crowd AS (\
         SELECT EXISTS (SELECT 1 FROM wanted) AND \
             (SELECT count(*) FROM members WHERE conversation_id = $1) + (SELECT count(*) FROM wanted) > $4 AS is_full), \
     added AS (\
         INSERT INTO members (conversation_id, user_id, role, joined_ms, read_seq, delivered_seq) \
         SELECT c.id, w.user_id, $3, $5, c.last_seq, c.last_seq FROM wanted w, conversations c, crowd \
         WHERE c.id = $1 AND NOT crowd.is_full AND NOT EXISTS (SELECT 1 FROM banned) \
         RETURNING user_id), \
     raised AS (\
         UPDATE conversations SET version = version + 1 WHERE id = $1 AND EXISTS (SELECT 1 FROM added) RETURNING version) \
     SELECT CASE WHEN EXISTS (SELECT 1 FROM banned) THEN 'banned' WHEN (SELECT is_full FROM crowd) THEN 'full' END, \
         (SELECT version FROM raised), ARRAY(SELECT user_id FROM added ORDER BY user_id), NULL::text";

/// Takes $2 out, and makes an heir owner when that was the last one.
macro_rules! removal {
    () => {
        "gone AS (DELETE FROM members WHERE conversation_id = $1 AND user_id = $2 RETURNING user_id, role), \
         heir AS (\
             SELECT m.user_id FROM members m, gone \
             WHERE gone.role = 'owner' AND m.conversation_id = $1 AND m.user_id <> $2 \
               AND m.role IN ('moderator', 'member') \
               AND NOT EXISTS (SELECT 1 FROM members o \
                               WHERE o.conversation_id = $1 AND o.user_id <> $2 AND o.role = 'owner') \
             ORDER BY m.role = 'moderator' DESC, m.joined_ms, m.user_id LIMIT 1), \
         promoted AS (\
             UPDATE members m SET role = 'owner' FROM heir \
             WHERE m.conversation_id = $1 AND m.user_id = heir.user_id RETURNING m.user_id)"
    };
}

pub(super) const REMOVE_MEMBER: &str = concat!(
    "WITH ",
    removal!(),
    ", raised AS (\
         UPDATE conversations SET version = version + 1 WHERE id = $1 AND EXISTS (SELECT 1 FROM gone) RETURNING version) \
     SELECT NULL::text, (SELECT version FROM raised), ARRAY(SELECT user_id FROM gone), (SELECT user_id FROM promoted)"
);
pub(super) const BAN: &str = concat!(
    "WITH ",
    removal!(),
    ", banned AS (\
         INSERT INTO bans AS b (conversation_id, user_id, until_ms) VALUES ($1, $2, $3) \
         ON CONFLICT (conversation_id, user_id) DO UPDATE SET until_ms = excluded.until_ms \
         WHERE b.until_ms IS DISTINCT FROM excluded.until_ms RETURNING user_id), \
     changed AS (SELECT user_id FROM banned UNION SELECT user_id FROM gone), \
     raised AS (\
         UPDATE conversations SET version = version + 1 WHERE id = $1 AND EXISTS (SELECT 1 FROM changed) RETURNING version) \
     SELECT NULL::text, (SELECT version FROM raised), ARRAY(SELECT user_id FROM changed), (SELECT user_id FROM promoted)"
);
pub(super) const UNBAN: &str = "WITH changed AS (\
         DELETE FROM bans WHERE conversation_id = $1 AND user_id = $2 RETURNING user_id), \
     raised AS (\
         UPDATE conversations SET version = version + 1 WHERE id = $1 AND EXISTS (SELECT 1 FROM changed) RETURNING version) \
     SELECT NULL::text, (SELECT version FROM raised), ARRAY(SELECT user_id FROM changed), NULL::text";
pub(super) const SET_ROLE: &str = "WITH owners AS (\
         SELECT count(*) AS others FROM members WHERE conversation_id = $1 AND user_id <> $2 AND role = 'owner'), \
     alone AS (\
         SELECT 1 FROM members, owners WHERE conversation_id = $1 AND user_id = $2 \
           AND role = 'owner' AND $3 <> 'owner' AND owners.others = 0), \
     changed AS (\
         UPDATE members SET role = $3 WHERE conversation_id = $1 AND user_id = $2 AND role <> $3 \
           AND NOT EXISTS (SELECT 1 FROM alone) RETURNING user_id), \
     raised AS (\
         UPDATE conversations SET version = version + 1 WHERE id = $1 AND EXISTS (SELECT 1 FROM changed) RETURNING version) \
     SELECT CASE WHEN EXISTS (SELECT 1 FROM alone) THEN 'last_owner' END, (SELECT version FROM raised), \
         ARRAY(SELECT user_id FROM changed), NULL::text";
pub(super) const MUTE: &str = "WITH changed AS (\
         UPDATE members SET muted_until_ms = $3 WHERE conversation_id = $1 AND user_id = $2 \
           AND muted_until_ms IS DISTINCT FROM $3 RETURNING user_id), \
     raised AS (\
         UPDATE conversations SET version = version + 1 WHERE id = $1 AND EXISTS (SELECT 1 FROM changed) RETURNING version) \
     SELECT NULL::text, (SELECT version FROM raised), ARRAY(SELECT user_id FROM changed), NULL::text";
pub(super) const RENAME: &str = "WITH raised AS (\
         UPDATE conversations SET name = $2, version = version + 1 WHERE id = $1 AND name IS DISTINCT FROM $2 \
         RETURNING version) \
     SELECT NULL::text, (SELECT version FROM raised), ARRAY[]::text[], NULL::text";

/// Messages of others that the member `m` has not read, up to 100: those that count and are not deleted.
macro_rules! unread {
    ($conversation:literal) => {
        concat!(
            "(SELECT count(*) FROM (\
                 SELECT 1 FROM messages u WHERE u.conversation_id = ",
            $conversation,
            " AND u.seq > m.read_seq AND u.sender_id <> m.user_id AND u.deleted_ms IS NULL \
                   AND u.kind NOT IN ('void', 'edit', 'delete', 'reaction', 'members') LIMIT 100) AS counted)"
        )
    };
}

/// Summaries of what is chosen. Each conversation is looked up by its id (`OFFSET 0` keeps the planner from reading all
/// of them instead), and what is dear is done for one page alone.
macro_rules! summaries {
    ($chosen:literal) => {
        concat!(
            "SELECT m.id, m.kind, m.name, m.created_ms, m.last_ms, m.last_seq, m.role, m.muted_until_ms, m.read_seq, ",
            unread!("m.id"),
            ", (SELECT count(*) FROM members n WHERE n.conversation_id = m.id), \
             ARRAY(SELECT o.user_id FROM members o WHERE o.conversation_id = m.id AND o.user_id <> m.user_id \
                   ORDER BY o.user_id LIMIT 10), \
             l.edited_ms, l.deleted_ms, \
             l.conversation_id, l.seq, l.prev, l.id, l.time_ms, l.sender_id, l.client_id, l.kind, l.body, l.reply_to \
             FROM (SELECT c.*, m.user_id, m.role, m.muted_until_ms, m.read_seq FROM members m CROSS JOIN LATERAL (\
                       SELECT id, kind, name, created_ms, last_ms, last_seq, last_message_seq \
                       FROM conversations WHERE id = m.conversation_id OFFSET 0) AS c \
                   WHERE m.user_id = $1 AND ",
            $chosen,
            ") AS m \
             LEFT JOIN LATERAL (SELECT * FROM messages \
                 WHERE conversation_id = m.id AND seq = m.last_message_seq OFFSET 0) AS l ON true \
             ORDER BY m.last_ms DESC, m.id DESC"
        )
    };
}

pub(super) const CONVERSATIONS_OF: &str = summaries!(
    "($2::bigint IS NULL OR (c.last_ms, c.id) < ($2, $3)) ORDER BY c.last_ms DESC, c.id DESC LIMIT $4"
);
pub(super) const SUMMARY: &str = summaries!("m.conversation_id = $2");

pub(super) const VERSIONS: &str = "SELECT id, version FROM conversations WHERE id = ANY ($1)";
pub(super) const MEMBERS_AMONG: &str =
    "SELECT user_id FROM members WHERE conversation_id = $1 AND user_id = ANY ($2)";

/// Moves a member's marks forward; says where they are, and whether they were moved.
pub(super) const MARK: &str = "WITH moved AS (\
         UPDATE members SET read_seq = greatest(read_seq, $3), delivered_seq = greatest(delivered_seq, $3, $4) \
         WHERE conversation_id = $1 AND user_id = $2 AND (read_seq < $3 OR delivered_seq < greatest($3::bigint, $4)) \
         RETURNING read_seq, delivered_seq) \
     SELECT read_seq, delivered_seq, true FROM moved \
     UNION ALL \
     SELECT read_seq, delivered_seq, false FROM members \
     WHERE conversation_id = $1 AND user_id = $2 AND NOT EXISTS (SELECT 1 FROM moved)";
/// For each conversation given its place, counted from 1, with at most $2 members.
pub(super) const RECEIPTS: &str = "SELECT g.place, m.user_id, m.read_seq, m.delivered_seq \
     FROM UNNEST($1::text[]) WITH ORDINALITY AS g (id, place), \
     LATERAL (SELECT user_id, read_seq, delivered_seq FROM members \
              WHERE conversation_id = g.id AND delivered_seq > 0 \
              ORDER BY read_seq DESC, user_id LIMIT $2) m \
     ORDER BY g.place, m.read_seq DESC, m.user_id";
pub(super) const UNREAD_OF: &str = concat!(
    "SELECT m.user_id, ",
    unread!("m.conversation_id"),
    " FROM members m WHERE m.conversation_id = $1 ORDER BY m.user_id LIMIT $2"
);

pub(super) const CHANGED: &str = "SELECT seq, edited_ms, deleted_ms, body FROM messages \
     WHERE conversation_id = $1 AND seq = ANY ($2) AND edit_seq > 0";
pub(super) const REACTIONS: &str = "SELECT seq, emoji, count(*), (array_agg(user_id ORDER BY event_seq))[:$3::int] FROM reactions \
     WHERE conversation_id = $1 AND seq = ANY ($2) AND is_on GROUP BY seq, emoji ORDER BY seq, min(event_seq)";

/// Says where conversations stand; how many rows there were tells whether some have none.
pub(super) const TOUCH: &str = "UPDATE conversations c SET \
         last_seq = greatest(c.last_seq, t.last_seq), \
         last_message_seq = greatest(c.last_message_seq, t.last_message_seq), \
         last_ms = CASE WHEN t.last_message_seq > c.last_message_seq THEN t.last_ms ELSE c.last_ms END \
     FROM UNNEST($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) AS t (id, last_seq, last_message_seq, last_ms) \
     WHERE c.id = t.id";
/// Makes the rows of direct conversations that have none, and of their members $5 and $6.
pub(super) const MAKE_DIRECTS: &str = "WITH wanted AS (\
         SELECT * FROM UNNEST($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::text[]) \
             AS t (id, last_seq, last_message_seq, last_ms, one, other)), \
     made AS (\
         INSERT INTO conversations (id, kind, version, created_ms, last_seq, last_message_seq, last_ms) \
         SELECT id, 'direct', 1, last_ms, last_seq, last_message_seq, last_ms FROM wanted \
         ON CONFLICT DO NOTHING RETURNING id) \
     INSERT INTO members (conversation_id, user_id, role, joined_ms) \
     SELECT w.id, u.user_id, 'member', w.last_ms FROM wanted w JOIN made ON made.id = w.id \
         CROSS JOIN LATERAL (VALUES (w.one), (w.other)) AS u (user_id)";
pub(super) const MARK_SENDERS: &str = "UPDATE members m SET \
         read_seq = s.seq, delivered_seq = greatest(m.delivered_seq, s.seq) \
     FROM UNNEST($1::text[], $2::text[], $3::bigint[]) AS s (conversation_id, user_id, seq) \
     WHERE m.conversation_id = s.conversation_id AND m.user_id = s.user_id AND m.read_seq < s.seq";
pub(super) const EDIT: &str = "UPDATE messages m SET body = e.body, edited_ms = e.time_ms, edit_seq = e.seq \
     FROM UNNEST($1::text[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bytea[]) \
         AS e (conversation_id, id, seq, time_ms, body) \
     WHERE m.id = e.id AND m.conversation_id = e.conversation_id AND m.edit_seq < e.seq AND m.deleted_ms IS NULL";
pub(super) const DELETE: &str = "UPDATE messages m SET \
         body = 'null', deleted_ms = d.time_ms, edit_seq = greatest(m.edit_seq, d.seq) \
     FROM UNNEST($1::text[], $2::uuid[], $3::bigint[], $4::bigint[]) AS d (conversation_id, id, seq, time_ms) \
     WHERE m.id = d.id AND m.conversation_id = d.conversation_id AND m.deleted_ms IS NULL";
/// Empties the edits of messages that are deleted.
pub(super) const EMPTY: &str = "UPDATE messages e SET body = g.body \
     FROM UNNEST($1::text[], $2::bigint[], $3::uuid[], $4::bytea[]) AS g (conversation_id, target, id, body) \
     JOIN messages t ON t.id = g.id AND t.deleted_ms IS NOT NULL \
     WHERE e.conversation_id = g.conversation_id AND e.kind = 'edit' AND e.reply_to = g.target AND e.body <> g.body";
pub(super) const REACT: &str = "INSERT INTO reactions AS r (conversation_id, seq, user_id, emoji, is_on, event_seq) \
     SELECT m.conversation_id, m.seq, g.user_id, g.emoji, g.is_on, g.seq \
     FROM UNNEST($1::text[], $2::uuid[], $3::text[], $4::text[], $5::boolean[], $6::bigint[]) \
         AS g (conversation_id, id, user_id, emoji, is_on, seq) \
     JOIN messages m ON m.id = g.id AND m.conversation_id = g.conversation_id \
     ON CONFLICT (conversation_id, seq, user_id, emoji) DO UPDATE SET is_on = excluded.is_on, event_seq = excluded.event_seq \
     WHERE r.event_seq < excluded.event_seq";
