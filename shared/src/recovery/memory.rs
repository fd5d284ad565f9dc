//! The sessions of standalone mode: they end with the process.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{Kept, Recovery};
use crate::{broker::BrokerError, domain::UserId};

/// Sessions above which those whose time is over are looked for.
const SWEEP_ABOVE: usize = 1_000;

/// Sessions within one process.
#[derive(Debug, Default)]
pub struct MemoryRecovery {
    sessions: Mutex<Sessions>,
}

#[derive(Debug, Default)]
struct Sessions {
    by_secret: HashMap<(UserId, String), (Kept, Instant)>,
    /// How many there may be before the next look.
    sweep_above: usize,
}

#[async_trait]
impl Recovery for MemoryRecovery {
    async fn keep(
        &self,
        user: &UserId,
        secret: &str,
        session: &Kept,
        life: Duration,
    ) -> Result<(), BrokerError> {
        let mut sessions = self.sessions.lock();
        let now = Instant::now();
        sessions.by_secret.insert((user.clone(), secret.to_owned()), (session.clone(), now + life));
        if sessions.by_secret.len() > sessions.sweep_above.max(SWEEP_ABOVE) {
            sessions.by_secret.retain(|_, (_, end)| *end > now);
            sessions.sweep_above = 2 * sessions.by_secret.len();
        }
        Ok(())
    }

    async fn find(&self, user: &UserId, secret: &str) -> Result<Option<Kept>, BrokerError> {
        let sessions = self.sessions.lock();
        let found = sessions.by_secret.get(&(user.clone(), secret.to_owned()));
        Ok(found.filter(|(_, end)| *end > Instant::now()).map(|(session, _)| session.clone()))
    }

    async fn forget(&self, user: &UserId, secret: &str) -> Result<(), BrokerError> {
        self.sessions.lock().by_secret.remove(&(user.clone(), secret.to_owned()));
        Ok(())
    }
}
