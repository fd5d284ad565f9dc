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
    here: Arc<Mutex<HashMap<(ConversationId, ConnectionId), ClientInfo>>>,
    presence: Arc<dyn Presence>,
    broker: Arc<dyn Broker>,
    tracker: TaskTracker,
}

impl Roster {
    /// An empty roster.
    pub fn new(presence: Arc<dyn Presence>, broker: Arc<dyn Broker>, tracker: TaskTracker) -> Self {
        Self { here: Arc::default(), presence, broker, tracker }
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
        let (here, key, who) = (Arc::clone(&self.here), (conversation.clone(), who.client), who.clone());
        self.tracker.spawn(async move {
            let left = presence.leave(&key.0, who.client).await;
            let is_back = here.lock().contains_key(&key);
            let (conversation, _) = key;
            if is_back {
                // It came back before it was taken out, which took out what had come back.
                if let Err(error) = presence.enter(&[(conversation, who)]).await {
                    tracing::debug!(%error, "presence is entered at the next refresh");
                }
                return;
            }
            match left {
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

#[cfg(test)]
mod tests {
    use shared::{
        broker::{
            Inbound,
            memory::{Memory, MemoryBroker},
            sequence::Limits,
        },
        domain::NodeId,
        presence::memory::MemoryPresence,
        record::decode_live,
    };
    use tokio::sync::mpsc;

    use super::*;
    use crate::tests::{conversation, who};

    struct Rig {
        roster: Roster,
        presence: Arc<dyn Presence>,
        tracker: TaskTracker,
        inbox: mpsc::UnboundedReceiver<Inbound>,
    }

    impl Rig {
        async fn new() -> Self {
            let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new(Memory::new(1, Limits::default())));
            let (sender, inbox) = mpsc::unbounded_channel();
            let sink = Arc::new(move |inbound| drop(sender.send(inbound)));
            broker.start(&NodeId::parse("n1").unwrap(), sink);
            broker.subscribe(&[conversation("c")]).await.unwrap();
            let (presence, tracker) = (Arc::new(MemoryPresence::default()), TaskTracker::new());
            let presence: Arc<dyn Presence> = presence;
            let roster = Roster::new(Arc::clone(&presence), broker, tracker.clone());
            Self { roster, presence, tracker, inbox }
        }

        /// Waits until no task is left.
        async fn quiet(&self) {
            self.tracker.close();
            self.tracker.wait().await;
        }

        async fn clients(&self) -> u32 {
            self.presence.stats(&conversation("c")).await.unwrap().clients
        }

        /// What was told so far.
        fn told(&mut self) -> Vec<Event> {
            let mut told = Vec::new();
            while let Ok(inbound) = self.inbox.try_recv() {
                if let Inbound::Record(conversation, record) = inbound {
                    told.push(decode_live(&conversation, &record).unwrap());
                }
            }
            told
        }
    }

    #[tokio::test]
    async fn comings_and_goings_are_told() {
        let mut rig = Rig::new().await;
        rig.roster.enter(&conversation("c"), &who(1)).await;
        assert_eq!(rig.clients().await, 1);
        rig.roster.leave(&conversation("c"), &who(1));
        rig.roster.leave(&conversation("c"), &who(1));
        rig.quiet().await;
        assert_eq!(rig.clients().await, 0);
        assert_eq!(rig.told(), [Event::Join(who(1)), Event::Leave(who(1))]);
    }

    #[tokio::test]
    async fn who_comes_back_at_once_is_there() {
        let rig = Rig::new().await;
        rig.roster.enter(&conversation("c"), &who(1)).await;
        rig.roster.leave(&conversation("c"), &who(1));
        rig.roster.enter(&conversation("c"), &who(1)).await;
        rig.quiet().await;
        assert_eq!(rig.clients().await, 1);
    }

    #[tokio::test]
    async fn in_a_crowd_nobody_is_told() {
        let mut rig = Rig::new().await;
        let crowd: Vec<PresenceEntry> =
            (0..u128::from(JOIN_LEAVE_CLIENTS_MAX)).map(|n| (conversation("c"), who(n))).collect();
        rig.presence.enter(&crowd).await.unwrap();
        rig.roster.enter(&conversation("c"), &who(1_000)).await;
        rig.roster.leave(&conversation("c"), &who(1_000));
        rig.quiet().await;
        // The one that leaves makes the crowd small enough again.
        assert_eq!(rig.told(), [Event::Leave(who(1_000))]);
    }

    #[tokio::test]
    async fn what_a_refresh_entered_too_late_is_taken_back() {
        let rig = Rig::new().await;
        let entries = [(conversation("c"), who(1)), (conversation("c"), who(2))];
        rig.presence.enter(&entries).await.unwrap();
        rig.roster.here.lock().insert((conversation("c"), who(1).client), who(1));
        rig.roster.remove_stale(&entries).await;
        assert_eq!(rig.presence.list(&conversation("c"), 9).await.unwrap(), [who(1)]);
    }
}
