//! This node's connections as everybody may see them, and with them who is online.
//!
//! May use: domain, the ports connections and store, ephemeral. Deliberately absent: sessions, and who may ask.
//!
//! One refresh for the whole node at each tick. Whoever comes is told of at once; whoever is gone, by the node that wins
//! the user (see `shared/src/connections/mod.rs`), which also notes when the user was last seen. A node that dies leaves both to the others.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use shared::{
    broker::BrokerError,
    connections::{Connections, Gone, RETURN_MS, UserState},
    domain::{ConnectionId, ConnectionRecord, ConversationId, Event, Online, UserId},
    store::{Store, StoreError},
};
use tokio_util::task::TaskTracker;

use crate::{ephemeral::Ephemeral, refresh::Refresh};

/// How often those who are gone are looked for.
const SWEEP: Duration = Duration::from_secs(3);
/// How many users the others are told of at once.
const TELLS_AT_ONCE: usize = 64;

/// Why nobody knows who is online.
#[derive(Debug, thiserror::Error)]
pub enum OnlineError {
    /// Redis does not answer.
    #[error(transparent)]
    Connections(#[from] BrokerError),
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// This node's connections.
pub struct OnlineUsers {
    here: Arc<Mutex<HashMap<ConnectionId, Arc<ConnectionRecord>>>>,
    connections: Arc<dyn Connections>,
    store: Arc<dyn Store>,
    ephemeral: Arc<Ephemeral>,
    tracker: TaskTracker,
}

impl OnlineUsers {
    /// Nobody is here. Tasks that say goodbye are counted by `tracker`.
    pub fn new(
        connections: Arc<dyn Connections>,
        store: Arc<dyn Store>,
        ephemeral: Arc<Ephemeral>,
        tracker: TaskTracker,
    ) -> Self {
        Self { here: Arc::default(), connections, store, ephemeral, tracker }
    }

    /// A connection has begun. Does not wait for Redis.
    pub fn enter(&self, record: ConnectionRecord) {
        let record = Arc::new(record);
        self.here.lock().insert(record.client, Arc::clone(&record));
        let (here, connections) = (Arc::clone(&self.here), Arc::clone(&self.connections));
        let ephemeral = Arc::clone(&self.ephemeral);
        self.tracker.spawn(async move {
            let entered = enter(&*connections, &ephemeral, std::slice::from_ref(&record)).await;
            if let Err(error) = entered {
                tracing::debug!(%error, "a connection is entered at the next refresh");
            }
            if !here.lock().contains_key(&record.client) {
                // It ended before it was entered, and so was entered after it had been taken out. What fails expires.
                let _ = connections.leave(&record.user, record.client).await;
            }
        });
    }

    /// A connection has ended. Does not wait for Redis.
    pub fn leave(&self, client: ConnectionId) {
        let Some(record) = self.here.lock().remove(&client) else { return };
        let connections = Arc::clone(&self.connections);
        self.tracker.spawn(async move {
            if let Err(error) = connections.leave(&record.user, client).await {
                tracing::debug!(%error, "a connection ends when it expires");
            }
        });
    }

    /// The connections of a user, at most `limit`, newest first.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn connections(
        &self,
        user: &UserId,
        limit: usize,
    ) -> Result<Vec<ConnectionRecord>, BrokerError> {
        let mut found = self.connections.list(user, limit).await?;
        found.sort_by_key(|record| (std::cmp::Reverse(record.since), record.client));
        Ok(found)
    }

    /// Who of these users is online at this moment, and when the others were last seen.
    ///
    /// # Errors
    /// When Redis or the store does not answer.
    pub async fn states(&self, users: &[UserId]) -> Result<Vec<Online>, OnlineError> {
        self.read(users, |state| state.connected).await
    }

    /// What those who follow the user were told last. For some seconds after the last connection has ended that differs
    /// from [`OnlineUsers::states`]; who begins to follow must be told this, since a quick return is no news.
    ///
    /// # Errors
    /// When Redis or the store does not answer.
    pub async fn told(&self, user: &UserId) -> Result<Option<Online>, OnlineError> {
        Ok(self.read(std::slice::from_ref(user), |state| state.known).await?.pop())
    }

    async fn read(
        &self,
        users: &[UserId],
        is_online: impl Fn(&UserState) -> bool,
    ) -> Result<Vec<Online>, OnlineError> {
        let states = self.connections.states(users).await?;
        let away = |(_, state): &(&UserId, &UserState)| !is_online(state) && state.last_seen.is_none();
        let away: Vec<UserId> =
            users.iter().zip(&states).filter(away).map(|(user, _)| user.clone()).collect();
        let stored: HashMap<UserId, u64> = if away.is_empty() {
            HashMap::new()
        } else {
            self.store.last_seen(&away).await?.into_iter().collect()
        };
        Ok(users
            .iter()
            .zip(&states)
            .map(|(user, state)| {
                let online = is_online(state);
                let last_seen = state.last_seen.or_else(|| stored.get(user).copied());
                Online { user: user.clone(), online, last_seen: last_seen.filter(|_| !online) }
            })
            .collect())
    }

    /// Refreshes every connection that is here, for ever; each lives `life` without it.
    pub async fn refresh(&self, life: Duration) {
        let mut refresh = Refresh::new(life);
        loop {
            let some = refresh.part(|| self.here.lock().keys().copied().collect()).await;
            let records: Vec<Arc<ConnectionRecord>> = {
                let here = self.here.lock();
                some.iter().filter_map(|client| here.get(client).cloned()).collect()
            };
            if let Err(error) = enter(&*self.connections, &self.ephemeral, &records).await {
                tracing::warn!(%error, "connections cannot be refreshed");
                refresh.give_up();
            }
            self.remove_stale(&records).await;
        }
    }

    /// Takes back what a refresh entered although it ended while the refresh was under way.
    async fn remove_stale(&self, entered: &[Arc<ConnectionRecord>]) {
        let gone: Vec<&Arc<ConnectionRecord>> = {
            let here = self.here.lock();
            entered.iter().filter(|record| !here.contains_key(&record.client)).collect()
        };
        for record in gone {
            // What fails here expires by itself.
            let _ = self.connections.leave(&record.user, record.client).await;
        }
    }

    /// Tells of those who are gone, for ever.
    pub async fn sweep(&self) {
        let mut tick = tokio::time::interval(SWEEP);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.sweep_once(0).await;
        }
    }

    /// Notes those whose last connection has just ended, for a process that is about to stop and has nobody to follow it.
    pub async fn sweep_last(&self) {
        self.sweep_once(RETURN_MS).await;
    }

    async fn sweep_once(&self, early_ms: u64) {
        let swept = async {
            let gone = self.connections.take_gone(early_ms).await?;
            self.tell_gone(gone).await
        };
        if let Err(error) = swept.await {
            // Another try, of whichever node, follows.
            tracing::warn!(%error, "who is gone cannot be told now");
        }
    }

    async fn tell_gone(&self, gone: Vec<Gone>) -> Result<(), OnlineError> {
        if gone.is_empty() {
            return Ok(());
        }
        let seen: Vec<(UserId, u64)> = gone.iter().map(|gone| (gone.user.clone(), gone.last_seen)).collect();
        self.store.note_seen(&seen).await?;
        let users: Vec<UserId> = gone.iter().map(|gone| gone.user.clone()).collect();
        stream::iter(gone.into_iter().map(Ok))
            .try_for_each_concurrent(TELLS_AT_ONCE, async |Gone { user, last_seen }| {
                let room = ConversationId::presence(&user);
                let event = Event::Online(Online { user, online: false, last_seen: Some(last_seen) });
                self.ephemeral.try_tell(&room, &event).await
            })
            .await?;
        tell_online(&self.ephemeral, self.connections.confirm_gone(&users).await?).await;
        Ok(())
    }
}

async fn enter(
    connections: &dyn Connections,
    ephemeral: &Ephemeral,
    records: &[Arc<ConnectionRecord>],
) -> Result<(), BrokerError> {
    tell_online(ephemeral, connections.enter(records).await?).await;
    Ok(())
}

async fn tell_online(ephemeral: &Ephemeral, users: Vec<UserId>) {
    let tell = async |user: UserId| {
        let room = ConversationId::presence(&user);
        ephemeral.tell(&room, &Event::Online(Online { user, online: true, last_seen: None })).await;
    };
    stream::iter(users).for_each_concurrent(TELLS_AT_ONCE, tell).await;
}
