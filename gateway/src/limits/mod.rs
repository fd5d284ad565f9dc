//! How much one user, address or node may ask for: every limit's name, what counts against it, and what is said above it.
//!
//! May use: domain, the port to rates. Deliberately absent: HTTP and headers, sockets, sessions, and what a refusal looks
//! like in a protocol. Limits that follow from bytes alone are held where the bytes are read; here they have their names.

mod address;
mod counter;
mod pace;
mod publishing;
mod settings;
mod table;
mod turns;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use shared::{
    domain::{ConversationId, Refusal, UserId},
    rate::{Bucket, Rate, RateLimits, Subject, Taken},
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};

pub use address::Address;
pub use counter::{Counter, Seat};
pub use settings::{LimitSettings, Settings};
pub use table::{Answer, Limit, describe, refused};
pub use turns::Turns;

use pace::Pace;
use publishing::Publishing;

/// Longest time, in seconds, after which a refused handshake is told to come back.
const RETRY_SECONDS_MAX: u64 = 30;
/// What a refused handshake is told when nothing says how long it will take.
const RETRY_SECONDS: u64 = 5;

/// A handshake is not wanted now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turned {
    /// Which limit is reached; `None` when the node is going down.
    pub limit: Option<Limit>,
    /// After how many seconds another try makes sense, 1 to 30.
    pub retry_seconds: u64,
}

/// A connection's places, given back when it is dropped.
#[derive(Debug)]
pub struct Admitted {
    _node: Seat<()>,
    _address: Seat<Address>,
    /// Until the client has said who it is.
    pending: Option<(Seat<()>, Seat<Address>)>,
}

impl Admitted {
    /// The client has said who it is.
    pub fn authenticated(&mut self) {
        self.pending = None;
    }
}

/// All limits of this node that need to remember something.
#[derive(Debug)]
pub struct Limiter {
    settings: Settings,
    started: Instant,
    /// The rate of handshakes; `None` when no more are wanted.
    handshakes: Mutex<Option<Bucket>>,
    node: Counter<()>,
    addresses: Counter<Address>,
    pending: Counter<()>,
    pending_addresses: Counter<Address>,
    users: Counter<UserId>,
    coming: Turns,
    connects: Semaphore,
    connects_pending: AtomicUsize,
    resumes: Semaphore,
    resumes_pending: Counter<()>,
    publishing: Publishing,
    requests: Pace,
    typing: Pace,
    signals: Pace,
}

impl Limiter {
    /// Nobody is here yet. `rates` are those of all nodes.
    pub fn new(settings: Settings, rates: Arc<dyn RateLimits>) -> Self {
        Self {
            started: Instant::now(),
            handshakes: Mutex::new(Some(Bucket::default())),
            node: Counter::new(settings.connections_max),
            addresses: Counter::new(settings.connections_per_address_max),
            pending: Counter::new(settings.handshakes_pending_max),
            pending_addresses: Counter::new(settings.handshakes_pending_per_address_max),
            users: Counter::new(settings.connections_per_user_max),
            coming: Turns::default(),
            connects: Semaphore::new(settings.connects_concurrent_max),
            connects_pending: AtomicUsize::new(0),
            resumes: Semaphore::new(settings.resumes_concurrent_max),
            resumes_pending: Counter::new(settings.resumes_pending_max),
            publishing: Publishing::new(rates),
            requests: Pace::new(settings.requests_per_user),
            typing: Pace::new(settings.typing_per_user),
            signals: Pace::new(settings.signals_per_user),
            settings,
        }
    }

    /// How many proxies in front of this node write whom a request came from.
    pub fn trusted_proxies(&self) -> usize {
        self.settings.trusted_proxies
    }

    /// How long the body of a request may take.
    pub fn body_time_max(&self) -> Duration {
        Duration::from_secs(self.settings.body_seconds_max)
    }

    /// From now on no handshake is wanted: the node is going down.
    pub fn drain(&self) {
        *self.handshakes.lock() = None;
    }

    /// Lets a connection of this address in, before it becomes a WebSocket or a stream.
    ///
    /// # Errors
    /// When a limit is reached.
    pub fn admit(&self, from: IpAddr) -> Result<Admitted, Turned> {
        let address = Address::of(from);
        let turned = |limit| {
            refused(limit);
            Turned { limit: Some(limit), retry_seconds: RETRY_SECONDS }
        };
        let seat_address = self.addresses.take(&address);
        let seat_address = seat_address.ok_or_else(|| turned(Limit::ConnectionsPerAddress))?;
        let pending_address = self.pending_addresses.take(&address);
        let pending_address = pending_address.ok_or_else(|| turned(Limit::HandshakesPendingPerAddress))?;
        let node = self.node.take(&()).ok_or_else(|| turned(Limit::Connections))?;
        // Whoever waited so long that it gave up would have been greeted in vain.
        if self.connects_pending.load(Ordering::Relaxed) >= self.settings.connects_pending_max {
            return Err(turned(Limit::ConnectsPending));
        }
        let pending = self.pending.take(&()).ok_or_else(|| turned(Limit::HandshakesPending))?;
        self.pace()?;
        Ok(Admitted { _node: node, _address: seat_address, pending: Some((pending, pending_address)) })
    }

    /// Counts one handshake against the rate.
    fn pace(&self) -> Result<(), Turned> {
        let rate = Rate::new(self.settings.handshakes_per_second, self.settings.handshakes_burst);
        let now_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        match self.handshakes.lock().as_mut().map(|bucket| bucket.take(rate, 1, now_us)) {
            None => Err(Turned { limit: None, retry_seconds: 1 }),
            Some(Taken::Granted(_)) => Ok(()),
            Some(Taken::Refused(wait)) => {
                refused(Limit::HandshakesPerSecond);
                Err(Turned { limit: Some(Limit::HandshakesPerSecond), retry_seconds: whole_seconds(wait) })
            }
        }
    }

    /// A place among the connections of a user on this node.
    ///
    /// # Errors
    /// [`Refusal::LimitExceeded`] when there is none.
    pub fn seat(&self, user: &UserId) -> Result<Seat<UserId>, Refusal> {
        self.users.take(user).ok_or_else(|| {
            refused(Limit::ConnectionsPerUser);
            Refusal::LimitExceeded
        })
    }

    /// Turns for clients that begin or resume.
    pub fn coming(&self) -> &Turns {
        &self.coming
    }

    /// Waits for a turn to greet a client; who came first is served first. Not to be dropped before it is done.
    ///
    /// [`Turns`] bound who is ready to run, this bounds who has begun: each step of a greeting stands in line anew, so without
    /// it all who come would be half done for long, and greeted at the end all together, when many have given up.
    pub async fn turn_to_connect(&self) -> SemaphorePermit<'_> {
        self.connects_pending.fetch_add(1, Ordering::Relaxed);
        let turn = self.connects.acquire().await.expect("it is never closed");
        self.connects_pending.fetch_sub(1, Ordering::Relaxed);
        turn
    }

    /// Waits for a turn to read what a client has missed; who came first is served first. It bounds memory: what was read is
    /// kept until it is sent, which [`Turns`] know nothing of.
    ///
    /// # Errors
    /// [`Refusal::RateLimited`] when too many wait already.
    pub async fn turn_to_resume(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        let Some(_waiting) = self.resumes_pending.take(&()) else {
            refused(Limit::ResumesPending);
            return Err(Refusal::RateLimited);
        };
        Ok(self.resumes.acquire().await.expect("it is never closed"))
    }

    /// Counts one publish of a user, on whichever node.
    ///
    /// # Errors
    /// [`Refusal::RateLimited`] when it is one too many.
    pub async fn publish_by(&self, user: &UserId) -> Result<(), Refusal> {
        let rate = self.settings.publishes_per_user;
        self.publish(Subject::User(user.clone()), rate, Limit::PublishesPerUser).await
    }

    /// Counts as many publishes of a user, for what tells so many others.
    ///
    /// # Errors
    /// As [`Limiter::publish_by`]; those before the one too many are counted.
    pub async fn publish_many_by(&self, user: &UserId, count: usize) -> Result<(), Refusal> {
        for _ in 0..count {
            self.publish_by(user).await?;
        }
        Ok(())
    }

    /// Counts one publish to a conversation, on whichever node.
    ///
    /// # Errors
    /// [`Refusal::RateLimited`] when it is one too many.
    pub async fn publish_to(&self, conversation: &ConversationId) -> Result<(), Refusal> {
        let rate = self.settings.publishes_per_conversation;
        self.publish(Subject::Conversation(conversation.clone()), rate, Limit::PublishesPerConversation).await
    }

    /// Counts one request of a user, on this node.
    ///
    /// # Errors
    /// [`Refusal::RateLimited`] when it is one too many.
    pub fn request_by(&self, user: &UserId) -> Result<(), Refusal> {
        pace(&self.requests, user, Limit::RequestsPerUser)
    }

    /// Counts one word of a user about typing, on this node.
    ///
    /// # Errors
    /// [`Refusal::RateLimited`] when it is one too many.
    pub fn typing_by(&self, user: &UserId) -> Result<(), Refusal> {
        pace(&self.typing, user, Limit::TypingPerUser)
    }

    /// Counts one signal of a user, on this node.
    ///
    /// # Errors
    /// [`Refusal::RateLimited`] when it is one too many.
    pub fn signal_by(&self, user: &UserId) -> Result<(), Refusal> {
        pace(&self.signals, user, Limit::SignalsPerUser)
    }

    async fn publish(&self, subject: Subject, rate: Rate, limit: Limit) -> Result<(), Refusal> {
        if self.publishing.take(subject, rate).await {
            return Ok(());
        }
        refused(limit);
        Err(Refusal::RateLimited)
    }
}

fn pace(pace: &Pace, user: &UserId, limit: Limit) -> Result<(), Refusal> {
    if pace.take(user) {
        return Ok(());
    }
    refused(limit);
    Err(Refusal::RateLimited)
}

fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + 1).min(RETRY_SECONDS_MAX)
}

#[cfg(test)]
mod tests;
