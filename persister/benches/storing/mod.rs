//! A persister that drains what was published, and how old what it stores is at half of that rate.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use shared::{
    broker::{BrokerError, EntryId, LogPosition},
    clock,
    domain::Partition,
    log::{Backlog, Log, LogBatch, LogEntry, LogReader, Trimmed},
};

/// A log that gives nothing away before it is opened, and notes the age of each entry when it is stored.
pub struct Watched {
    inner: Arc<dyn Log>,
    seen: Arc<Seen>,
}

/// What went through.
#[derive(Default)]
pub struct Seen {
    is_open: AtomicBool,
    under_way: Mutex<HashMap<Partition, VecDeque<EntryId>>>,
    ages_ms: Mutex<Vec<u64>>,
    owned: Mutex<HashMap<usize, usize>>,
}

impl Seen {
    pub fn open(&self) {
        self.is_open.store(true, Ordering::Relaxed);
    }

    /// How many partitions each reader has been assigned.
    pub fn shares(&self) -> Vec<usize> {
        self.owned.lock().values().copied().collect()
    }

    /// How old each entry was when all nodes were told that it is stored, in milliseconds, ascending.
    pub fn ages_ms(&self) -> Vec<u64> {
        let mut ages = self.ages_ms.lock().clone();
        ages.sort_unstable();
        ages
    }
}

impl Watched {
    pub fn over(inner: Arc<dyn Log>) -> (Arc<dyn Log>, Arc<Seen>) {
        let seen = Arc::new(Seen::default());
        (Arc::new(Self { inner, seen: Arc::clone(&seen) }), seen)
    }
}

#[async_trait]
impl Log for Watched {
    fn partitions(&self) -> u16 {
        self.inner.partitions()
    }
    async fn reader(&self) -> Result<Box<dyn LogReader>, BrokerError> {
        let inner = self.inner.reader().await?;
        let mut owned = self.seen.owned.lock();
        let name = owned.len();
        owned.insert(name, 0);
        Ok(Box::new(WatchedReader { name, inner, seen: Arc::clone(&self.seen) }))
    }
    async fn notify_stored(&self, notices: &[(Partition, LogPosition)]) -> Result<(), BrokerError> {
        self.inner.notify_stored(notices).await?;
        let now = clock::now_ms();
        let mut under_way = self.seen.under_way.lock();
        for (partition, upto) in notices {
            let entries = under_way.entry(*partition).or_default();
            let stored = entries.partition_point(|entry| *entry <= upto.entry);
            let ages = entries.drain(..stored).map(|entry| now.saturating_sub(entry.ms));
            self.seen.ages_ms.lock().extend(ages);
        }
        Ok(())
    }
    async fn dead_letter(
        &self,
        partition: Partition,
        entry: &LogEntry,
        reason: &str,
    ) -> Result<(), BrokerError> {
        self.inner.dead_letter(partition, entry, reason).await
    }
    async fn backlog(&self) -> Result<Vec<Backlog>, BrokerError> {
        self.inner.backlog().await
    }
}

struct WatchedReader {
    name: usize,
    inner: Box<dyn LogReader>,
    seen: Arc<Seen>,
}

#[async_trait]
impl LogReader for WatchedReader {
    fn assign(&mut self, partitions: &[Partition]) {
        self.seen.owned.lock().insert(self.name, partitions.len());
        self.inner.assign(partitions);
    }
    async fn read(&mut self, limit: usize, wait: Duration) -> Result<Vec<LogBatch>, BrokerError> {
        if !self.seen.is_open.load(Ordering::Relaxed) {
            tokio::time::sleep(wait.min(Duration::from_millis(1))).await;
            return Ok(Vec::new());
        }
        let read = self.inner.read(limit, wait).await?;
        let mut under_way = self.seen.under_way.lock();
        for batch in &read {
            let entries = batch.entries.iter().map(|entry| entry.position.entry);
            under_way.entry(batch.partition).or_default().extend(entries);
        }
        Ok(read)
    }
    fn rewind(&mut self) {
        self.inner.rewind();
    }
    async fn trim(&mut self, upto: &[(Partition, LogPosition)]) -> Result<Vec<Trimmed>, BrokerError> {
        self.inner.trim(upto).await
    }
}
