//! The task that owns the rooms of its share of the conversations.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use shared::{
    broker::Broker,
    clock,
    domain::{ClientInfo, ConnectionId, ConversationId, Event, Message, Seq, UserId},
    record::{decode_live, is_coming_or_going},
    store::Store,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::task::TaskTracker;

use super::{
    FeedConfig, Opened,
    catchup::{CatchUp, CatchUpLimits, catch_up},
    subscriptions::{self, Wish},
    topic::Topic,
};
use crate::{
    hub::{Client, Member, Opening, Subscription},
    metrics::Metrics,
};

/// Most commands that one turn takes; what waits for a conversation within a turn becomes one batch.
const TURN_COMMANDS_MAX: usize = 4_096;
/// How often lingering and unconfirmed subscriptions are looked at.
const TICK: Duration = Duration::from_secs(1);
/// How long a subscription may stay unconfirmed before it is asked for again.
const CONFIRM_PATIENCE: Duration = Duration::from_secs(3);
/// How long a record may be on its way when the position check finds it ahead of what has arrived.
const POSITION_RECHECK: Duration = Duration::from_secs(1);
/// Most conversations in one position check call.
const POSITIONS_MAX: usize = 512;
/// How much a node repairs by itself; above it, members are sent away to catch up one by one.
const REPAIR_LIMITS: CatchUpLimits = CatchUpLimits { messages: 5_000, bytes: 16 * 1024 * 1024 };
/// How many repairs in a row may bring nothing.
const FRUITLESS_REPAIRS_MAX: u32 = 3;

/// What a shard is told.
pub enum Command {
    /// A record has arrived.
    Record(ConversationId, Bytes),
    /// Redis has confirmed.
    Subscribed(ConversationId),
    /// Redis no longer sends.
    Unsubscribed(ConversationId),
    /// The subscriber connection is up, without subscriptions.
    Connected,
    /// The subscriber connection is gone.
    Disconnected,
    /// See [`super::Feed::join`].
    Join {
        conversation: ConversationId,
        client: Arc<Client>,
        subscription: Arc<Subscription>,
        confirmed: oneshot::Sender<()>,
    },
    /// See [`super::Feed::open`].
    Open {
        conversation: ConversationId,
        client: ConnectionId,
        up_to: Seq,
        frame: Bytes,
        opened: oneshot::Sender<Opened>,
    },
    /// See [`super::Feed::leave`].
    Leave { conversation: ConversationId, client: ConnectionId },
    /// See [`super::Feed::conversations`].
    Conversations(oneshot::Sender<Vec<ConversationId>>),
    /// See [`super::Feed::users`].
    Users { conversation: ConversationId, found: oneshot::Sender<Vec<UserId>> },
    /// See [`super::Feed::expel`].
    Expel { conversation: ConversationId, users: Vec<UserId>, expelled: oneshot::Sender<Vec<ClientInfo>> },
    /// A repair has ended; `None` when it failed.
    Repaired(ConversationId, Option<Vec<Message>>),
    /// The broker's positions, and whether those ahead of ours are looked at once more before they count.
    Positions { tops: Vec<(ConversationId, Seq)>, recheck: bool },
}

impl Command {
    /// The conversation it is about.
    pub fn conversation(&self) -> Option<&ConversationId> {
        match self {
            Self::Record(conversation, _)
            | Self::Subscribed(conversation)
            | Self::Unsubscribed(conversation)
            | Self::Join { conversation, .. }
            | Self::Open { conversation, .. }
            | Self::Leave { conversation, .. }
            | Self::Users { conversation, .. }
            | Self::Expel { conversation, .. }
            | Self::Repaired(conversation, _) => Some(conversation),
            Self::Connected | Self::Disconnected | Self::Conversations(_) | Self::Positions { .. } => None,
        }
    }
}

/// Owns the topics of its share of the conversations.
pub struct Shard {
    /// Boxed, since tables have room for more than there are.
    topics: HashMap<ConversationId, Box<Topic>>,
    wishes: mpsc::UnboundedSender<Wish>,
    connected: bool,
    /// Subscriptions confirmed anew since the last turn: what was published meanwhile must be looked for.
    resumed: Vec<ConversationId>,
    broker: Arc<dyn Broker>,
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    tracker: TaskTracker,
    commands: mpsc::UnboundedSender<Command>,
    waiting: Arc<AtomicUsize>,
    linger: Duration,
    position_check: Duration,
}

impl Shard {
    pub fn new(
        config: &FeedConfig,
        broker: &Arc<dyn Broker>,
        store: &Arc<dyn Store>,
        metrics: &Arc<Metrics>,
        tracker: &TaskTracker,
        commands: mpsc::UnboundedSender<Command>,
        waiting: Arc<AtomicUsize>,
    ) -> Self {
        let (wishes, wished) = mpsc::unbounded_channel();
        tracker.spawn(subscriptions::run(Arc::clone(broker), wished));
        Self {
            topics: HashMap::new(),
            wishes,
            connected: false,
            resumed: Vec::new(),
            broker: Arc::clone(broker),
            store: Arc::clone(store),
            metrics: Arc::clone(metrics),
            tracker: tracker.clone(),
            commands,
            waiting,
            linger: config.linger,
            position_check: config.position_check,
        }
    }

    /// Runs until it is dropped.
    pub async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Command>) {
        let mut tick = tokio::time::interval(TICK);
        let mut check = tokio::time::interval(self.position_check);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut turn = Vec::new();
        loop {
            tokio::select! {
                _ = inbox.recv_many(&mut turn, TURN_COMMANDS_MAX) => self.turn(&mut turn),
                _ = tick.tick() => self.tick(),
                _ = check.tick() => {
                    let flowing = self.topics.iter().filter(|(_, topic)| topic.confirmed && topic.is_flowing());
                    self.check_positions(flowing.map(|(id, _)| id.clone()).collect(), true);
                }
            }
        }
    }

    /// Works through what has come in. Records of one conversation that wait together become one batch.
    fn turn(&mut self, commands: &mut Vec<Command>) {
        let mut batches: Vec<(ConversationId, Vec<Event>)> = Vec::new();
        let mut places: HashMap<ConversationId, usize> = HashMap::new();
        for command in commands.drain(..) {
            if let Command::Record(conversation, record) = command {
                self.waiting.fetch_sub(record.len(), Ordering::Relaxed);
                let Some(event) = self.decode(&conversation, &record) else { continue };
                match places.entry(conversation) {
                    Entry::Occupied(place) => batches[*place.get()].1.push(event),
                    Entry::Vacant(place) => {
                        batches.push((place.key().clone(), vec![event]));
                        place.insert(batches.len() - 1);
                    }
                }
            } else {
                // What came before a command is delivered before it.
                places.clear();
                for (conversation, events) in batches.drain(..) {
                    self.deliver(&conversation, events);
                }
                self.command(command);
            }
        }
        for (conversation, events) in batches {
            self.deliver(&conversation, events);
        }
        let resumed = std::mem::take(&mut self.resumed);
        self.check_positions(resumed, false);
    }

    fn decode(&self, conversation: &ConversationId, record: &Bytes) -> Option<Event> {
        let topic = self.topics.get(conversation)?;
        if is_coming_or_going(record) && !topic.room.wants_comings_and_goings() {
            return None;
        }
        match decode_live(conversation, record) {
            Ok(event) => Some(event),
            Err(error) => {
                tracing::error!(%conversation, %error, "a record cannot be read");
                self.metrics.records_unreadable.increment(1);
                None
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Record(..) => unreachable!("records are batched by the caller"),
            Command::Subscribed(conversation) => self.subscribed(&conversation),
            Command::Unsubscribed(conversation) => {
                if let Some(topic) = self.topics.get_mut(&conversation) {
                    topic.confirmed = false;
                    self.ask(&conversation);
                }
            }
            Command::Connected => {
                self.connected = true;
                let all: Vec<ConversationId> = self.topics.keys().cloned().collect();
                for conversation in &all {
                    self.ask(conversation);
                }
            }
            Command::Disconnected => {
                self.connected = false;
                self.topics.values_mut().for_each(|topic| topic.confirmed = false);
            }
            Command::Join { conversation, client, subscription, confirmed } => {
                self.join(&conversation, client, subscription, confirmed);
            }
            Command::Open { conversation, client, up_to, frame, opened } => {
                let outcome = self.open(&conversation, client, up_to, frame);
                // The session may have ended meanwhile; then its leave is on the way.
                let _ = opened.send(outcome);
            }
            Command::Leave { conversation, client } => self.leave(&conversation, client),
            // Whoever asked may have gone.
            Command::Conversations(found) => {
                let inhabited = self.topics.iter().filter(|(_, topic)| !topic.room.is_empty());
                let _ = found.send(inhabited.map(|(conversation, _)| conversation.clone()).collect());
            }
            Command::Users { conversation, found } => {
                let users = self.topics.get(&conversation).map(|topic| topic.room.users(&conversation));
                let _ = found.send(users.unwrap_or_default().into_iter().collect());
            }
            Command::Expel { conversation, users, expelled } => {
                let _ = expelled.send(self.expel(&conversation, &users));
            }
            Command::Repaired(conversation, missing) => self.repaired(&conversation, missing),
            Command::Positions { tops, recheck } => self.compare(tops, recheck),
        }
    }

    fn ask(&mut self, conversation: &ConversationId) {
        if let Some(topic) = self.topics.get_mut(conversation) {
            topic.asked = Instant::now();
            let _ = self.wishes.send(Wish::Subscribe(conversation.clone()));
        }
    }

    fn join(
        &mut self,
        conversation: &ConversationId,
        client: Arc<Client>,
        subscription: Arc<Subscription>,
        confirmed: oneshot::Sender<()>,
    ) {
        let is_new = !self.topics.contains_key(conversation);
        let topic = self.topics.entry(conversation.clone()).or_insert_with(|| Box::new(Topic::new()));
        topic.room.add(Member::held(client, subscription, topic.last()));
        topic.idle_since = None;
        self.metrics.subscriptions.increment(1.0);
        if topic.confirmed {
            let _ = confirmed.send(());
            return;
        }
        topic.joining.push(confirmed);
        if is_new {
            self.metrics.conversations.increment(1.0);
            self.ask(conversation);
        }
    }

    fn subscribed(&mut self, conversation: &ConversationId) {
        let Some(topic) = self.topics.get_mut(conversation) else {
            // Nobody wants it any more, yet it was confirmed after that was said.
            let _ = self.wishes.send(Wish::Unsubscribe(conversation.clone()));
            return;
        };
        if !topic.confirmed && topic.last().is_some() {
            self.resumed.push(conversation.clone());
        }
        topic.confirmed = true;
        for joining in std::mem::take(&mut topic.joining) {
            let _ = joining.send(());
        }
    }

    fn open(
        &mut self,
        conversation: &ConversationId,
        client: ConnectionId,
        up_to: Seq,
        frame: Bytes,
    ) -> Opened {
        let Some(topic) = self.topics.get_mut(conversation) else { return Opened::Gone };
        let missed = match topic.room.open(client, up_to, topic.last()) {
            Opening::Gone => return Opened::Gone,
            Opening::Behind => return Opened::Behind,
            Opening::Open(missed) => missed,
        };
        topic.room.send_to(client, frame);
        if topic.last().is_some() {
            topic.room.deliver_to(client, conversation, &missed);
        } else {
            // It is the first to open, so what it has missed is what the topic has to follow on.
            topic.starts_at(up_to);
            self.deliver(conversation, missed.into_iter().map(Event::Message).collect());
        }
        Opened::Open
    }

    fn leave(&mut self, conversation: &ConversationId, client: ConnectionId) {
        let Some(topic) = self.topics.get_mut(conversation) else { return };
        if topic.room.remove(client) {
            self.metrics.subscriptions.decrement(1.0);
        }
        if topic.room.is_empty() {
            topic.idle_since.get_or_insert_with(Instant::now);
        }
    }

    fn expel(&mut self, conversation: &ConversationId, users: &[UserId]) -> Vec<ClientInfo> {
        let Some(topic) = self.topics.get_mut(conversation) else { return Vec::new() };
        let expelled = topic.room.expel(conversation, users);
        self.metrics.subscriptions.decrement(f64::from(u32::try_from(expelled.len()).unwrap_or(u32::MAX)));
        if topic.room.is_empty() {
            topic.idle_since.get_or_insert_with(Instant::now);
        }
        expelled
    }

    fn deliver(&mut self, conversation: &ConversationId, events: Vec<Event>) {
        let Some(topic) = self.topics.get_mut(conversation) else { return };
        let newest = events.iter().rev().find_map(|event| match event {
            Event::Message(message) => Some(message.time),
            _ => None,
        });
        let gap = topic.take(conversation, events, &self.metrics);
        if let Some(time) = newest {
            let since = clock::now_ms().saturating_sub(time);
            self.metrics.deliver_seconds.record(Duration::from_millis(since));
        }
        if let Some(after) = gap {
            self.repair(conversation, after);
        }
    }

    /// Reads what is missing after `after`; the topic's events wait meanwhile.
    fn repair(&mut self, conversation: &ConversationId, after: Seq) {
        let Some(topic) = self.topics.get_mut(conversation) else { return };
        if topic.room.is_empty() {
            topic.forget_position();
            return;
        }
        if topic.fruitless() > FRUITLESS_REPAIRS_MAX {
            self.repaired(conversation, None);
            return;
        }
        let (broker, store) = (Arc::clone(&self.broker), Arc::clone(&self.store));
        let (commands, conversation) = (self.commands.clone(), conversation.clone());
        self.metrics.repairs.increment(1);
        self.tracker.spawn(async move {
            let missing = match catch_up(&*broker, &*store, &conversation, after, REPAIR_LIMITS).await {
                Ok(CatchUp::Complete { messages, .. }) => Some(messages),
                Ok(CatchUp::Limited { .. }) => None,
                Err(error) => {
                    tracing::warn!(%conversation, %error, "a gap cannot be repaired");
                    None
                }
            };
            let _ = commands.send(Command::Repaired(conversation, missing));
        });
    }

    fn repaired(&mut self, conversation: &ConversationId, missing: Option<Vec<Message>>) {
        let Some(topic) = self.topics.get_mut(conversation) else { return };
        if topic.is_flowing() {
            return;
        }
        if let Some(missing) = missing {
            if let Some(after) = topic.repaired(conversation, missing, &self.metrics) {
                self.repair(conversation, after);
            }
            return;
        }
        self.metrics.repairs_failed.increment(1);
        let sent_away = topic.give_up(conversation);
        self.metrics.subscriptions.decrement(f64::from(u32::try_from(sent_away).unwrap_or(u32::MAX)));
        if topic.room.is_empty() {
            topic.idle_since.get_or_insert_with(Instant::now);
        }
    }

    /// Asks the broker how far these conversations are, and compares once the answer is here.
    fn check_positions(&self, conversations: Vec<ConversationId>, recheck: bool) {
        if conversations.is_empty() {
            return;
        }
        let (broker, commands) = (Arc::clone(&self.broker), self.commands.clone());
        self.tracker.spawn(async move {
            for chunk in conversations.chunks(POSITIONS_MAX) {
                let Ok(positions) = broker.positions(chunk).await else { return };
                let known = chunk.iter().cloned().zip(positions);
                let tops = known.filter_map(|(id, top)| top.map(|top| (id, top))).collect();
                let _ = commands.send(Command::Positions { tops, recheck });
            }
        });
    }

    fn compare(&mut self, tops: Vec<(ConversationId, Seq)>, recheck: bool) {
        let behind: Vec<(ConversationId, Seq)> = tops
            .into_iter()
            .filter(|(conversation, top)| {
                let topic = self.topics.get(conversation).filter(|topic| topic.is_flowing());
                topic.and_then(|topic| topic.last()).is_some_and(|last| last < *top)
            })
            .collect();
        if behind.is_empty() {
            return;
        }
        if recheck {
            let commands = self.commands.clone();
            self.tracker.spawn(async move {
                tokio::time::sleep(POSITION_RECHECK).await;
                let _ = commands.send(Command::Positions { tops: behind, recheck: false });
            });
            return;
        }
        for (conversation, _) in behind {
            self.metrics.positions_behind.increment(1);
            let topic = self.topics.get_mut(&conversation).expect("it was filtered by being a topic");
            let last = topic.last().expect("it was filtered by having a position");
            topic.start_repair();
            self.repair(&conversation, last);
        }
    }

    /// Lets go of conversations that nobody is in any more, and asks again for those that were not confirmed.
    fn tick(&mut self) {
        let linger = self.linger;
        let before = self.topics.len();
        let wishes = &self.wishes;
        self.topics.retain(|conversation, topic| {
            let is_over = topic.idle_since.is_some_and(|since| since.elapsed() >= linger);
            if is_over {
                let _ = wishes.send(Wish::Unsubscribe(conversation.clone()));
            }
            !is_over
        });
        // While Redis is away, clients come and go; those who gave up must not be kept for as long.
        self.topics.values_mut().for_each(|topic| topic.joining.retain(|joining| !joining.is_closed()));
        let gone = before - self.topics.len();
        self.metrics.conversations.decrement(f64::from(u32::try_from(gone).unwrap_or(u32::MAX)));
        if !self.connected {
            return;
        }
        let unconfirmed = |topic: &Topic| !topic.confirmed && topic.asked.elapsed() >= CONFIRM_PATIENCE;
        let overdue: Vec<ConversationId> =
            self.topics.iter().filter(|(_, topic)| unconfirmed(topic)).map(|(id, _)| id.clone()).collect();
        for conversation in &overdue {
            self.ask(conversation);
        }
    }
}
