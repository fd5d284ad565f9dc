//! The sessions of cluster mode: one string each, which expires.

use std::time::Duration;

use async_trait::async_trait;
use redis::Cmd;

use super::{Kept, Recovery};
use crate::{
    broker::{
        BrokerError,
        redis::{
            RedisConfig,
            keys::{Keys, Slot},
            route::Pool,
        },
    },
    domain::{ConversationId, UserId},
};

/// Sessions of all nodes.
pub struct RedisRecovery {
    keys: Keys,
    pool: Pool,
}

impl RedisRecovery {
    /// Prepares the connections; each is made when it is first needed.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn new(config: &RedisConfig) -> Result<Self, BrokerError> {
        Ok(Self { keys: Keys::new(config.partitions), pool: config.pool()? })
    }

    fn key(&self, user: &UserId, secret: &str) -> String {
        self.keys.session(&ConversationId::personal(user), secret)
    }

    async fn ask<T: redis::FromRedisValue>(&self, key: &str, call: &Cmd) -> Result<T, BrokerError> {
        self.pool.run(Slot::of(key), |mut held| async move { call.query_async(&mut held).await }).await
    }
}

#[async_trait]
impl Recovery for RedisRecovery {
    async fn keep(
        &self,
        user: &UserId,
        secret: &str,
        session: &Kept,
        life: Duration,
    ) -> Result<(), BrokerError> {
        let json = serde_json::to_vec(session).expect("a session is plain data");
        let key = self.key(user, secret);
        self.ask(&key, &Cmd::set_ex(&key, json, life.as_secs().max(1))).await
    }

    async fn find(&self, user: &UserId, secret: &str) -> Result<Option<Kept>, BrokerError> {
        let key = self.key(user, secret);
        let json: Option<Vec<u8>> = self.ask(&key, &Cmd::get(&key)).await?;
        // One that another version has written is none that can be taken up here.
        Ok(json.and_then(|json| serde_json::from_slice(&json).ok()))
    }

    async fn forget(&self, user: &UserId, secret: &str) -> Result<(), BrokerError> {
        let key = self.key(user, secret);
        self.ask(&key, &Cmd::del(&key)).await
    }
}
