//! What this node knows to be revoked, and what it does about it: clients with such a token are closed, new ones refused.
//!
//! May use: the port to revocations, hub's clients, heartbeat's list of them. Deliberately absent: deciding what is revoked.
//! The list is read again and again; while it cannot be, nobody knows who must not come in, so after a while nobody does.

use std::{collections::HashMap, sync::Arc, time::Duration};

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
        let (mut was_broken, mut forgotten) = (false, Instant::now());
        loop {
            match self.step(was_broken).await {
                Ok(found) => {
                    was_broken = false;
                    if found > 0 {
                        self.close(heartbeat);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "revocations cannot be read");
                    was_broken = true;
                    sleep(RETRY_PAUSE).await;
                }
            }
            if forgotten.elapsed() >= FORGET_INTERVAL {
                self.known.lock().forget(clock::now_ms().saturating_sub(self.lifetime_ms));
                forgotten = Instant::now();
            }
        }
    }

    async fn step(&self, was_broken: bool) -> Result<usize, BrokerError> {
        let last = self.known.lock().last;
        if was_broken && last != EntryId::default() && !self.port.has(last).await? {
            self.put_back().await?;
        }
        Ok(self.read(READ_WAIT).await?.0)
    }

    /// The log was lost: what this node still knows is revoked again, and everything is read from the start.
    async fn put_back(&self) -> Result<(), BrokerError> {
        let known = self.known.lock().revocations();
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

    fn revocations(&self) -> Vec<Revocation> {
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
