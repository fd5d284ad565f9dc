//! This node's part of the presence: which of its connections are in which conversation.
//!
//! May use: domain, the ports presence and broker. Deliberately absent: sessions and the hub.
//! One refresh for the whole node at each tick, never one for each socket.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use shared::{
    broker::Broker,
    domain::{ClientInfo, ConnectionId, ConversationId, Event},
    presence::{PRESENCE_REFRESH_SECONDS, Presence, PresenceEntry},
    record::encode_ephemeral,
};
use tokio_util::task::TaskTracker;

/// Most connections in a conversation whose comings and goings are told to the others: above it the news would cost
/// more than the messages.
const JOIN_LEAVE_CLIENTS_MAX: u32 = 500;
/// Most entries in one refresh call.
const REFRESH_ENTRIES_MAX: usize = 512;

/// This node's part of the presence.
pub struct Roster {
    here: Mutex<HashMap<(ConversationId, ConnectionId), ClientInfo>>,
    presence: Arc<dyn Presence>,
    broker: Arc<dyn Broker>,
    tracker: TaskTracker,
}

impl Roster {
    /// An empty roster.
    pub fn new(presence: Arc<dyn Presence>, broker: Arc<dyn Broker>, tracker: TaskTracker) -> Self {
        Self { here: Mutex::default(), presence, broker, tracker }
    }

    /// A connection is in the conversation from now on; the others are told.
    pub async fn enter(&self, conversation: &ConversationId, who: &ClientInfo) {
        self.here.lock().insert((conversation.clone(), who.client), who.clone());
        let entry = [(conversation.clone(), who.clone())];
        match self.presence.enter(&entry).await.as_deref() {
            Ok(&[clients]) => signal(&*self.broker, conversation, clients, Event::Join(who.clone())).await,
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "presence is entered at the next refresh"),
        }
    }

    /// A connection has left the conversation; the others are told. Does not wait for Redis.
    pub fn leave(&self, conversation: &ConversationId, who: &ClientInfo) {
        if self.here.lock().remove(&(conversation.clone(), who.client)).is_none() {
            return;
        }
        let (presence, broker) = (Arc::clone(&self.presence), Arc::clone(&self.broker));
        let (conversation, who) = (conversation.clone(), who.clone());
        self.tracker.spawn(async move {
            match presence.leave(&conversation, who.client).await {
                Ok(clients) => signal(&*broker, &conversation, clients, Event::Leave(who)).await,
                Err(error) => tracing::debug!(%error, "presence ends when it expires"),
            }
        });
    }

    /// Refreshes everyone who is here, for ever.
    pub async fn run(&self) {
        let mut tick = tokio::time::interval(Duration::from_secs(PRESENCE_REFRESH_SECONDS));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let entries: Vec<PresenceEntry> = self
                .here
                .lock()
                .iter()
                .map(|((conversation, _), who)| (conversation.clone(), who.clone()))
                .collect();
            for chunk in entries.chunks(REFRESH_ENTRIES_MAX) {
                if let Err(error) = self.presence.enter(chunk).await {
                    tracing::warn!(%error, "presence cannot be refreshed");
                    break;
                }
                self.remove_stale(chunk).await;
            }
        }
    }

    /// Takes back what a refresh entered although it left while the refresh was under way.
    async fn remove_stale(&self, entered: &[PresenceEntry]) {
        let gone: Vec<&PresenceEntry> = {
            let here = self.here.lock();
            entered.iter().filter(|(id, who)| !here.contains_key(&(id.clone(), who.client))).collect()
        };
        for (conversation, who) in gone {
            // What fails here expires by itself.
            let _ = self.presence.leave(conversation, who.client).await;
        }
    }
}

async fn signal(broker: &dyn Broker, conversation: &ConversationId, clients: u32, event: Event) {
    if clients > JOIN_LEAVE_CLIENTS_MAX {
        return;
    }
    if let Some(record) = encode_ephemeral(&event)
        && let Err(error) = broker.signal(conversation, record).await
    {
        tracing::debug!(%error, "a join or leave was not told");
    }
}
