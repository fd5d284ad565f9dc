//! The log of standalone mode: what the partitions of a [`Memory`] hold.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{Backlog, DEAD_LETTERS_MAX, Log, LogBatch, LogEntry, LogReader, Trimmed};
use crate::{
    broker::{BrokerError, EntryId, Inbound, LogPosition, memory::Memory},
    domain::{Epoch, Partition},
};

/// The log of one process.
pub struct MemoryLog(Arc<Memory>);

impl MemoryLog {
    /// The log to which the brokers of this memory append.
    pub fn new(memory: Arc<Memory>) -> Self {
        Self(memory)
    }

    /// What was put aside, oldest first, each with the reason.
    pub fn dead_letters(&self, partition: Partition) -> Vec<(LogPosition, String)> {
        self.0.slot(partition).lock().dead_letters.iter().cloned().collect()
    }
}

#[async_trait]
impl Log for MemoryLog {
    fn partitions(&self) -> u16 {
        self.0.count()
    }

    async fn reader(&self) -> Result<Box<dyn LogReader>, BrokerError> {
        Ok(Box::new(MemoryReader { memory: Arc::clone(&self.0), places: BTreeMap::new() }))
    }

    async fn notify_stored(&self, notices: &[(Partition, LogPosition)]) -> Result<(), BrokerError> {
        for &(partition, position) in notices {
            self.0.tell_all(&Inbound::Stored(partition, position));
        }
        Ok(())
    }

    async fn dead_letter(
        &self,
        partition: Partition,
        entry: &LogEntry,
        reason: &str,
    ) -> Result<(), BrokerError> {
        let letters = &mut self.0.slot(partition).lock().dead_letters;
        letters.push_back((entry.position, reason.to_owned()));
        if letters.len() > DEAD_LETTERS_MAX {
            letters.pop_front();
        }
        Ok(())
    }

    async fn backlog(&self) -> Result<Vec<Backlog>, BrokerError> {
        let backlog = |partition| {
            let state = &self.0.slot(partition).lock().state;
            let oldest_ms = state.entries(EntryId::default()).next().map(|(position, _)| position.entry.ms);
            Backlog { partition, entries: state.backlog(), oldest_ms }
        };
        Ok(Partition::all(self.0.count()).map(backlog).collect())
    }
}

/// Where a reader is in one partition.
#[derive(Default)]
struct Place {
    /// The partition's epoch before its first entry was read.
    stamp: Option<Epoch>,
    last: EntryId,
}

struct MemoryReader {
    memory: Arc<Memory>,
    places: BTreeMap<Partition, Place>,
}

impl MemoryReader {
    fn take(&mut self, limit: usize) -> Vec<LogBatch> {
        let mut batches = Vec::new();
        for (&partition, place) in &mut self.places {
            let slot = self.memory.slot(partition).lock();
            place.stamp = place.stamp.or_else(|| slot.state.stamp());
            let entry = |(position, message): &(LogPosition, Arc<_>)| LogEntry {
                position: *position,
                content: Ok(Clone::clone(&**message)),
            };
            let entries: Vec<LogEntry> = slot.state.entries(place.last).take(limit).map(entry).collect();
            if let Some(newest) = entries.last() {
                place.last = newest.position.entry;
                batches.push(LogBatch { partition, entries });
            }
        }
        batches
    }

    fn trim_one(&mut self, partition: Partition, upto: LogPosition) -> Trimmed {
        let Some(place) = self.places.get_mut(&partition) else { return Trimmed::Changed };
        let mut slot = self.memory.slot(partition).lock();
        if place.stamp.is_none() || place.stamp != slot.state.stamp() {
            *place = Place::default();
            return Trimmed::Changed;
        }
        slot.state.trim(upto.entry);
        Trimmed::Done
    }
}

#[async_trait]
impl LogReader for MemoryReader {
    fn assign(&mut self, partitions: &[Partition]) {
        self.places.retain(|partition, _| partitions.contains(partition));
        for &partition in partitions {
            self.places.entry(partition).or_default();
        }
    }

    async fn read(&mut self, limit: usize, wait: Duration) -> Result<Vec<LogBatch>, BrokerError> {
        let deadline = tokio::time::Instant::now() + wait;
        let memory = Arc::clone(&self.memory);
        loop {
            let appended = memory.appended().notified();
            tokio::pin!(appended);
            // Before looking, so that what is appended between the look and the wait still wakes.
            appended.as_mut().enable();
            let batches = self.take(limit);
            if !batches.is_empty() || tokio::time::timeout_at(deadline, appended).await.is_err() {
                return Ok(batches);
            }
        }
    }

    fn rewind(&mut self) {
        self.places.values_mut().for_each(|place| *place = Place::default());
    }

    async fn trim(&mut self, upto: &[(Partition, LogPosition)]) -> Result<Vec<Trimmed>, BrokerError> {
        Ok(upto.iter().map(|&(partition, position)| self.trim_one(partition, position)).collect())
    }
}
