//! The store in one SQLite file, for one process: gateway, broker and persister in one.
//!
//! May use: rusqlite, on two threads of its own, one that writes and one that reads. A lock file keeps a second process
//! out, so whatever is owned (partitions, epochs) is owned inside of this process. Deliberately absent: anything that
//! two processes could share.

mod conversations;
mod conversations_sql;
mod effects;
mod open;
#[cfg(test)]
mod plan_tests;
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
    EpochClaim, HistoryRange, Store, StoreError, Writer,
    row::{CursorRow, MessageRow, bound, unreadable, unsigned},
};
use crate::{
    broker::LogPosition,
    domain::{ConversationId, Direction, Epoch, Message, MessageId, Partition, Seq},
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
    _lock: open::FileLock,
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

/// Reads the columns of a message, which begin at `at`.
fn read_message(row: &Row<'_>, at: usize) -> Result<Message, StoreError> {
    let id = row.get_ref(at + 3)?.as_blob().ok().and_then(|bytes| uuid::Uuid::from_slice(bytes).ok());
    let text = |column| row.get_ref(column)?.as_str().map_err(|_| unreadable("a text"));
    let client_id = row.get_ref(at + 6)?.as_str_or_null().map_err(|_| unreadable("a text"))?;
    MessageRow {
        conversation: text(at)?,
        seq: row.get(at + 1)?,
        prev: row.get(at + 2)?,
        id: id.ok_or_else(|| unreadable("a message id"))?,
        time: row.get(at + 4)?,
        sender: text(at + 5)?,
        client_id,
        kind: text(at + 7)?,
        body: row.get_ref(at + 8)?.as_blob().map_err(|_| unreadable("a body"))?,
        reply_to: row.get(at + 9)?,
    }
    .read()
}

fn read_cursor(row: &Row<'_>) -> Result<(Partition, LogPosition), StoreError> {
    CursorRow { partition: row.get(0)?, epoch: row.get(1)?, ms: row.get(2)?, n: row.get(3)? }.read()
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
            rows.next()?.map(|row| read_message(row, 0)).transpose()
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
            let range = params![conversation.as_str(), after, before, limit];
            statement.query_and_then(range, |row| read_message(row, 0))?.collect()
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
