//! The session that owns partitions and writes their messages.

use std::collections::HashSet;

use async_trait::async_trait;
use futures_util::future::try_join;
use tokio_postgres::{Config, Error, Statement, Transaction};
use uuid::Uuid;

use super::{
    LogPosition, StoreError,
    copy::Rows,
    effects::EffectStatements,
    error::is_duplicate,
    session::{LockClass, NO_PARTITION, Session, answer},
    sql, unsigned,
};
use crate::{
    domain::{Message, MessageId, Partition},
    store::{
        Committed, Writer,
        commit::{Found, classify, in_place, void_of},
        effects::Effects,
        row::{CursorRow, MessageRow},
    },
};

/// The statements of a commit, prepared once.
struct Statements {
    copy: Statement,
    insert: Statement,
    find: Statement,
    move_cursors: Statement,
    holders: Statement,
    effects: EffectStatements,
}

/// What became of messages that were taken for new.
enum Added {
    All(Committed),
    /// Some of them has a row, so nothing was done.
    Nothing,
}

pub(super) struct PostgresWriter {
    session: Session,
    statements: Statements,
    /// Postgres counts how often a session has taken a lock; taking it once keeps one unlock enough.
    held: HashSet<Partition>,
}

impl PostgresWriter {
    pub async fn open(config: &Config, name: &str) -> Result<Self, StoreError> {
        let mut config = config.clone();
        config.application_name(format!("starling-persister-{name}"));
        let session = Session::open(&config, sql::WRITER_SETTINGS).await?;
        session.lock_shared(LockClass::Writer, NO_PARTITION).await?;
        let statements = Statements {
            copy: answer(session.client.prepare(sql::COPY)).await?,
            insert: answer(session.client.prepare(sql::INSERT)).await?,
            find: answer(session.client.prepare(sql::FIND)).await?,
            move_cursors: answer(session.client.prepare(sql::MOVE_CURSORS)).await?,
            holders: answer(session.client.prepare(sql::HOLDERS)).await?,
            effects: EffectStatements::prepare(&session.client).await?,
        };
        Ok(Self { session, statements, held: HashSet::new() })
    }

    /// Commits messages of which none has a row yet: nearly every batch, at well under half of the cost of [`Self::merge`].
    async fn add(&mut self, messages: &[Message], cursors: &CursorColumns) -> Result<Added, StoreError> {
        // One after the other into the same page of the index, and for history into the same page of the table. The places
        // within a transaction mean nothing.
        let mut sorted: Vec<&Message> = messages.iter().collect();
        sorted.sort_unstable_by(|one, other| {
            one.conversation.as_str().cmp(other.conversation.as_str()).then(one.seq.cmp(&other.seq))
        });
        let rows = Rows::of(&sorted)?;
        let transaction = answer(self.session.client.transaction()).await?;
        let copied = async {
            match messages {
                [] => Ok(0),
                _ => rows.send(&transaction, &self.statements.copy).await,
            }
        };
        // The rows come first: of two errors theirs is the one that says why.
        let written = try_join(copied, cursors.write(&transaction, &self.statements.move_cursors));
        let written = answer(async {
            match written.await {
                Err(error) if is_duplicate(&error) => Ok(None),
                written => written.map(Some),
            }
        });
        let Some((inserted, _)) = written.await? else {
            answer(transaction.rollback()).await?;
            return Ok(Added::Nothing);
        };
        self.statements.effects.write(&transaction, &Effects::of(sorted.iter().copied())).await?;
        answer(transaction.commit()).await?;
        Ok(Added::All(Committed { inserted, ..Committed::default() }))
    }

    /// Commits messages of which some may have a row: what was committed and not trimmed comes again after a kill.
    async fn merge(
        &mut self,
        messages: &[Message],
        cursors: &CursorColumns,
    ) -> Result<Committed, StoreError> {
        let rows = MessageColumns::of(messages)?;
        let transaction = answer(self.session.client.transaction()).await?;
        let written = try_join(
            rows.insert(&transaction, &self.statements.insert),
            cursors.write(&transaction, &self.statements.move_cursors),
        );
        let (inserted, _) = answer(written).await?;
        let (committed, effects) = if inserted == messages.len() as u64 {
            (Committed { inserted, ..Committed::default() }, Effects::of(messages.iter()))
        } else {
            let found = answer(rows.find(&transaction, &self.statements.find)).await?;
            let (committed, voids) = classify(messages, &found, inserted)?;
            let voids = MessageColumns::of(&voids)?;
            answer(voids.insert(&transaction, &self.statements.insert)).await?;
            (committed, Effects::of(in_place(messages, &found)))
        };
        self.statements.effects.write(&transaction, &effects).await?;
        answer(transaction.commit()).await?;
        Ok(committed)
    }

    /// Calls a function of one lock's key that says yes or no.
    async fn ask_lock(&self, sql: &str, partition: Partition) -> Result<bool, StoreError> {
        let class = LockClass::Partition as i32;
        let row = answer(self.session.client.query_one(sql, &[&class, &i32::from(partition.0)])).await?;
        Ok(row.get(0))
    }
}

#[async_trait]
impl Writer for PostgresWriter {
    async fn beat(&mut self) -> Result<u32, StoreError> {
        let class = LockClass::Writer as i32;
        let row = answer(self.session.client.query_one(&self.statements.holders, &[&class])).await?;
        unsigned(row.get(0))
    }

    async fn lock(&mut self, partition: Partition) -> Result<bool, StoreError> {
        if self.held.contains(&partition) {
            return Ok(true);
        }
        let is_ours = self.ask_lock(sql::TRY_LOCK, partition).await?;
        if is_ours {
            self.held.insert(partition);
        }
        Ok(is_ours)
    }

    async fn unlock(&mut self, partition: Partition) -> Result<(), StoreError> {
        if self.held.remove(&partition) {
            self.ask_lock(sql::UNLOCK, partition).await?;
        }
        Ok(())
    }

    async fn commit(
        &mut self,
        messages: &[Message],
        cursors: &[(Partition, LogPosition)],
    ) -> Result<Committed, StoreError> {
        let cursors = CursorColumns::of(cursors)?;
        match self.add(messages, &cursors).await? {
            Added::All(committed) => Ok(committed),
            Added::Nothing => self.merge(messages, &cursors).await,
        }
    }

    async fn void(&mut self, message: &Message) -> Result<(), StoreError> {
        let void = [void_of(message)];
        let rows = MessageColumns::of(&void)?;
        let transaction = answer(self.session.client.transaction()).await?;
        answer(rows.insert(&transaction, &self.statements.insert)).await?;
        answer(transaction.commit()).await
    }
}

/// Messages as arrays, one for each column: one statement serves a batch of any size.
#[derive(Default)]
struct MessageColumns<'a> {
    conversations: Vec<&'a str>,
    seqs: Vec<i64>,
    prevs: Vec<i64>,
    ids: Vec<Uuid>,
    times: Vec<i64>,
    senders: Vec<&'a str>,
    client_ids: Vec<Option<&'a str>>,
    kinds: Vec<&'a str>,
    bodies: Vec<&'a [u8]>,
    reply_tos: Vec<Option<i64>>,
}

impl<'a> MessageColumns<'a> {
    fn of(messages: &'a [Message]) -> Result<Self, StoreError> {
        let mut columns = Self::default();
        for message in messages {
            let row = MessageRow::of(message)?;
            columns.conversations.push(row.conversation);
            columns.seqs.push(row.seq);
            columns.prevs.push(row.prev);
            columns.ids.push(row.id);
            columns.times.push(row.time);
            columns.senders.push(row.sender);
            columns.client_ids.push(row.client_id);
            columns.kinds.push(row.kind);
            columns.bodies.push(row.body);
            columns.reply_tos.push(row.reply_to);
        }
        Ok(columns)
    }

    /// Inserts those that nothing keeps out, and returns how many.
    async fn insert(&self, transaction: &Transaction<'_>, statement: &Statement) -> Result<u64, Error> {
        if self.ids.is_empty() {
            return Ok(0);
        }
        transaction
            .execute(
                statement,
                &[
                    &self.conversations,
                    &self.seqs,
                    &self.prevs,
                    &self.ids,
                    &self.times,
                    &self.senders,
                    &self.client_ids,
                    &self.kinds,
                    &self.bodies,
                    &self.reply_tos,
                ],
            )
            .await
    }

    async fn find(&self, transaction: &Transaction<'_>, statement: &Statement) -> Result<Vec<Found>, Error> {
        let rows = transaction.query(statement, &[&self.conversations, &self.seqs, &self.ids]).await?;
        let read = |row: &tokio_postgres::Row| {
            let here: Option<Uuid> = row.get(0);
            Found { here: here.map(MessageId), stored: row.get(1) }
        };
        Ok(rows.iter().map(read).collect())
    }
}

/// Cursors as arrays, one for each column.
#[derive(Default)]
struct CursorColumns {
    partitions: Vec<i32>,
    epochs: Vec<i64>,
    ms: Vec<i64>,
    ns: Vec<i64>,
}

impl CursorColumns {
    fn of(cursors: &[(Partition, LogPosition)]) -> Result<Self, StoreError> {
        let mut columns = Self::default();
        for (partition, position) in cursors {
            let row = CursorRow::of(*partition, *position)?;
            columns.partitions.push(row.partition);
            columns.epochs.push(row.epoch);
            columns.ms.push(row.ms);
            columns.ns.push(row.n);
        }
        Ok(columns)
    }

    async fn write(&self, transaction: &Transaction<'_>, statement: &Statement) -> Result<u64, Error> {
        if self.partitions.is_empty() {
            return Ok(0);
        }
        transaction.execute(statement, &[&self.partitions, &self.epochs, &self.ms, &self.ns]).await
    }
}
