//! This node's part of the presence: which of its connections are in which conversation.
//!
//! May use: domain, the port presence, ephemeral. Deliberately absent: sessions and the hub.
//! One refresh for the whole node at each tick, never one for each socket. In a crowd nobody is told of single comings and
//! goings: each node on which there are some tells how many are there, once in a while.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use shared::{
    domain::{ClientInfo, ConnectionId, ConversationId, Event, Occupancy},
    presence::{Presence, PresenceEntry},
};
use tokio_util::task::TaskTracker;

use crate::{ephemeral::Ephemeral, refresh::Refresh};

/// Most connections in a conversation whose comings and goings are told to the others: above it the news would cost
/// more than the messages.
const JOIN_LEAVE_CLIENTS_MAX: u32 = 500;
/// How often it is told how many are in a crowd.
const OCCUPANCY_INTERVAL: Duration = Duration::from_secs(2);

/// This node's part of the presence.
pub struct Roster {
    here: Arc<Mutex<HashMap<(ConversationId, ConnectionId), ClientInfo>>>,
    presence: Arc<dyn Presence>,
    /// Crowds in which somebody has come or gone since that was told last.
    crowds: Arc<Mutex<BTreeSet<ConversationId>>>,
    ephemeral: Arc<Ephemeral>,
    tracker: TaskTracker,
}

impl Roster {
    /// An empty roster.
    pub fn new(presence: Arc<dyn Presence>, ephemeral: Arc<Ephemeral>, tracker: TaskTracker) -> Self {
        Self { here: Arc::default(), presence, crowds: Arc::default(), ephemeral, tracker }
    }

    /// A connection is in the conversation from now on; the others are told.
    pub async fn enter(&self, conversation: &ConversationId, who: &ClientInfo) {
        self.here.lock().insert((conversation.clone(), who.client), who.clone());
        let entry = [(conversation.clone(), who.clone())];
        match self.presence.enter(&entry).await.as_deref() {
            Ok(&[clients]) => {
                tell(&self.ephemeral, &self.crowds, conversation, clients, Event::Join(who.clone())).await;
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "presence is entered at the next refresh"),
        }
    }

    /// A connection has left the conversation; the others are told. Does not wait for Redis.
    pub fn leave(&self, conversation: &ConversationId, who: &ClientInfo) {
        if self.here.lock().remove(&(conversation.clone(), who.client)).is_none() {
            return;
        }
        let (presence, ephemeral) = (Arc::clone(&self.presence), Arc::clone(&self.ephemeral));
        let crowds = Arc::clone(&self.crowds);
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
                Ok(clients) => {
                    tell(&ephemeral, &crowds, &conversation, clients, Event::Leave(who)).await;
                }
                Err(error) => tracing::debug!(%error, "presence ends when it expires"),
            }
        });
    }

    /// Tells how many are in each crowd in which somebody has come or gone, for ever.
    pub async fn count_crowds(&self) {
        let mut tick = tokio::time::interval(OCCUPANCY_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.count_crowds_once().await;
        }
    }

    async fn count_crowds_once(&self) {
        let crowds = std::mem::take(&mut *self.crowds.lock());
        for conversation in crowds {
            match self.presence.stats(&conversation).await {
                Ok(stats) => {
                    let occupancy = Occupancy { clients: stats.clients, users: stats.users };
                    self.ephemeral.tell(&conversation, &Event::Occupancy(occupancy)).await;
                }
                Err(error) => tracing::debug!(%error, "a crowd cannot be counted now"),
            }
        }
    }

    /// Refreshes everyone who is here, for ever; an entry lives `life` without it.
    pub async fn run(&self, life: Duration) {
        let mut refresh = Refresh::new(life);
        loop {
            let some = refresh.part(|| self.here.lock().keys().cloned().collect()).await;
            let entries: Vec<PresenceEntry> = {
                let here = self.here.lock();
                let entry = |key| here.get_key_value(key).map(|((room, _), who)| (room.clone(), who.clone()));
                some.iter().filter_map(entry).collect()
            };
            if let Err(error) = self.presence.enter(&entries).await {
                tracing::warn!(%error, "presence cannot be refreshed");
                refresh.give_up();
            }
            self.remove_stale(&entries).await;
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

async fn tell(
    ephemeral: &Ephemeral,
    crowds: &Mutex<BTreeSet<ConversationId>>,
    conversation: &ConversationId,
    clients: u32,
    event: Event,
) {
    if clients > JOIN_LEAVE_CLIENTS_MAX {
        crowds.lock().insert(conversation.clone());
    } else {
        ephemeral.tell(conversation, &event).await;
    }
}

#[cfg(test)]
mod tests {
    use shared::{
        broker::{
            Broker, Inbound,
            memory::{Memory, MemoryBroker},
            sequence::Limits,
        },
        domain::NodeId,
        presence::memory::MemoryPresence,
        record::decode_live,
    };
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        metrics::Metrics,
        tests::{conversation, who},
    };

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
            let ephemeral = Arc::new(Ephemeral::new(broker, Arc::new(Metrics::register())));
            let roster = Roster::new(Arc::clone(&presence), ephemeral, tracker.clone());
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
    async fn in_a_crowd_it_is_told_how_many_there_are() {
        let mut rig = Rig::new().await;
        let crowd: Vec<PresenceEntry> =
            (0..u128::from(JOIN_LEAVE_CLIENTS_MAX)).map(|n| (conversation("c"), who(n))).collect();
        rig.presence.enter(&crowd).await.unwrap();
        for n in 1_000..1_010 {
            rig.roster.enter(&conversation("c"), &who(n)).await;
        }
        assert_eq!(rig.told(), []);
        rig.roster.count_crowds_once().await;
        rig.roster.count_crowds_once().await;
        let clients = JOIN_LEAVE_CLIENTS_MAX + 10;
        assert_eq!(
            rig.told(),
            [Event::Occupancy(Occupancy { clients, users: clients })],
            "once, for all of them"
        );
        (1_000..1_010).for_each(|n| rig.roster.leave(&conversation("c"), &who(n)));
        rig.quiet().await;
        // Whichever is the last to leave makes the crowd small enough again.
        assert!(matches!(rig.told().as_slice(), [Event::Leave(_)]));
        rig.roster.count_crowds_once().await;
        let clients = JOIN_LEAVE_CLIENTS_MAX;
        assert_eq!(rig.told(), [Event::Occupancy(Occupancy { clients, users: clients })]);
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
