//! Owns partitions of this process, and writes their messages.

use std::{collections::hash_map::Entry, sync::Arc};

use async_trait::async_trait;
use rusqlite::{Connection, Transaction, params};
use uuid::Uuid;

use super::{Inner, LogPosition, StoreError, effects, sql};
use crate::{
    domain::{Message, MessageId, Partition},
    store::{
        Committed, Writer,
        commit::{Found, classify, in_place, void_of},
        effects::Effects,
        row::{CursorRow, MessageRow},
    },
};

pub(super) struct SqliteWriter {
    store: Arc<Inner>,
    number: u64,
}

impl SqliteWriter {
    pub fn new(store: Arc<Inner>) -> Self {
        let mut owners = store.owners.lock();
        owners.writer_last += 1;
        let number = owners.writer_last;
        owners.writers.insert(number);
        drop(owners);
        Self { store, number }
    }
}

impl Drop for SqliteWriter {
    fn drop(&mut self) {
        let mut owners = self.store.owners.lock();
        owners.writers.remove(&self.number);
        owners.partitions.retain(|_, owner| *owner != self.number);
    }
}

#[async_trait]
impl Writer for SqliteWriter {
    async fn beat(&mut self) -> Result<u32, StoreError> {
        let count = self.store.owners.lock().writers.len();
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }

    async fn lock(&mut self, partition: Partition) -> Result<bool, StoreError> {
        Ok(*self.store.owners.lock().partitions.entry(partition).or_insert(self.number) == self.number)
    }

    async fn unlock(&mut self, partition: Partition) -> Result<(), StoreError> {
        if let Entry::Occupied(owner) = self.store.owners.lock().partitions.entry(partition)
            && *owner.get() == self.number
        {
            owner.remove();
        }
        Ok(())
    }

    async fn commit(
        &mut self,
        messages: &[Message],
        cursors: &[(Partition, LogPosition)],
    ) -> Result<Committed, StoreError> {
        let (messages, cursors) = (messages.to_vec(), cursors.to_vec());
        self.store.writes.call(move |db| commit(db, &messages, &cursors)).await
    }

    async fn void(&mut self, message: &Message) -> Result<(), StoreError> {
        let void = void_of(message);
        let write = move |db: &mut Connection| {
            let transaction = db.transaction()?;
            insert(&transaction, &[void])?;
            Ok(transaction.commit()?)
        };
        self.store.writes.call(write).await
    }
}

fn commit(
    db: &mut Connection,
    messages: &[Message],
    cursors: &[(Partition, LogPosition)],
) -> Result<Committed, StoreError> {
    let transaction = db.transaction()?;
    let inserted = insert(&transaction, messages)?;
    let (committed, effects) = if inserted == messages.len() as u64 {
        (Committed { inserted, ..Committed::default() }, Effects::of(messages.iter()))
    } else {
        let found = messages.iter().map(|message| find(&transaction, message));
        let found = found.collect::<Result<Vec<_>, _>>()?;
        let (committed, voids) = classify(messages, &found, inserted)?;
        insert(&transaction, &voids)?;
        (committed, Effects::of(in_place(messages, &found)))
    };
    effects::write(&transaction, &effects)?;
    for (partition, position) in cursors {
        let row = CursorRow::of(*partition, *position)?;
        let mut statement = transaction.prepare_cached(sql::MOVE_CURSOR)?;
        statement.execute(params![row.partition, row.epoch, row.ms, row.n])?;
    }
    transaction.commit()?;
    Ok(committed)
}

/// Inserts those that nothing keeps out, and returns how many.
fn insert(transaction: &Transaction<'_>, messages: &[Message]) -> Result<u64, StoreError> {
    let mut statement = transaction.prepare_cached(sql::INSERT)?;
    let mut inserted = 0;
    for message in messages {
        let row = MessageRow::of(message)?;
        inserted += statement.execute(params![
            row.conversation,
            row.seq,
            row.prev,
            row.id.as_bytes(),
            row.time,
            row.sender,
            row.client_id,
            row.kind,
            row.body,
            row.reply_to
        ])? as u64;
    }
    Ok(inserted)
}

fn find(transaction: &Transaction<'_>, message: &Message) -> Result<Found, StoreError> {
    let row = MessageRow::of(message)?;
    let mut statement = transaction.prepare_cached(sql::FIND)?;
    let read = |found: &rusqlite::Row<'_>| {
        let here: Option<[u8; 16]> = found.get(0)?;
        Ok(Found { here: here.map(|bytes| MessageId(Uuid::from_bytes(bytes))), stored: found.get(1)? })
    };
    Ok(statement.query_row(params![row.conversation, row.seq, row.id.as_bytes()], read)?)
}
