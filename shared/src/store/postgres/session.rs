//! A session of its own with Postgres: what it locks ends with it.

use std::{future::Future, time::Duration};

use tokio_postgres::{Client, Config, Error, NoTls};
use tokio_util::task::AbortOnDropHandle;

use super::{StoreError, error::store_error};

/// Longest wait for a connection, in seconds.
pub(super) const CONNECT_SECONDS_MAX: u64 = 5;
/// Longest wait for any answer, in seconds. Longer than every timeout of the server, which says more precisely what it
/// was that took so long; this one is for a server that says nothing at all.
const ANSWER_SECONDS_MAX: u64 = 25;
/// Seconds after which a silent network is probed, seconds between probes, and how many go unanswered before the
/// connection is given up.
const KEEPALIVE: (u64, u64, u32) = (5, 2, 3);

/// Advisory locks have a key of two numbers; the first says what they are for. Every database has its own.
#[derive(Clone, Copy)]
#[repr(i32)]
pub(super) enum LockClass {
    /// Held while migrating.
    Migration = 0x5354_0001,
    /// Held by whoever seeds a partition.
    Epoch,
    /// Held by whoever writes a partition.
    Partition,
    /// Held, shared, by every writer that lives.
    Writer,
}

/// The key for a lock that is not about a partition.
pub(super) const NO_PARTITION: i32 = 0;

/// A session. Dropping it ends it, whatever it is doing.
pub(super) struct Session {
    // Dropped before the connection, so that an idle session says good-bye.
    pub client: Client,
    _connection: AbortOnDropHandle<()>,
}

impl Session {
    /// Connects, and sets the session up by the statements `settings`.
    pub async fn open(config: &Config, settings: &str) -> Result<Self, StoreError> {
        let (client, connection) = answer(config.connect(NoTls)).await?;
        let connection = async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a session with Postgres ended");
            }
        };
        let session = Self { client, _connection: AbortOnDropHandle::new(tokio::spawn(connection)) };
        answer(session.client.batch_execute(settings)).await?;
        Ok(session)
    }

    /// Waits for a lock.
    pub async fn lock(&self, class: LockClass, key: i32) -> Result<(), StoreError> {
        self.take(super::sql::LOCK, class, key).await
    }

    /// Waits for a lock that others may hold in the same way.
    pub async fn lock_shared(&self, class: LockClass, key: i32) -> Result<(), StoreError> {
        self.take(super::sql::LOCK_SHARED, class, key).await
    }

    async fn take(&self, sql: &str, class: LockClass, key: i32) -> Result<(), StoreError> {
        answer(self.client.query_one(sql, &[&(class as i32), &key])).await.map(drop)
    }
}

/// How every connection is made, over what the URL says.
pub(super) fn tune(config: &mut Config) {
    let (idle, interval, retries) = KEEPALIVE;
    config
        .connect_timeout(Duration::from_secs(CONNECT_SECONDS_MAX))
        .keepalives(true)
        .keepalives_idle(Duration::from_secs(idle))
        .keepalives_interval(Duration::from_secs(interval))
        .keepalives_retries(retries)
        .tcp_user_timeout(Duration::from_secs(idle + interval * u64::from(retries)));
}

/// Waits for an answer, but not for ever.
pub(super) async fn answer<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, StoreError> {
    match tokio::time::timeout(Duration::from_secs(ANSWER_SECONDS_MAX), answer).await {
        Ok(result) => result.map_err(|error| store_error(&error)),
        Err(_) => Err(StoreError::Unavailable(format!("no answer within {ANSWER_SECONDS_MAX} s"))),
    }
}
