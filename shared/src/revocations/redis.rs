//! The revocations of cluster mode: one stream, which every node reads by id over a connection of its own.
//!
//! Not a channel: what is said on one while a node is cut off, that node never hears.

use std::time::Duration;

use async_trait::async_trait;
use redis::aio::MultiplexedConnection;

use super::{READ_ENTRIES_MAX, REVOCATIONS_MAX, Revocation, Revocations, RevokeError, Revoked};
use crate::{
    broker::{
        BrokerError, EntryId,
        redis::{
            RedisConfig,
            keys::Slot,
            route::{Pool, Private, Router},
        },
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
    pool: Pool,
    /// A blocking read keeps it busy, so nobody else uses it.
    reading: Router<Private>,
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
        let impatient = RedisConfig { response_timeout: ANSWER_TIMEOUT, ..config.clone() };
        Ok(Self { pool: config.pool()?, reading: Router::new(&impatient)?, lifetime_ms })
    }

    async fn ask<T: redis::FromRedisValue>(
        &self,
        command: &redis::Cmd,
        wait: Duration,
    ) -> Result<T, BrokerError> {
        let read = |mut held: MultiplexedConnection| async move {
            held.set_response_timeout(wait + ANSWER_TIMEOUT);
            command.query_async(&mut held).await
        };
        self.reading.run(Slot::of(KEY), read).await
    }
}

#[async_trait]
impl Revocations for RedisRevocations {
    async fn revoke(&self, revocation: &Revocation) -> Result<(), RevokeError> {
        let oldest = clock::now_ms().saturating_sub(self.lifetime_ms);
        let mut trim = redis::pipe();
        trim.cmd("XTRIM").arg(KEY).arg("MINID").arg("~").arg(oldest).ignore().cmd("XLEN").arg(KEY);
        let mut add = redis::cmd("XADD");
        add.arg(KEY).arg("*");
        match revocation {
            Revocation::Token(jti) => add.arg("jti").arg(jti),
            Revocation::User(user, before) => add.arg("user").arg(user.as_str()).arg("before").arg(before),
        };
        let (trim, add) = (&trim, &add);
        let revoke = |mut held| async move {
            let (length,): (usize,) = trim.query_async(&mut held).await?;
            let has_room = length < REVOCATIONS_MAX;
            if has_room {
                let _: String = add.query_async(&mut held).await?;
            }
            Ok(has_room)
        };
        let has_room = self.pool.run(Slot::of(KEY), revoke).await?;
        if has_room { Ok(()) } else { Err(RevokeError::Full) }
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
