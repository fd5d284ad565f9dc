//! A persister that drains what was published, and how old what it stores is at half of that rate.

#[path = "../../tests/support/watched.rs"]
mod watched;

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use shared::{
    broker::{EntryId, LogPosition},
    clock,
    domain::Partition,
    log::{Log, LogBatch},
};
use watched::{Watcher, watched};

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

impl Seen {
    /// A log that gives nothing away before it is opened, and notes the age of each entry when it is stored.
    pub fn over(log: Arc<dyn Log>) -> (Arc<dyn Log>, Arc<Self>) {
        let seen = Arc::<Self>::default();
        (watched(log, &seen), seen)
    }
}

impl Watcher for Seen {
    fn assigned(&self, reader: usize, partitions: &[Partition]) {
        self.owned.lock().insert(reader, partitions.len());
    }
    fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
    }
    fn read(&self, batches: &[LogBatch]) {
        let mut under_way = self.under_way.lock();
        for batch in batches {
            let entries = batch.entries.iter().map(|entry| entry.position.entry);
            under_way.entry(batch.partition).or_default().extend(entries);
        }
    }
    fn stored(&self, notices: &[(Partition, LogPosition)]) {
        let now = clock::now_ms();
        let mut under_way = self.under_way.lock();
        for (partition, upto) in notices {
            let entries = under_way.entry(*partition).or_default();
            let stored = entries.partition_point(|entry| *entry <= upto.entry);
            let ages = entries.drain(..stored).map(|entry| now.saturating_sub(entry.ms));
            self.ages_ms.lock().extend(ages);
        }
    }
}
