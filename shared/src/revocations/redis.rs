//! The revocations of cluster mode: one stream, which every node reads by id over a connection of its own.
//!
//! Not a channel: what is said on one while a node is cut off, that node never hears.

use std::time::Duration;

use async_trait::async_trait;
use redis::{RedisResult, aio::MultiplexedConnection};
use tokio::sync::Mutex;

use super::{READ_ENTRIES_MAX, REVOCATIONS_MAX, Revocation, Revocations, RevokeError, Revoked};
use crate::{
    broker::{
        BrokerError, EntryId,
        redis::{RedisConfig, connection},
    },
    clock,
    domain::UserId,
};

/// The stream.
const KEY: &str = "starling:revocations";
/// How long an answer may take, beside the wait that was asked for. Short, since whoever is cut off must notice.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1_500);

/// What is revoked on all nodes.
pub struct RedisRevocations {
    client: redis::Client,
    pool: deadpool_redis::Pool,
    /// A blocking read keeps it busy, so nobody else uses it. Given up after an error: an answer to the failed request may
    /// still be under way on it.
    reading: Mutex<Option<MultiplexedConnection>>,
    lifetime_ms: u64,
}

/// An entry as Redis tells it.
type Entry = (String, Vec<String>);

impl RedisRevocations {
    /// Prepares the connections; each is made when it is first needed. Entries are kept so long.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn new(config: &RedisConfig, lifetime: Duration) -> Result<Self, BrokerError> {
        let lifetime_ms = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
        let (client, pool) = (connection::client(&config.url)?, config.pool()?);
        Ok(Self { client, pool, reading: Mutex::default(), lifetime_ms })
    }

    async fn ask<T: redis::FromRedisValue>(
        &self,
        command: &redis::Cmd,
        wait: Duration,
    ) -> Result<T, BrokerError> {
        let mut reading = self.reading.lock().await;
        // Taken out while it is in use: an error, and also a caller who goes away, leave none behind.
        let mut connection = match reading.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        connection.set_response_timeout(wait + ANSWER_TIMEOUT);
        let answer = command.query_async(&mut connection).await?;
        *reading = Some(connection);
        Ok(answer)
    }

    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let settings = connection::timeouts(ANSWER_TIMEOUT);
        self.client.get_multiplexed_async_connection_with_config(&settings).await
    }
}

#[async_trait]
impl Revocations for RedisRevocations {
    async fn revoke(&self, revocation: &Revocation) -> Result<(), RevokeError> {
        let mut connection = self.pool.get().await.map_err(BrokerError::from)?;
        let oldest = clock::now_ms().saturating_sub(self.lifetime_ms);
        let mut trim = redis::pipe();
        trim.cmd("XTRIM").arg(KEY).arg("MINID").arg("~").arg(oldest).ignore().cmd("XLEN").arg(KEY);
        let (length,): (usize,) = trim.query_async(&mut connection).await.map_err(BrokerError::from)?;
        if length >= REVOCATIONS_MAX {
            return Err(RevokeError::Full);
        }
        let mut add = redis::cmd("XADD");
        add.arg(KEY).arg("*");
        match revocation {
            Revocation::Token(jti) => add.arg("jti").arg(jti),
            Revocation::User(user, before) => add.arg("user").arg(user.as_str()).arg("before").arg(before),
        };
        let _: String = add.query_async(&mut connection).await.map_err(BrokerError::from)?;
        Ok(())
    }

    async fn read(&self, after: EntryId, wait: Duration) -> Result<Vec<Revoked>, BrokerError> {
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(READ_ENTRIES_MAX);
        // Zero would mean for ever.
        let block = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        if block > 0 {
            command.arg("BLOCK").arg(block);
        }
        command.arg("STREAMS").arg(KEY).arg(after.to_string());
        let streams: Option<Vec<(String, Vec<Entry>)>> = self.ask(&command, wait).await?;
        let entries = streams.into_iter().flatten().flat_map(|(_, entries)| entries);
        Ok(entries
            .filter_map(|(id, fields)| Some(Revoked { id: EntryId::parse(&id)?, what: parse(&fields) }))
            .collect())
    }

    async fn has(&self, id: EntryId) -> Result<bool, BrokerError> {
        let mut command = redis::cmd("XRANGE");
        command.arg(KEY).arg(id.to_string()).arg(id.to_string());
        let found: Vec<Entry> = self.ask(&command, Duration::ZERO).await?;
        Ok(!found.is_empty())
    }
}

fn parse(fields: &[String]) -> Option<Revocation> {
    match fields.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["jti", jti] => Some(Revocation::Token((*jti).to_owned())),
        ["user", user, "before", before] => {
            Some(Revocation::User(UserId::parse(user).ok()?, before.parse().ok()?))
        }
        _ => None,
    }
}
