//! The store in one SQLite file, for one process: gateway, broker and persister in one.
//!
//! May use: rusqlite, on two threads of its own, one that writes and one that reads. A lock file keeps a second process
//! out, so whatever is owned (partitions, epochs) is owned inside of this process. Deliberately absent: anything that
//! two processes could share.

mod open;
mod sql;
mod thread;
mod users;
mod writer;

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use rusqlite::{OptionalExtension, Row, params};

use self::{thread::Thread, writer::SqliteWriter};
use super::{
    Conversation, ConversationSummary, EpochClaim, HistoryRange, MembersChange, Membership, Store,
    StoreError, Writer,
    row::{
        ConversationRow, CursorRow, MessageRow, SummaryRow, bound, read_conversation, read_role, signed,
        unreadable, unsigned,
    },
};
use crate::{
    broker::LogPosition,
    domain::{ConversationId, Direction, Epoch, Message, MessageId, Partition, Seq, UserId},
};

/// Longest wait for another claim of the same partition, in seconds.
const CLAIM_WAIT_SECONDS_MAX: u64 = 10;

/// The store in one SQLite file. Cloning shares it; the file is free for another process once the last clone, writer
/// and claim are gone.
#[derive(Clone)]
pub struct SqliteStore(Arc<Inner>);

struct Inner {
    writes: Thread,
    reads: Thread,
    owners: Mutex<Owners>,
    claims: Mutex<HashMap<Partition, Arc<tokio::sync::Mutex<()>>>>,
    // Given back after the threads have ended.
    _lock: std::fs::File,
}

/// Who owns what among the writers of this process.
#[derive(Default)]
struct Owners {
    writer_last: u64,
    writers: HashSet<u64>,
    partitions: HashMap<Partition, u64>,
}

impl SqliteStore {
    /// Opens or makes the file, and brings it up to date. Blocks while it does.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the file cannot be used or another process uses it; [`StoreError::Rejected`]
    /// when it belongs to a newer or different program.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let lock = open::lock(path)?;
        let writes = Thread::start("sqlite-writes", open::for_writing(path)?)?;
        let reads = Thread::start("sqlite-reads", open::for_reading(path)?)?;
        let (owners, claims) = (Mutex::default(), Mutex::default());
        Ok(Self(Arc::new(Inner { writes, reads, owners, claims, _lock: lock })))
    }
}

fn read_message(row: &Row<'_>) -> Result<Message, StoreError> {
    let id = row.get_ref(3)?.as_blob().ok().and_then(|bytes| uuid::Uuid::from_slice(bytes).ok());
    let text = |column| row.get_ref(column)?.as_str().map_err(|_| unreadable("a text"));
    let client_id = row.get_ref(6)?.as_str_or_null().map_err(|_| unreadable("a text"))?;
    MessageRow {
        conversation: text(0)?,
        seq: row.get(1)?,
        prev: row.get(2)?,
        id: id.ok_or_else(|| unreadable("a message id"))?,
        time: row.get(4)?,
        sender: text(5)?,
        client_id,
        kind: text(7)?,
        body: row.get_ref(8)?.as_blob().map_err(|_| unreadable("a body"))?,
    }
    .read()
}

fn read_cursor(row: &Row<'_>) -> Result<(Partition, LogPosition), StoreError> {
    CursorRow { partition: row.get(0)?, epoch: row.get(1)?, ms: row.get(2)?, n: row.get(3)? }.read()
}

fn read_conversation_row(row: &Row<'_>) -> Result<ConversationRow, StoreError> {
    Ok(ConversationRow {
        kind: row.get(0)?,
        name: row.get(1)?,
        created_ms: row.get(2)?,
        user: row.get(3)?,
        role: row.get(4)?,
    })
}

fn read_summary(row: &Row<'_>) -> Result<ConversationSummary, StoreError> {
    SummaryRow {
        id: row.get(0)?,
        kind: row.get(1)?,
        name: row.get(2)?,
        created_ms: row.get(3)?,
        role: row.get(4)?,
    }
    .read()
}

#[async_trait]
impl Store for SqliteStore {
    async fn installation(&self) -> Result<String, StoreError> {
        self.0.reads.call(|db| Ok(db.query_row(sql::INSTALLATION, [], |row| row.get(0))?)).await
    }

    async fn fix_partitions(&self, wanted: u16) -> Result<u16, StoreError> {
        let fix = move |db: &mut rusqlite::Connection| {
            unsigned(db.query_row(sql::FIX_PARTITIONS, [wanted], |row| row.get(0))?)
        };
        self.0.writes.call(fix).await
    }

    async fn last_seq(&self, conversation: &ConversationId) -> Result<Seq, StoreError> {
        let conversation = conversation.clone();
        let read = move |db: &mut rusqlite::Connection| {
            let mut statement = db.prepare_cached(sql::LAST_SEQ)?;
            let seq = statement.query_row([conversation.as_str()], |row| row.get(0)).optional()?;
            seq.map_or(Ok(Seq(0)), |seq| unsigned(seq).map(Seq))
        };
        self.0.reads.call(read).await
    }

    async fn message(&self, id: MessageId) -> Result<Option<Message>, StoreError> {
        let read = move |db: &mut rusqlite::Connection| {
            let mut statement = db.prepare_cached(sql::MESSAGE)?;
            let mut rows = statement.query([id.0.as_bytes()])?;
            rows.next()?.map(read_message).transpose()
        };
        self.0.reads.call(read).await
    }

    async fn messages(&self, range: &HistoryRange) -> Result<Vec<Message>, StoreError> {
        let sql = match range.direction {
            Direction::Forward => sql::MESSAGES_FORWARD,
            Direction::Backward => sql::MESSAGES_BACKWARD,
        };
        let (conversation, limit) = (range.conversation.clone(), range.limit);
        let (after, before) = (bound(range.after), range.before.map_or(i64::MAX, bound));
        let read = move |db: &mut rusqlite::Connection| {
            let mut statement = db.prepare_cached(sql)?;
            let rows = statement
                .query_and_then(params![conversation.as_str(), after, before, limit], read_message)?;
            rows.collect()
        };
        self.0.reads.call(read).await
    }

    async fn claim_epoch(&self, partition: Partition) -> Result<EpochClaim, StoreError> {
        let lock = Arc::clone(self.0.claims.lock().entry(partition).or_default());
        let wait = Duration::from_secs(CLAIM_WAIT_SECONDS_MAX);
        let Ok(guard) = tokio::time::timeout(wait, lock.lock_owned()).await else {
            return Err(StoreError::Unavailable("another claim of the partition lasts".to_owned()));
        };
        let claim = move |db: &mut rusqlite::Connection| {
            unsigned(db.query_row(sql::CLAIM, [partition.0], |row| row.get(0))?).map(Epoch)
        };
        let epoch = self.0.writes.call(claim).await?;
        Ok(EpochClaim { epoch, guard: Box::new(guard) })
    }

    async fn mark_clean(&self, partitions: &[Partition]) -> Result<(), StoreError> {
        let partitions = partitions.to_vec();
        let mark = move |db: &mut rusqlite::Connection| {
            let transaction = db.transaction()?;
            for partition in partitions {
                transaction.execute(sql::MARK_CLEAN, [partition.0])?;
            }
            transaction.commit()?;
            // After a clean stop the one file has everything, for whoever copies it. A reader that is still at work only
            // puts this off: nothing is lost, the log file beside it is read at the next start.
            db.query_row(sql::CHECKPOINT, [], |_| Ok(()))?;
            Ok(())
        };
        self.0.writes.call(mark).await
    }

    async fn membership(
        &self,
        conversation: &ConversationId,
        user: &UserId,
    ) -> Result<Membership, StoreError> {
        let (conversation, user) = (conversation.clone(), user.clone());
        let read = move |db: &mut rusqlite::Connection| {
            let mut statement = db.prepare_cached(sql::MEMBERSHIP)?;
            let mut rows = statement.query([conversation.as_str(), user.as_str()])?;
            let Some(row) = rows.next()? else { return Ok(Membership { version: 0, role: None }) };
            let role: Option<String> = row.get(1)?;
            let role = role.as_deref().map(read_role).transpose()?;
            Ok(Membership { version: unsigned(row.get(0)?)?, role })
        };
        self.0.reads.call(read).await
    }

    async fn create_conversation(&self, conversation: &Conversation) -> Result<bool, StoreError> {
        let conversation = conversation.clone();
        let has_nul = |text: &str| text.contains('\0');
        if has_nul(&conversation.kind) || conversation.name.as_deref().is_some_and(has_nul) {
            // As Postgres does: SQLite would take it, but reads it back up to there only.
            return Err(StoreError::Rejected("a text has a NUL byte".to_owned()));
        }
        let created_ms = signed(conversation.created_ms)?;
        let create = move |db: &mut rusqlite::Connection| {
            let transaction = db.transaction()?;
            let (id, name) = (conversation.id.as_str(), conversation.name.as_deref());
            let made = transaction.execute(sql::CREATE, params![id, conversation.kind, name, created_ms])?;
            if made == 1 {
                for (user, role) in &conversation.members {
                    transaction.execute(sql::JOIN, [id, user.as_str(), role.as_str()])?;
                }
            }
            transaction.commit()?;
            Ok(made == 1)
        };
        self.0.writes.call(create).await
    }

    async fn conversation(&self, id: &ConversationId) -> Result<Option<Conversation>, StoreError> {
        let id = id.clone();
        let read = move |db: &mut rusqlite::Connection| {
            let mut statement = db.prepare_cached(sql::CONVERSATION)?;
            let rows = statement.query_and_then([id.as_str()], read_conversation_row)?;
            read_conversation(&id, rows.collect::<Result<_, _>>()?)
        };
        self.0.reads.call(read).await
    }

    async fn add_members(
        &self,
        conversation: &ConversationId,
        users: &[UserId],
        members_max: usize,
    ) -> Result<MembersChange, StoreError> {
        let (conversation, users) = (conversation.clone(), users.to_vec());
        let add = move |db: &mut rusqlite::Connection| {
            let (id, transaction) = (conversation.as_str(), db.transaction()?);
            let mut added = 0;
            for user in &users {
                added += transaction.execute(sql::ADD_MEMBER, [id, user.as_str()])?;
            }
            if added == 0 {
                return Ok(MembersChange::Unneeded);
            }
            let count: i64 = transaction.query_row(sql::COUNT_MEMBERS, [id], |row| row.get(0))?;
            if unsigned::<usize>(count)? > members_max {
                return Ok(MembersChange::Full);
            }
            let version = transaction.query_row(sql::RAISE_VERSION, [id], |row| row.get(0))?;
            transaction.commit()?;
            Ok(MembersChange::Done(unsigned(version)?))
        };
        self.0.writes.call(add).await
    }

    async fn remove_member(
        &self,
        conversation: &ConversationId,
        user: &UserId,
    ) -> Result<MembersChange, StoreError> {
        let (conversation, user) = (conversation.clone(), user.clone());
        let remove = move |db: &mut rusqlite::Connection| {
            let transaction = db.transaction()?;
            if transaction.execute(sql::REMOVE_MEMBER, [conversation.as_str(), user.as_str()])? == 0 {
                return Ok(MembersChange::Unneeded);
            }
            let raise = [conversation.as_str()];
            let version = transaction.query_row(sql::RAISE_VERSION, raise, |row| row.get(0))?;
            transaction.commit()?;
            Ok(MembersChange::Done(unsigned(version)?))
        };
        self.0.writes.call(remove).await
    }

    async fn conversations_of(
        &self,
        user: &UserId,
        after: Option<&ConversationId>,
        limit: u32,
    ) -> Result<Vec<ConversationSummary>, StoreError> {
        let (user, after) = (user.clone(), after.cloned());
        let read = move |db: &mut rusqlite::Connection| {
            let after = after.as_ref().map_or("", ConversationId::as_str);
            let mut statement = db.prepare_cached(sql::CONVERSATIONS_OF)?;
            statement.query_and_then(params![user.as_str(), after, limit], read_summary)?.collect()
        };
        self.0.reads.call(read).await
    }

    async fn membership_versions(
        &self,
        conversations: &[ConversationId],
    ) -> Result<Vec<(ConversationId, u64)>, StoreError> {
        let conversations = conversations.to_vec();
        let read = move |db: &mut rusqlite::Connection| {
            let mut statement = db.prepare_cached(sql::VERSION)?;
            let mut versions = Vec::with_capacity(conversations.len());
            for id in conversations {
                if let Some(version) = statement.query_row([id.as_str()], |row| row.get(0)).optional()? {
                    versions.push((id, unsigned(version)?));
                }
            }
            Ok(versions)
        };
        self.0.reads.call(read).await
    }

    async fn members_among(
        &self,
        conversation: &ConversationId,
        users: &[UserId],
    ) -> Result<Vec<UserId>, StoreError> {
        let (conversation, mut users) = (conversation.clone(), users.to_vec());
        let read = move |db: &mut rusqlite::Connection| {
            let mut statement = db.prepare_cached(sql::IS_MEMBER)?;
            let mut failure = None;
            users.retain(|user| {
                let found = statement.query_row([conversation.as_str(), user.as_str()], |row| row.get(0));
                found.unwrap_or_else(|error| {
                    failure = Some(error);
                    false
                })
            });
            failure.map_or(Ok(users), |error| Err(error.into()))
        };
        self.0.reads.call(read).await
    }

    async fn writer(&self, _name: &str) -> Result<Box<dyn Writer>, StoreError> {
        Ok(Box::new(SqliteWriter::new(Arc::clone(&self.0))))
    }

    async fn cursors(&self) -> Result<Vec<(Partition, LogPosition)>, StoreError> {
        let read = |db: &mut rusqlite::Connection| {
            let mut statement = db.prepare_cached(sql::CURSORS)?;
            statement.query_and_then([], read_cursor)?.collect()
        };
        self.0.reads.call(read).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.0.reads.call(|db| Ok(db.query_row(sql::PING, [], |_| Ok(()))?)).await
    }
}
