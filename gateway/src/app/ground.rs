//! What a node stands on: the ports, and what must have been read from them before the first client comes.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use persister::Backoff;
use shared::store::StoreError;

use super::ports::{self, Ports};
use crate::{
    config::{Config, Mode},
    metrics::Metrics,
    revocation::{Revocable, UNREAD_MAX},
};

/// How much longer than a token a revocation lives, in seconds: clocks differ, and an expired token has its grace.
const REVOCATION_MARGIN_SECONDS: u64 = 600;

/// What a node stands on.
pub struct Ground {
    pub ports: Ports,
    /// Names the installation.
    pub installation: String,
    /// Knows already what is revoked.
    pub revocable: Arc<Revocable>,
}

impl Ground {
    /// Tries until Redis and Postgres answer: at the start of a whole cluster they may come later.
    ///
    /// # Errors
    /// When no later try can turn out otherwise: a URL that is none, a database that this version cannot use, a file that
    /// cannot be opened.
    pub async fn reach(config: &Config, metrics: &Arc<Metrics>) -> anyhow::Result<Self> {
        ports::check(config)?;
        let mut backoff = Backoff::default();
        loop {
            match Self::try_reach(config, metrics).await {
                Ok(ground) => return Ok(ground),
                Err(error) if is_final(config, &error) => return Err(error),
                Err(error) => tracing::warn!("cannot start yet: {error:#}"),
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    async fn try_reach(config: &Config, metrics: &Arc<Metrics>) -> anyhow::Result<Self> {
        let life = revocation_life(config);
        let ports = Ports::open(config, life).await?;
        let installation = ports.store.installation().await.context("the store does not answer")?;
        let revocable = Revocable::new(Arc::clone(&ports.revocations), life, UNREAD_MAX, Arc::clone(metrics));
        revocable.read_all().await.context("revocations cannot be read")?;
        Ok(Self { ports, installation, revocable: Arc::new(revocable) })
    }
}

fn is_final(config: &Config, error: &anyhow::Error) -> bool {
    config.mode == Mode::Standalone || matches!(error.downcast_ref(), Some(StoreError::Rejected(_)))
}

/// How long a revocation is in force: as long as any token that it could be about.
fn revocation_life(config: &Config) -> Duration {
    Duration::from_secs(config.token_rules.lifetime_seconds_max.saturating_add(REVOCATION_MARGIN_SECONDS))
}
