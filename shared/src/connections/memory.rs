//! The connections of standalone mode.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{CONNECTION_TTL_SECONDS, Connections, Gone, RETURN_MS, TAKEN_MS, UserState};
use crate::{
    broker::BrokerError,
    clock::now_ms,
    domain::{ConnectionId, ConnectionRecord, UserId},
};

/// One user who is known.
#[derive(Default)]
struct User {
    /// Each with the time at which it expires, in milliseconds since 1970.
    clients: Vec<(u64, Arc<ConnectionRecord>)>,
    /// When the user may be taken.
    due: u64,
    last_seen: u64,
    /// Somebody is telling the others that the user is gone.
    is_taken: bool,
}

/// Who is connected to one process.
pub struct MemoryConnections {
    users: Mutex<HashMap<UserId, User>>,
    ttl_ms: u64,
}

impl Default for MemoryConnections {
    fn default() -> Self {
        Self::with_ttl_ms(CONNECTION_TTL_SECONDS * 1000)
    }
}

impl MemoryConnections {
    /// One whose connections live this long, in milliseconds.
    pub fn with_ttl_ms(ttl_ms: u64) -> Self {
        Self { users: Mutex::default(), ttl_ms }
    }
}

#[async_trait]
impl Connections for MemoryConnections {
    async fn enter(&self, connections: &[Arc<ConnectionRecord>]) -> Result<Vec<UserId>, BrokerError> {
        let (now, mut users) = (now_ms(), self.users.lock());
        let mut came = BTreeSet::new();
        for record in connections {
            let is_known = users.get(&record.user).is_some_and(|user| !user.is_taken);
            if !is_known {
                came.insert(record.user.clone());
            }
            let user = users.entry(record.user.clone()).or_default();
            user.clients.retain(|(expiry, known)| *expiry > now && known.client != record.client);
            if user.clients.is_empty() {
                // Most users have one.
                user.clients.reserve_exact(1);
            }
            user.clients.push((now + self.ttl_ms, Arc::clone(record)));
            (user.due, user.last_seen, user.is_taken) = (now + self.ttl_ms, now, false);
        }
        Ok(came.into_iter().collect())
    }

    async fn leave(&self, user: &UserId, client: ConnectionId) -> Result<(), BrokerError> {
        let (now, mut users) = (now_ms(), self.users.lock());
        let Some(user) = users.get_mut(user) else { return Ok(()) };
        user.clients.retain(|(expiry, known)| *expiry > now && known.client != client);
        if user.clients.is_empty() && !user.is_taken {
            (user.due, user.last_seen) = (now + RETURN_MS, now);
        }
        Ok(())
    }

    async fn list(&self, user: &UserId, limit: usize) -> Result<Vec<ConnectionRecord>, BrokerError> {
        let (now, users) = (now_ms(), self.users.lock());
        let living = users.get(user).into_iter().flat_map(|user| &user.clients);
        let living = living.filter(|(expiry, _)| *expiry > now);
        Ok(living.take(limit).map(|(_, record)| ConnectionRecord::clone(record)).collect())
    }

    async fn states(&self, users: &[UserId]) -> Result<Vec<UserState>, BrokerError> {
        let (now, known) = (now_ms(), self.users.lock());
        let state = |user: &User| UserState {
            connected: user.clients.iter().any(|(expiry, _)| *expiry > now),
            known: !user.is_taken,
            last_seen: Some(user.last_seen),
        };
        Ok(users.iter().map(|user| known.get(user).map(state).unwrap_or_default()).collect())
    }

    async fn take_gone(&self, early_ms: u64) -> Result<Vec<Gone>, BrokerError> {
        let (now, mut users) = (now_ms(), self.users.lock());
        let due = users.iter_mut().filter(|(_, user)| user.due <= now + early_ms);
        Ok(due
            .map(|(id, user)| {
                (user.is_taken, user.due) = (true, now + TAKEN_MS);
                Gone { user: id.clone(), last_seen: user.last_seen }
            })
            .collect())
    }

    async fn confirm_gone(&self, users: &[UserId]) -> Result<Vec<UserId>, BrokerError> {
        let mut known = self.users.lock();
        let mut back = Vec::new();
        for user in users {
            match known.get(user) {
                Some(state) if state.is_taken => drop(known.remove(user)),
                Some(_) => back.push(user.clone()),
                None => {}
            }
        }
        Ok(back)
    }
}
