//! The revocations of standalone mode: they end with the process.

use std::{collections::VecDeque, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::{sync::Notify, time::timeout};

use super::{READ_ENTRIES_MAX, REVOCATIONS_MAX, Revocation, Revocations, RevokeError, Revoked};
use crate::{
    broker::{BrokerError, EntryId},
    clock,
};

/// What is revoked in one process.
pub struct MemoryRevocations {
    entries: Mutex<VecDeque<Revoked>>,
    added: Notify,
    lifetime_ms: u64,
}

impl MemoryRevocations {
    /// One that keeps entries so long.
    pub fn new(lifetime: Duration) -> Self {
        let lifetime_ms = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
        Self { entries: Mutex::default(), added: Notify::new(), lifetime_ms }
    }

    fn after(&self, after: EntryId) -> Vec<Revoked> {
        let entries = self.entries.lock();
        let start = entries.partition_point(|entry| entry.id <= after);
        entries.range(start..).take(READ_ENTRIES_MAX).cloned().collect()
    }
}

#[async_trait]
impl Revocations for MemoryRevocations {
    async fn revoke(&self, revocation: &Revocation) -> Result<(), RevokeError> {
        let mut entries = self.entries.lock();
        let now = clock::now_ms();
        let oldest = now.saturating_sub(self.lifetime_ms);
        while entries.front().is_some_and(|entry| entry.id.ms < oldest) {
            entries.pop_front();
        }
        if entries.len() >= REVOCATIONS_MAX {
            return Err(RevokeError::Full);
        }
        let last = entries.back().map(|entry| entry.id).unwrap_or_default();
        // A clock that is set back must not put an entry where it was read already.
        let id = if now > last.ms { EntryId { ms: now, n: 0 } } else { EntryId { n: last.n + 1, ..last } };
        entries.push_back(Revoked { id, what: Some(revocation.clone()) });
        drop(entries);
        self.added.notify_waiters();
        Ok(())
    }

    async fn read(&self, after: EntryId, wait: Duration) -> Result<Vec<Revoked>, BrokerError> {
        let added = self.added.notified();
        tokio::pin!(added);
        added.as_mut().enable();
        let found = self.after(after);
        if !found.is_empty() || timeout(wait, added).await.is_err() {
            return Ok(found);
        }
        Ok(self.after(after))
    }

    async fn has(&self, id: EntryId) -> Result<bool, BrokerError> {
        Ok(self.entries.lock().binary_search_by_key(&id, |entry| entry.id).is_ok())
    }
}
