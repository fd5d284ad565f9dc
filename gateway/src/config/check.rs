//! Refuses settings that make no sense, and fills in those that nobody gave.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::{Context, bail};
use shared::{
    auth::{HMAC_SECRET_BYTES_MIN, TOKEN_SECONDS_MAX, TokenRules},
    domain::{BODY_BYTES_MAX, NodeId, PARTITIONS_DEFAULT, PARTITIONS_MAX},
    presence::PRESENCE_TTL_SECONDS,
};

use super::{Config, Mode, SUBSCRIPTIONS_MAX, Settings};
use crate::{action::AckMode, api_key::ApiKeys, outbox::OUTBOX_BYTES_MAX};

impl Settings {
    /// The configuration that these settings make.
    pub(super) fn check(self) -> anyhow::Result<Config> {
        self.check_keys()?;
        self.check_zeros()?;
        let mode = match (self.redis_url, self.database_url) {
            (None, None) => Mode::Standalone,
            (Some(redis_url), Some(database_url)) => Mode::Cluster { redis_url, database_url },
            (Some(_), None) => {
                bail!("REDIS_URL is set and DATABASE_URL is not: a cluster needs both, standalone neither")
            }
            (None, Some(_)) => {
                bail!("DATABASE_URL is set and REDIS_URL is not: a cluster needs both, standalone neither")
            }
        };
        let standalone = mode == Mode::Standalone;
        let partitions = self.partitions.unwrap_or(PARTITIONS_DEFAULT);
        if partitions == 0 || partitions > PARTITIONS_MAX {
            bail!("partitions must be 1 to {PARTITIONS_MAX}");
        }
        let body_bytes_max = self.body_bytes_max.unwrap_or(BODY_BYTES_MAX);
        if body_bytes_max > BODY_BYTES_MAX {
            bail!("body_bytes_max must be at most {BODY_BYTES_MAX}");
        }
        let node = self.node.unwrap_or_else(|| format!("gateway-{}", uuid::Uuid::new_v4().simple()));
        let default_ack = if standalone { AckMode::Stored } else { AckMode::Accepted };
        Ok(Config {
            mode,
            listen: self.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8000))),
            health_listen: self.health_listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 9100))),
            advertise: self.advertise,
            node: NodeId::parse(&node).context("STARLING_NODE")?,
            data_dir: self.data_dir.unwrap_or_else(|| PathBuf::from("data")),
            token_hmac_secret: self.token_hmac_secret,
            token_keys: self.token_keys.unwrap_or_default(),
            token_jwks: self.token_jwks.unwrap_or_default(),
            token_issuer: self.token_issuer,
            token_rules: TokenRules {
                audiences: self.token_audience.unwrap_or_default(),
                lifetime_seconds_max: self.token_seconds_max.unwrap_or(TOKEN_SECONDS_MAX),
            },
            ack_mode: self.ack_mode.unwrap_or(default_ack),
            ack_wait_replicas: self.ack_wait_replicas.unwrap_or(0),
            allowed_origins: self.allowed_origins.unwrap_or_default(),
            hsts_seconds: self.hsts_seconds.unwrap_or(0),
            api_keys: ApiKeys::parse(&self.api_keys.unwrap_or_default())?,
            partitions,
            backlog_entries_max: self.backlog_entries_max.unwrap_or(1_000_000),
            body_bytes_max,
            outbox_bytes_max: self.outbox_bytes_max.unwrap_or(OUTBOX_BYTES_MAX),
            subscriptions_max: self.subscriptions_max.unwrap_or(SUBSCRIPTIONS_MAX),
            catchup_messages_max: self.catchup_messages_max.unwrap_or(500),
            catchup_bytes_max: self.catchup_bytes_max.unwrap_or(1024 * 1024),
            linger_seconds: self.linger_seconds.unwrap_or(30),
            position_check_seconds: self.position_check_seconds.unwrap_or(15),
            presence_seconds: self.presence_seconds.unwrap_or(PRESENCE_TTL_SECONDS),
            probe_seconds: self.probe_seconds.unwrap_or(5),
            drain_seconds: self.drain_seconds.unwrap_or(if standalone { 1 } else { 10 }),
            drain_delay_seconds: self.drain_delay_seconds.unwrap_or(if standalone { 0 } else { 5 }),
            kinds: self.chat.unwrap_or_default().check()?,
            limits: self.limits.into(),
            socketio: self.socketio.check()?,
            log_format: self.log_format.unwrap_or_default(),
        })
    }

    fn check_keys(&self) -> anyhow::Result<()> {
        match &self.token_hmac_secret {
            Some(secret) if secret.len() < HMAC_SECRET_BYTES_MIN => {
                bail!(
                    "STARLING_TOKEN_HMAC_SECRET has {} bytes; HS256 needs at least {HMAC_SECRET_BYTES_MIN}",
                    secret.len()
                )
            }
            None if self.redis_url.is_some()
                && self.database_url.is_some()
                && self.token_keys.is_none()
                && self.token_jwks.is_none()
                && self.dev != Some(true) =>
            {
                bail!(
                    "a cluster needs STARLING_TOKEN_HMAC_SECRET, STARLING_TOKEN_KEYS or STARLING_TOKEN_JWKS to check \
                     tokens with (or STARLING_DEV=true, which gives everyone a token, for trying it out)"
                )
            }
            _ => {}
        }
        Ok(())
    }

    /// Refuses 0 where it would let nothing happen at all, rather than take it for something else.
    fn check_zeros(&self) -> anyhow::Result<()> {
        let zeros = [
            ("token_seconds_max", self.token_seconds_max == Some(0)),
            ("backlog_entries_max", self.backlog_entries_max == Some(0)),
            ("body_bytes_max", self.body_bytes_max == Some(0)),
            ("outbox_bytes_max", self.outbox_bytes_max == Some(0)),
            ("subscriptions_max", self.subscriptions_max == Some(0)),
            ("catchup_messages_max", self.catchup_messages_max == Some(0)),
            ("catchup_bytes_max", self.catchup_bytes_max == Some(0)),
            ("position_check_seconds", self.position_check_seconds == Some(0)),
            ("presence_seconds", self.presence_seconds == Some(0)),
            ("probe_seconds", self.probe_seconds == Some(0)),
        ];
        let zero = zeros.into_iter().find_map(|(name, is_zero)| is_zero.then_some(name));
        match zero.or(self.limits.nothing_allowed()) {
            Some(name) => bail!("{name} must be at least 1"),
            None => Ok(()),
        }
    }
}
