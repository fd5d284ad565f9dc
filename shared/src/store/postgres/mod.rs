//! The store in Postgres.
//!
//! May use: tokio-postgres and its pool. Reads share a small pool; whoever owns something (a writer its partitions, a
//! claim its epoch) has a session of its own, and what it owns is an advisory lock of that session. Deliberately
//! absent: TLS to the server, and poolers that give a session to several clients, with which such locks cannot work.

mod conversations;
mod conversations_sql;
mod copy;
mod effects;
mod error;
mod migrate;
#[cfg(test)]
mod plan_tests;
mod session;
mod sql;
mod together;
mod users;
mod writer;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use tokio::sync::Semaphore;
use tokio_postgres::{Config, NoTls, Row, types::ToSql};

use self::{
    error::pool_error,
    session::{CONNECT_SECONDS_MAX, LockClass, Session, answer, tune},
    together::Together,
    writer::PostgresWriter,
};
use super::{
    EpochClaim, HistoryRange, Store, StoreError, Writer,
    row::{CursorRow, MessageRow, bound, unreadable, unsigned},
};
use crate::{
    broker::LogPosition,
    domain::{ConversationId, Direction, Epoch, Message, MessageId, Partition, Seq},
};

/// How many sessions of one process serve its reads. A read is short; Postgres has few sessions for many processes.
const POOL_SESSIONS_MAX: usize = 8;
/// Longest wait for a session of the pool, in seconds.
const POOL_WAIT_SECONDS_MAX: u64 = 5;
/// How many epochs one process claims at once, each in a session of its own.
const CLAIMS_MAX: usize = 8;
/// Longest wait for other claims of this process, in seconds.
const CLAIM_WAIT_SECONDS_MAX: u64 = 10;

/// The store in Postgres. Cloning shares it.
#[derive(Clone)]
pub struct PostgresStore {
    config: Config,
    pool: Pool,
    together: Together,
    claims: Arc<Semaphore>,
}

impl PostgresStore {
    /// Connects to `postgres://user:password@host:port/database`, and brings the database up to date. Any number of
    /// processes may do so at once.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the server does not answer; [`StoreError::Rejected`] when the URL is none, or
    /// the database belongs to a newer or different program.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        // The text of the error would not help more, and the URL has a password.
        let mut config: Config = url
            .parse()
            .map_err(|_| StoreError::Rejected("this is no URL of a Postgres database".to_owned()))?;
        tune(&mut config);
        migrate::migrate(&config).await?;
        if config.get_application_name().is_none() {
            config.application_name("starling");
        }
        let manager = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let pool = Pool::builder(Manager::from_config(config.clone(), NoTls, manager))
            .max_size(POOL_SESSIONS_MAX)
            .wait_timeout(Some(Duration::from_secs(POOL_WAIT_SECONDS_MAX)))
            .create_timeout(Some(Duration::from_secs(CONNECT_SECONDS_MAX)))
            .recycle_timeout(Some(Duration::from_secs(CONNECT_SECONDS_MAX)))
            .runtime(Runtime::Tokio1)
            .build()
            .expect("a runtime is given, without which alone this fails");
        let together = Together::new(&pool);
        Ok(Self { config, pool, together, claims: Arc::new(Semaphore::new(CLAIMS_MAX)) })
    }

    /// Runs one statement in a session of the pool.
    async fn query(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, StoreError> {
        query(&self.pool, sql, params).await
    }

    /// Runs one statement while the conversation's row is locked, so that its members change in one order and the
    /// statement sees all changes before it; `None` when there is no such row.
    async fn change(
        &self,
        conversation: &ConversationId,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, StoreError> {
        let mut client = self.pool.get().await.map_err(|error| pool_error(&error))?;
        let row = answer(async {
            let lock = client.prepare_cached(conversations_sql::LOCK).await?;
            let statement = client.prepare_cached(sql).await?;
            let transaction = client.transaction().await?;
            if transaction.query_opt(&lock, &[&conversation.as_str()]).await?.is_none() {
                return Ok(None);
            }
            let row = transaction.query_opt(&statement, params).await?;
            transaction.commit().await?;
            Ok(row)
        })
        .await;
        if matches!(row, Err(StoreError::Unavailable(_))) {
            drop(Object::take(client));
        }
        row
    }

    /// Like [`Self::query`], for at most one row.
    async fn query_opt(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Option<Row>, StoreError> {
        Ok(self.query(sql, params).await?.into_iter().next())
    }
}

/// Runs one statement in a session of the pool.
async fn query(pool: &Pool, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, StoreError> {
    let client = pool.get().await.map_err(|error| pool_error(&error))?;
    let rows = answer(async {
        let statement = client.prepare_cached(sql).await?;
        client.query(&statement, params).await
    })
    .await;
    if matches!(rows, Err(StoreError::Unavailable(_))) {
        // A server that does not answer would keep the next one waiting, too.
        drop(Object::take(client));
    }
    rows
}

/// Reads the columns of a message, which begin at `at`.
fn read_message(row: &Row, at: usize) -> Result<Message, StoreError> {
    MessageRow {
        conversation: row.get(at),
        seq: row.get(at + 1),
        prev: row.get(at + 2),
        id: row.get(at + 3),
        time: row.get(at + 4),
        sender: row.get(at + 5),
        client_id: row.get(at + 6),
        kind: row.get(at + 7),
        body: row.get(at + 8),
        reply_to: row.get(at + 9),
    }
    .read()
}

fn read_cursor(row: &Row) -> Result<(Partition, LogPosition), StoreError> {
    CursorRow { partition: row.get(0), epoch: row.get(1), ms: row.get(2), n: row.get(3) }.read()
}

#[async_trait]
impl Store for PostgresStore {
    async fn installation(&self) -> Result<String, StoreError> {
        let row = self.query_opt(sql::INSTALLATION, &[]).await?;
        row.map(|row| row.get(0)).ok_or_else(|| unreadable("no installation"))
    }

    async fn fix_partitions(&self, wanted: u16) -> Result<u16, StoreError> {
        let row = self.query_opt(sql::FIX_PARTITIONS, &[&i32::from(wanted)]).await?;
        let partitions: i32 = row.map(|row| row.get(0)).ok_or_else(|| unreadable("no installation"))?;
        unsigned(partitions.into())
    }

    async fn last_seq(&self, conversation: &ConversationId) -> Result<Seq, StoreError> {
        Ok(self.together.last_seqs.ask(conversation.clone()).await?)
    }

    async fn message(&self, id: MessageId) -> Result<Option<Message>, StoreError> {
        self.query_opt(sql::MESSAGE, &[&id.0]).await?.as_ref().map(|row| read_message(row, 0)).transpose()
    }

    async fn messages(&self, range: &HistoryRange) -> Result<Vec<Message>, StoreError> {
        let sql = match range.direction {
            Direction::Forward => sql::MESSAGES_FORWARD,
            Direction::Backward => sql::MESSAGES_BACKWARD,
        };
        let (after, before) = (bound(range.after), range.before.map_or(i64::MAX, bound));
        let limit = i64::from(range.limit);
        let rows = self.query(sql, &[&range.conversation.as_str(), &after, &before, &limit]).await?;
        rows.iter().map(|row| read_message(row, 0)).collect()
    }

    async fn claim_epoch(&self, partition: Partition) -> Result<EpochClaim, StoreError> {
        let wait = Duration::from_secs(CLAIM_WAIT_SECONDS_MAX);
        let Ok(Ok(permit)) = tokio::time::timeout(wait, Arc::clone(&self.claims).acquire_owned()).await
        else {
            return Err(StoreError::Unavailable("too many epochs are being claimed".to_owned()));
        };
        let session = Session::open(&self.config, sql::CLAIM_SETTINGS).await?;
        let number = i32::from(partition.0);
        session.lock(LockClass::Epoch, number).await?;
        let row = answer(session.client.query_one(sql::CLAIM, &[&number])).await?;
        Ok(EpochClaim { epoch: Epoch(unsigned(row.get(0))?), guard: Box::new((session, permit)) })
    }

    async fn mark_clean(&self, partitions: &[Partition]) -> Result<(), StoreError> {
        let numbers: Vec<i32> = partitions.iter().map(|partition| i32::from(partition.0)).collect();
        self.query(sql::MARK_CLEAN, &[&numbers]).await.map(drop)
    }

    async fn writer(&self, name: &str) -> Result<Box<dyn Writer>, StoreError> {
        Ok(Box::new(PostgresWriter::open(&self.config, name).await?))
    }

    async fn cursors(&self) -> Result<Vec<(Partition, LogPosition)>, StoreError> {
        self.query(sql::CURSORS, &[]).await?.iter().map(read_cursor).collect()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.query(sql::PING, &[]).await.map(drop)
    }
}
