//! The revocations of standalone mode: in memory, and in a file of lines if they are to outlive the process.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Write},
    path::Path,
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::{sync::Notify, time::timeout};

use super::{READ_ENTRIES_MAX, REVOCATIONS_MAX, Revocation, Revocations, RevokeError, Revoked};
use crate::{
    broker::{BrokerError, EntryId},
    clock,
    domain::UserId,
};

/// What is revoked in one process.
pub struct MemoryRevocations {
    kept: Mutex<Kept>,
    added: Notify,
    lifetime_ms: u64,
}

#[derive(Default)]
struct Kept {
    entries: VecDeque<Revoked>,
    /// Has a line for each entry, and perhaps for some that are too old.
    file: Option<File>,
}

/// An entry as a line of the file: it has `jti`, or else `user` and `before`.
#[derive(Serialize, Deserialize)]
struct Line {
    ms: u64,
    n: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<UserId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<u64>,
}

impl MemoryRevocations {
    /// One that keeps entries so long.
    pub fn new(lifetime: Duration) -> Self {
        let lifetime_ms = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
        Self { kept: Mutex::default(), added: Notify::new(), lifetime_ms }
    }

    /// One that also keeps them in this file, and begins with those that it has and that are in force. For one process at a
    /// time.
    ///
    /// # Errors
    /// When the file cannot be read or written, or a line of it, other than an unfinished last one, cannot be understood.
    pub fn open(path: &Path, lifetime: Duration) -> io::Result<Self> {
        let new = Self::new(lifetime);
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        // What stands behind the last end of a line was never said to be revoked.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let entries = whole.lines().map(Line::read).collect::<io::Result<VecDeque<Revoked>>>()?;
        {
            let mut kept = new.kept.lock();
            kept.entries = entries;
            kept.forget(clock::now_ms().saturating_sub(new.lifetime_ms));
            kept.file = Some(kept.write_anew(path)?);
        }
        Ok(new)
    }

    fn after(&self, after: EntryId) -> Vec<Revoked> {
        let kept = self.kept.lock();
        let start = kept.entries.partition_point(|entry| entry.id <= after);
        kept.entries.range(start..).take(READ_ENTRIES_MAX).cloned().collect()
    }
}

impl Kept {
    fn forget(&mut self, oldest: u64) {
        while self.entries.front().is_some_and(|entry| entry.id.ms < oldest) {
            self.entries.pop_front();
        }
    }

    /// Replaces the file by one that has the entries and no others.
    fn write_anew(&self, path: &Path) -> io::Result<File> {
        let new = path.with_extension("new");
        let mut file = File::create(&new)?;
        let lines: Vec<u8> = self.entries.iter().flat_map(Line::write).collect();
        file.write_all(&lines)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        Ok(file)
    }

    /// Adds an entry, to the file first. Waits for the disk: nothing is revoked before it is safe.
    fn add(&mut self, entry: Revoked) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            let end = file.metadata()?.len();
            if let Err(error) = file.write_all(&Line::write(&entry)).and_then(|()| file.sync_data()) {
                // Half a line must not become the beginning of the next one.
                file.set_len(end)?;
                io::Seek::seek(file, io::SeekFrom::End(0))?;
                return Err(error);
            }
        }
        self.entries.push_back(entry);
        Ok(())
    }
}

impl Line {
    fn read(line: &str) -> io::Result<Revoked> {
        let Self { ms, n, jti, user, before } = serde_json::from_str(line)?;
        let what = match (jti, user, before) {
            (Some(jti), None, None) => Some(Revocation::Token(jti)),
            (None, Some(user), Some(before)) => Some(Revocation::User(user, before)),
            _ => None,
        };
        Ok(Revoked { id: EntryId { ms, n }, what })
    }

    fn write(entry: &Revoked) -> Vec<u8> {
        let EntryId { ms, n } = entry.id;
        let (jti, user, before) = match entry.what.clone() {
            Some(Revocation::Token(jti)) => (Some(jti), None, None),
            Some(Revocation::User(user, before)) => (None, Some(user), Some(before)),
            None => (None, None, None),
        };
        let line = Self { ms, n, jti, user, before };
        let mut bytes = serde_json::to_vec(&line).expect("a line is plain data");
        bytes.push(b'\n');
        bytes
    }
}

#[async_trait]
impl Revocations for MemoryRevocations {
    async fn revoke(&self, revocation: &Revocation) -> Result<(), RevokeError> {
        let mut kept = self.kept.lock();
        let now = clock::now_ms();
        kept.forget(now.saturating_sub(self.lifetime_ms));
        if kept.entries.len() >= REVOCATIONS_MAX {
            return Err(RevokeError::Full);
        }
        let last = kept.entries.back().map(|entry| entry.id).unwrap_or_default();
        // A clock that is set back must not put an entry where it was read already.
        let id = if now > last.ms { EntryId { ms: now, n: 0 } } else { EntryId { n: last.n + 1, ..last } };
        let entry = Revoked { id, what: Some(revocation.clone()) };
        kept.add(entry).map_err(|error| BrokerError::Unavailable(error.to_string()))?;
        drop(kept);
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
        Ok(self.kept.lock().entries.binary_search_by_key(&id, |entry| entry.id).is_ok())
    }
}
