//! What this node knows to be revoked, and what it does about it: clients with such a token are closed, new ones refused.
//!
//! May use: the port to revocations, hub's clients, heartbeat's list of them. Deliberately absent: deciding what is revoked.
//! The list is read again and again; while it cannot be, nobody knows who must not come in, so after a while nobody does.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use shared::{
    auth::Claims,
    broker::{BrokerError, EntryId},
    clock,
    domain::{Disconnect, UserId},
    revocations::{READ_ENTRIES_MAX, Revocation, Revocations, RevokeError},
};
use tokio::time::{Instant, sleep};

use crate::{heartbeat::Heartbeat, metrics::Metrics};

/// How long the list may go unread before new connections are refused.
pub const UNREAD_MAX: Duration = Duration::from_secs(30);
/// How long one read waits for news.
const READ_WAIT: Duration = Duration::from_secs(1);
/// Pause after a read that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// How often it is looked whether the list is still the one that was read. One that was emptied goes on without a break.
const LOSS_CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// How often what is too old is forgotten.
const FORGET_INTERVAL: Duration = Duration::from_mins(1);

/// What this node knows to be revoked.
pub struct Revocable {
    port: Arc<dyn Revocations>,
    /// How long a revocation is in force, in milliseconds.
    lifetime_ms: u64,
    unread_max: Duration,
    known: Mutex<Known>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Known {
    /// By `jti`: when it was revoked, in milliseconds since 1970.
    tokens: HashMap<String, u64>,
    /// Before which second tokens were issued that are valid no more, and when that was said last.
    users: HashMap<UserId, (u64, u64)>,
    /// When the list was last known to be complete.
    complete: Option<Instant>,
    /// Up to where it was read.
    last: EntryId,
}

impl Revocable {
    /// Knows nothing yet. `lifetime` is how long a token can live at most, `unread_max` how long the list may go unread.
    pub fn new(
        port: Arc<dyn Revocations>,
        lifetime: Duration,
        unread_max: Duration,
        metrics: Arc<Metrics>,
    ) -> Self {
        let lifetime_ms = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
        Self { port, lifetime_ms, unread_max, known: Mutex::default(), metrics }
    }

    /// Whether the token that said this is valid no more.
    pub fn is_revoked(&self, claims: &Claims) -> bool {
        let known = self.known.lock();
        claims.jti.as_ref().is_some_and(|jti| known.tokens.contains_key(jti))
            || known.users.get(&claims.identity.user).is_some_and(|(before, _)| claims.issued < *before)
    }

    /// Whether the list was complete a short while ago.
    pub fn is_current(&self) -> bool {
        self.known.lock().complete.is_some_and(|complete| complete.elapsed() <= self.unread_max)
    }

    /// Revokes for every node.
    ///
    /// # Errors
    /// See [`Revocations::revoke`].
    pub async fn revoke(&self, revocation: &Revocation) -> Result<(), RevokeError> {
        self.port.revoke(revocation).await
    }

    /// Reads the whole list, before the first client comes.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn read_all(&self) -> Result<(), BrokerError> {
        while !self.read(Duration::ZERO).await?.1 {}
        Ok(())
    }

    /// Reads on for ever, and closes whoever comes under a revocation.
    pub async fn follow(&self, heartbeat: &Heartbeat) {
        let (mut looked, mut forgotten) = (None::<Instant>, Instant::now());
        loop {
            let must_look = looked.is_none_or(|looked| looked.elapsed() >= LOSS_CHECK_INTERVAL);
            match self.step(must_look).await {
                Ok(found) => {
                    if must_look {
                        looked = Some(Instant::now());
                    }
                    if found > 0 {
                        self.close(heartbeat);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "revocations cannot be read");
                    looked = None;
                    sleep(RETRY_PAUSE).await;
                }
            }
            if forgotten.elapsed() >= FORGET_INTERVAL {
                self.known.lock().forget(clock::now_ms().saturating_sub(self.lifetime_ms));
                forgotten = Instant::now();
            }
        }
    }

    async fn step(&self, must_look: bool) -> Result<usize, BrokerError> {
        let last = self.known.lock().last;
        // An entry that is older than any token was let go of, not lost.
        let is_in_force = last.ms.saturating_add(self.lifetime_ms) > clock::now_ms();
        if must_look && last != EntryId::default() && is_in_force && !self.port.has(last).await? {
            self.put_back().await?;
        }
        Ok(self.read(READ_WAIT).await?.0)
    }

    /// The log was lost: what this node still knows, and no other has put back, is revoked again, and everything is read
    /// from the start.
    async fn put_back(&self) -> Result<(), BrokerError> {
        let mut known = self.known.lock().revocations();
        for revocation in self.there().await? {
            known.remove(&revocation);
        }
        tracing::warn!(count = known.len(), "revocations were lost; this node puts back what it knows");
        for revocation in known {
            match self.port.revoke(&revocation).await {
                Ok(()) => {}
                Err(RevokeError::Full) => break,
                Err(RevokeError::Unavailable(error)) => return Err(error),
            }
        }
        self.known.lock().last = EntryId::default();
        Ok(())
    }

    /// What the list has now.
    async fn there(&self) -> Result<Vec<Revocation>, BrokerError> {
        let (mut there, mut last) = (Vec::new(), EntryId::default());
        loop {
            let entries = self.port.read(last, Duration::ZERO).await?;
            let is_all = entries.len() < READ_ENTRIES_MAX;
            last = entries.last().map_or(last, |entry| entry.id);
            there.extend(entries.into_iter().filter_map(|entry| entry.what));
            if is_all {
                return Ok(there);
            }
        }
    }

    /// Reads once. Returns how many entries there were, and whether these were all.
    async fn read(&self, wait: Duration) -> Result<(usize, bool), BrokerError> {
        let began = Instant::now();
        let after = self.known.lock().last;
        let entries = self.port.read(after, wait).await?;
        let count = entries.len();
        let is_all = count < READ_ENTRIES_MAX;
        let mut known = self.known.lock();
        for entry in entries {
            known.last = entry.id;
            if let Some(revocation) = entry.what {
                known.add(revocation, entry.id.ms);
            } else {
                tracing::warn!("a revocation of another version was ignored");
            }
        }
        if is_all {
            known.complete = Some(began);
        }
        drop(known);
        self.metrics.revocations.increment(count as u64);
        Ok((count, is_all))
    }

    fn close(&self, heartbeat: &Heartbeat) {
        for client in heartbeat.clients() {
            if self.is_revoked(&client.claims()) {
                self.metrics.disconnects.increment(1);
                client.close(Disconnect::Revoked);
            }
        }
    }
}

impl Known {
    fn add(&mut self, revocation: Revocation, since: u64) {
        match revocation {
            Revocation::Token(jti) => {
                self.tokens.insert(jti, since);
            }
            Revocation::User(user, before) => {
                let known = self.users.entry(user).or_default();
                *known = (known.0.max(before), since);
            }
        }
    }

    fn revocations(&self) -> HashSet<Revocation> {
        let tokens = self.tokens.keys().cloned().map(Revocation::Token);
        let users = self.users.iter().map(|(user, (before, _))| Revocation::User(user.clone(), *before));
        tokens.chain(users).collect()
    }

    /// Forgets what was revoked before `oldest`: no token of that time is valid any more.
    fn forget(&mut self, oldest: u64) {
        self.tokens.retain(|_, since| *since >= oldest);
        self.users.retain(|_, (_, since)| *since >= oldest);
    }
}
