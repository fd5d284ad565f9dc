//! The rates of cluster mode: one string for each subject, which expires when the account is even.

use std::time::Duration;

use async_trait::async_trait;
use redis::Script;

use super::{Rate, RateLimits, Subject, Taken};
use crate::{
    broker::{
        BrokerError,
        redis::{
            RedisConfig,
            keys::{Keys, Slot},
            route::Pool,
        },
    },
    domain::ConversationId,
};

const SCRIPT: &str = include_str!("take.lua");

/// Rates of all nodes together, by the clock of Redis.
pub struct RedisRateLimits {
    keys: Keys,
    pool: Pool,
    script: Script,
}

impl RedisRateLimits {
    /// Prepares the connections; each is made when it is first needed.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn new(config: &RedisConfig) -> Result<Self, BrokerError> {
        let script = Script::new(SCRIPT);
        Ok(Self { keys: Keys::new(config.partitions), pool: config.pool()?, script })
    }

    fn key(&self, subject: &Subject) -> String {
        match subject {
            // A user's personal conversation spreads users over the partitions.
            Subject::User(user) => self.keys.rate(&ConversationId::personal(user), "ru:"),
            Subject::Conversation(conversation) => self.keys.rate(conversation, "rc:"),
        }
    }
}

#[async_trait]
impl RateLimits for RedisRateLimits {
    async fn take(&self, subject: &Subject, rate: Rate, want: u32) -> Result<Taken, BrokerError> {
        let key = self.key(subject);
        let mut call = self.script.prepare_invoke();
        call.key(&key).arg(rate.interval_us()).arg(rate.burst()).arg(want);
        let call = &call;
        let take = |mut held| async move { call.invoke_async(&mut held).await };
        let (granted, wait_us): (u32, u64) = self.pool.run(Slot::of(&key), take).await?;
        Ok(match granted {
            0 => Taken::Refused(Duration::from_micros(wait_us)),
            granted => Taken::Granted(granted),
        })
    }
}
