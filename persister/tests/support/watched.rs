//! A log that tells what its readers do, for tests and benches.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use shared::{
    broker::{BrokerError, LogPosition},
    domain::Partition,
    log::{Backlog, Log, LogBatch, LogEntry, LogReader, Trimmed},
};

/// Who is told. Readers are counted from 0.
pub trait Watcher: Send + Sync + 'static {
    /// A reader has these partitions from now on.
    fn assigned(&self, _reader: usize, _partitions: &[Partition]) {}
    /// Whether readers may read yet.
    fn is_open(&self) -> bool {
        true
    }
    /// This was read.
    fn read(&self, _batches: &[LogBatch]) {}
    /// All nodes were told that this is stored.
    fn stored(&self, _notices: &[(Partition, LogPosition)]) {}
    /// This is put aside.
    fn put_aside(&self, _entry: &LogEntry) {}
}

/// How long a reader that may not read yet waits before it asks again.
const CLOSED_WAIT: Duration = Duration::from_millis(1);

struct Watched<W> {
    inner: Arc<dyn Log>,
    watcher: Arc<W>,
    readers: AtomicUsize,
}

/// The log, watched.
pub fn watched<W: Watcher>(inner: Arc<dyn Log>, watcher: &Arc<W>) -> Arc<dyn Log> {
    Arc::new(Watched { inner, watcher: Arc::clone(watcher), readers: AtomicUsize::new(0) })
}

#[async_trait]
impl<W: Watcher> Log for Watched<W> {
    fn partitions(&self) -> u16 {
        self.inner.partitions()
    }
    async fn reader(&self) -> Result<Box<dyn LogReader>, BrokerError> {
        let (inner, watcher) = (self.inner.reader().await?, Arc::clone(&self.watcher));
        let number = self.readers.fetch_add(1, Ordering::Relaxed);
        watcher.assigned(number, &[]);
        Ok(Box::new(WatchedReader { number, inner, watcher }))
    }
    async fn notify_stored(&self, notices: &[(Partition, LogPosition)]) -> Result<(), BrokerError> {
        self.inner.notify_stored(notices).await?;
        self.watcher.stored(notices);
        Ok(())
    }
    async fn dead_letter(
        &self,
        partition: Partition,
        entry: &LogEntry,
        reason: &str,
    ) -> Result<(), BrokerError> {
        self.watcher.put_aside(entry);
        self.inner.dead_letter(partition, entry, reason).await
    }
    async fn backlog(&self) -> Result<Vec<Backlog>, BrokerError> {
        self.inner.backlog().await
    }
}

struct WatchedReader<W> {
    number: usize,
    inner: Box<dyn LogReader>,
    watcher: Arc<W>,
}

#[async_trait]
impl<W: Watcher> LogReader for WatchedReader<W> {
    fn assign(&mut self, partitions: &[Partition]) {
        self.watcher.assigned(self.number, partitions);
        self.inner.assign(partitions);
    }
    async fn read(&mut self, limit: usize, wait: Duration) -> Result<Vec<LogBatch>, BrokerError> {
        if !self.watcher.is_open() {
            tokio::time::sleep(wait.min(CLOSED_WAIT)).await;
            return Ok(Vec::new());
        }
        let read = self.inner.read(limit, wait).await?;
        self.watcher.read(&read);
        Ok(read)
    }
    fn rewind(&mut self) {
        self.inner.rewind();
    }
    async fn trim(&mut self, upto: &[(Partition, LogPosition)]) -> Result<Vec<Trimmed>, BrokerError> {
        self.inner.trim(upto).await
    }
}
