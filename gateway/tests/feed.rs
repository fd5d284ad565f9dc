//! The delivery line over the broker and the store of standalone mode: whatever happens on the way, a member gets every
//! message after the place where it began, once and in order.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use gateway::{
    feed::{CatchUp, CatchUpLimits, Feed, FeedConfig, Opened, catch_up},
    hub::{Client, Subscription},
    metrics::Metrics,
    outbox::{Fetched, Outbox, OutboxContext, OutboxLimits, OutboxMetrics},
    protocol::centrifuge::HTTP_STREAM,
};
use metrics::{Counter, Gauge};
use parking_lot::Mutex;
use proptest::prelude::*;
use shared::{
    auth::Claims,
    broker::{
        Broker, Inbound,
        memory::{Memory, MemoryBroker},
        sequence::Limits,
    },
    domain::{
        Body, ClientInfo, ConnectionId, ConversationId, Disconnect, Event, Message, MessageId, MessageKind,
        NodeId, Seq, UserId,
    },
    publisher::Publisher,
    record::{Payload, encode_ephemeral, encode_message},
    store::{Store, sqlite::SqliteStore},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use uuid::Uuid;

/// Longer than anything takes that comes at all.
const NEVER: Duration = Duration::from_mins(5);
/// How often positions are compared where that is what a test is about.
const OFTEN: Duration = Duration::from_millis(100);
const CATCH_UP: CatchUpLimits = CatchUpLimits { messages: 100_000, bytes: usize::MAX };
const PLENTY: Limits = Limits { backlog_entries_max: 1_000_000, hot_messages: 100_000 };

fn conversation() -> ConversationId {
    ConversationId::parse("general").unwrap()
}

/// The way from the broker to the feed, which can be cut or lose records.
#[derive(Default)]
struct Line {
    is_down: AtomicBool,
    /// For each record to come, whether it is lost; all later ones arrive.
    losses: Mutex<VecDeque<bool>>,
    subscribed: AtomicU64,
    unsubscribed: AtomicU64,
}

impl Line {
    fn carries(&self, inbound: &Inbound) -> bool {
        match inbound {
            Inbound::Record(..) if self.losses.lock().pop_front() == Some(true) => return false,
            Inbound::Subscribed(_) => self.subscribed.fetch_add(1, Ordering::Relaxed),
            Inbound::Unsubscribed(_) => self.unsubscribed.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
        !self.is_down.load(Ordering::Relaxed)
    }

    fn lose(&self, records: usize) {
        self.losses.lock().extend(std::iter::repeat_n(true, records));
    }

    fn counts(&self) -> (u64, u64) {
        (self.subscribed.load(Ordering::Relaxed), self.unsubscribed.load(Ordering::Relaxed))
    }
}

/// One node, as far as delivery goes.
struct Node {
    broker: Arc<dyn Broker>,
    store: Arc<dyn Store>,
    publisher: Publisher,
    feed: Arc<Feed>,
    line: Arc<Line>,
    /// Into the feed, past the line.
    sink: shared::broker::Sink,
    outboxes: Arc<OutboxContext>,
    clients: u128,
    /// Everything that was said.
    all: Vec<Message>,
    repairs: Arc<AtomicU64>,
    repairs_failed: Arc<AtomicU64>,
    _stop: DropGuard,
    _directory: Option<tempfile::TempDir>,
}

fn open_store() -> (tempfile::TempDir, Arc<dyn Store>) {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&directory.path().join("starling.db")).unwrap();
    (directory, Arc::new(store))
}

impl Node {
    /// One that does not compare positions by itself: what is found by that comes at any time.
    fn start(limits: Limits, linger: Duration) -> Self {
        Self::start_with(limits, linger, NEVER)
    }

    fn start_with(limits: Limits, linger: Duration, position_check: Duration) -> Self {
        let (directory, store) = open_store();
        Self { _directory: Some(directory), ..Self::with_store(store, limits, linger, position_check) }
    }

    fn with_store(store: Arc<dyn Store>, limits: Limits, linger: Duration, position_check: Duration) -> Self {
        let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new(Memory::new(4, limits)));
        let (repairs, repairs_failed) = <(Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        let metrics = Arc::new(Metrics {
            repairs: Counter::from_arc(Arc::clone(&repairs)),
            repairs_failed: Counter::from_arc(Arc::clone(&repairs_failed)),
            ..Metrics::register()
        });
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let config = FeedConfig { shards: 2, linger, position_check };
        let feed = Feed::start(&config, &broker, &store, &metrics, &tracker, &stop);
        let (line, sink) = (Arc::new(Line::default()), feed.sink(|_| {}));
        let (carrying, end) = (Arc::clone(&line), Arc::clone(&sink));
        let through: shared::broker::Sink = Arc::new(move |inbound| {
            if carrying.carries(&inbound) {
                end(inbound);
            }
        });
        broker.start(&NodeId::parse("n1").unwrap(), through);
        let limits = OutboxLimits { bytes_max: 1 << 30, farewell_time_max: NEVER, write_time_max: NEVER };
        Self {
            publisher: Publisher::new(Arc::clone(&broker), Arc::clone(&store)),
            outboxes: outboxes(limits),
            clients: 0,
            all: Vec::new(),
            broker,
            store,
            feed,
            line,
            sink,
            repairs,
            repairs_failed,
            _stop: stop.drop_guard(),
            _directory: None,
        }
    }

    fn payload(&self, bytes: usize) -> Payload {
        Payload {
            id: MessageId(Uuid::from_u128(self.all.len() as u128)),
            sender: UserId::parse("alice").unwrap(),
            client_id: None,
            reply_to: None,
            kind: MessageKind::TEXT,
            body: Body::from_json(format!("{:?}", "x".repeat(bytes))),
        }
    }

    async fn say(&mut self, bytes: usize) -> Seq {
        let payload = self.payload(bytes);
        let accepted = self.publisher.publish(&conversation(), payload.clone(), false).await.unwrap();
        let message = payload.at(conversation(), accepted.seq, accepted.prev, accepted.time);
        self.all.push(message);
        accepted.seq
    }

    async fn say_times(&mut self, times: usize) -> Vec<Seq> {
        let mut seqs = Vec::new();
        for _ in 0..times {
            seqs.push(self.say(1).await);
        }
        seqs
    }

    fn member(&mut self) -> Member {
        self.member_with(Subscription::new(false, false), &Arc::clone(&self.outboxes))
    }

    fn member_with(&mut self, subscription: Arc<Subscription>, outboxes: &Arc<OutboxContext>) -> Member {
        self.clients += 1;
        let outbox = Outbox::fetched(outboxes, HTTP_STREAM.farewell);
        let info = who(self.clients);
        let claims = Arc::new(Claims::of(info.user.clone(), u64::MAX));
        let client = Arc::new(Client::new(info, &HTTP_STREAM, outbox, claims));
        let chunks = VecDeque::new();
        Member { client, subscription, chunks, got: Vec::new(), read: Vec::new(), up_to: Seq(0) }
    }

    /// A member that is open, and has nothing to read.
    async fn open_member(&mut self) -> Member {
        let mut member = self.member();
        member.enter(self).await;
        member
    }

    /// The connection to the broker is lost, and with it every subscription.
    async fn cut(&self) {
        self.line.is_down.store(true, Ordering::Relaxed);
        self.broker.unsubscribe(&[conversation()]).await.unwrap();
        (self.sink)(Inbound::Disconnected);
    }

    fn mend(&self) {
        self.line.is_down.store(false, Ordering::Relaxed);
        (self.sink)(Inbound::Connected);
    }

    /// Waits until the conversation's shard has done all that it was told so far.
    async fn settle(&self) {
        let nobody = ConnectionId(Uuid::from_u128(u128::MAX));
        let opened = self.feed.open(&conversation(), nobody, Seq(0), Bytes::new()).await;
        assert_eq!(opened, Opened::Gone);
    }

    /// Puts into the store what the hot tail no longer holds, as a persister would.
    async fn store_all(&self) {
        let mut writer = self.store.writer("persister").await.unwrap();
        writer.commit(&self.all, &[]).await.unwrap();
    }

    fn repairs(&self) -> (u64, u64) {
        (self.repairs.load(Ordering::Relaxed), self.repairs_failed.load(Ordering::Relaxed))
    }
}

fn who(client: u128) -> ClientInfo {
    let user = UserId::parse("bob").unwrap();
    ClientInfo { user, client: ConnectionId(Uuid::from_u128(client)), info: None }
}

fn outboxes(limits: OutboxLimits) -> Arc<OutboxContext> {
    let metrics = OutboxMetrics {
        bytes: Gauge::noop(),
        ephemeral_dropped: Counter::noop(),
        closed_slow: Counter::noop(),
    };
    OutboxContext::new(limits, metrics, TaskTracker::new())
}

/// What a client hears.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Heard {
    Opened,
    Message(Seq),
    Joined,
    Resubscribe,
    Closed(u64),
}

fn read_line(line: &[u8]) -> Heard {
    let json: serde_json::Value = serde_json::from_slice(line).unwrap();
    let push = &json["push"];
    if json == "opened" {
        Heard::Opened
    } else if let Some(message) = push.get("pub") {
        Heard::Message(Seq(message["offset"].as_u64().unwrap()))
    } else if push.get("join").is_some() {
        Heard::Joined
    } else if let Some(why) = push.get("unsubscribe") {
        assert_eq!(why["code"], 2500);
        Heard::Resubscribe
    } else {
        Heard::Closed(push["disconnect"]["code"].as_u64().unwrap())
    }
}

/// One client, which goes on where it has stopped.
struct Member {
    client: Arc<Client>,
    subscription: Arc<Subscription>,
    /// What was fetched and not heard yet.
    chunks: VecDeque<Bytes>,
    /// Every message that it has got, from history and live.
    got: Vec<Seq>,
    /// What it has read of history and may take once its gate is open.
    read: Vec<Seq>,
    up_to: Seq,
}

impl Member {
    async fn join(&self, node: &Node) {
        node.feed.join(&conversation(), &self.client, &self.subscription).await.unwrap();
    }

    async fn read(&mut self, node: &Node) {
        let after = self.got.last().copied().unwrap_or_default();
        let found = catch_up(&*node.broker, &*node.store, &conversation(), after, CATCH_UP).await.unwrap();
        let CatchUp::Complete { messages, top } = found else { panic!("the limits are out of reach") };
        self.read = messages.iter().map(|message| message.seq).collect();
        self.up_to = top;
    }

    async fn open(&mut self, node: &Node) -> Opened {
        let frame = Bytes::from_static(b"\"opened\"\n");
        let opened = node.feed.open(&conversation(), self.client.info.client, self.up_to, frame).await;
        if opened == Opened::Open {
            self.got.append(&mut self.read);
        }
        opened
    }

    async fn enter(&mut self, node: &Node) {
        self.subscription = Subscription::new(false, self.subscription.server_side);
        self.join(node).await;
        loop {
            self.read(node).await;
            match self.open(node).await {
                Opened::Open => break,
                Opened::Behind => {}
                Opened::Gone => panic!("it has just joined"),
            }
        }
    }

    /// Leaves, and hears what was said to it before.
    async fn leave(&mut self, node: &Node) {
        node.feed.leave(&conversation(), self.client.info.client);
        node.settle().await;
        self.hear_all();
    }

    /// Takes what there is; true when it was sent away.
    fn hear_all(&mut self) -> bool {
        let mut sent_away = false;
        while let Some(Some(chunk)) = self.next().now_or_never() {
            for heard in self.note(&chunk) {
                sent_away |= heard == Heard::Resubscribe;
            }
        }
        sent_away
    }

    /// The next chunk; `None` when there will be none.
    async fn next(&mut self) -> Option<Bytes> {
        if self.chunks.is_empty()
            && let Fetched::Chunks(chunks) = poll_fn(|context| self.client.outbox.poll_fetch(context)).await
        {
            self.chunks = chunks.into();
        }
        self.chunks.pop_front()
    }

    /// Waits for the next chunk.
    async fn hear(&mut self) -> Vec<Heard> {
        let chunk = tokio::time::timeout(NEVER, self.next()).await.expect("nothing comes");
        chunk.map(|chunk| self.note(&chunk)).unwrap_or_default()
    }

    fn note(&mut self, chunk: &[u8]) -> Vec<Heard> {
        let lines = chunk.strip_suffix(b"\n").unwrap().split(|byte| *byte == b'\n');
        let all: Vec<Heard> = lines.map(read_line).collect();
        self.got.extend(all.iter().filter_map(|heard| match heard {
            Heard::Message(seq) => Some(*seq),
            _ => None,
        }));
        all
    }

    /// Waits until it has got `seqs` and nothing else.
    async fn gets(&mut self, seqs: &[Seq]) {
        while self.got.last() < seqs.last() {
            assert!(!self.hear().await.contains(&Heard::Resubscribe), "it was sent away");
        }
        assert_eq!(self.got, seqs);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Say(usize),
    Lose(Vec<bool>),
    Join(usize),
    Read(usize),
    Open(usize),
    Leave(usize),
    Unsubscribed,
    Cut,
    Mend,
    Yield(usize),
}

const MEMBERS: usize = 4;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..6_usize).prop_map(Step::Say),
        2 => prop::collection::vec(any::<bool>(), 1..4).prop_map(Step::Lose),
        4 => (0..MEMBERS).prop_map(Step::Join),
        4 => (0..MEMBERS).prop_map(Step::Read),
        4 => (0..MEMBERS).prop_map(Step::Open),
        1 => (0..MEMBERS).prop_map(Step::Leave),
        1 => Just(Step::Unsubscribed),
        1 => Just(Step::Cut),
        2 => Just(Step::Mend),
        6 => (1..30_usize).prop_map(Step::Yield),
    ]
}

/// How far a member has come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Out,
    Joined,
    Read,
    Open,
}

/// A node, its members, and everything that was ever said.
struct History {
    node: Node,
    members: Vec<(Stage, Member)>,
    said: Vec<Seq>,
    is_cut: bool,
}

impl History {
    fn new(store: Arc<dyn Store>) -> Self {
        let mut node = Node::with_store(store, PLENTY, Duration::ZERO, OFTEN);
        let members = (0..MEMBERS).map(|_| (Stage::Out, node.member())).collect();
        Self { node, members, said: Vec::new(), is_cut: false }
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Say(times) => self.said.extend(self.node.say_times(times).await),
            Step::Lose(losses) => self.node.line.losses.lock().extend(losses),
            Step::Unsubscribed => self.node.broker.unsubscribe(&[conversation()]).await.unwrap(),
            Step::Cut if !self.is_cut => {
                self.is_cut = true;
                self.node.cut().await;
            }
            Step::Mend if self.is_cut => {
                self.is_cut = false;
                self.node.mend();
            }
            Step::Cut | Step::Mend => {}
            Step::Yield(times) => {
                for _ in 0..times {
                    tokio::task::yield_now().await;
                }
            }
            Step::Join(at) | Step::Read(at) | Step::Open(at) | Step::Leave(at) => {
                self.member_step(&step, at).await;
            }
        }
    }

    async fn member_step(&mut self, step: &Step, at: usize) {
        let (stage, member) = &mut self.members[at];
        if member.hear_all() {
            *stage = Stage::Out;
        }
        *stage = match (step, *stage) {
            // Without a connection nothing is confirmed.
            (Step::Join(_), Stage::Out) if !self.is_cut => {
                member.subscription = Subscription::new(false, false);
                member.join(&self.node).await;
                Stage::Joined
            }
            (Step::Read(_), Stage::Joined | Stage::Read) => {
                member.read(&self.node).await;
                Stage::Read
            }
            (Step::Open(_), Stage::Read) => match member.open(&self.node).await {
                Opened::Open => Stage::Open,
                Opened::Behind => Stage::Joined,
                Opened::Gone => panic!("nobody has sent it away"),
            },
            (Step::Leave(_), Stage::Joined | Stage::Read | Stage::Open) => {
                member.leave(&self.node).await;
                Stage::Out
            }
            (_, stage) => stage,
        };
    }

    /// Lets everything be well again, and everyone come in; a last message shows what is missing.
    async fn end(mut self) {
        self.node.line.losses.lock().clear();
        if self.is_cut {
            self.node.mend();
        }
        for (stage, member) in &mut self.members {
            if member.hear_all() || *stage != Stage::Open {
                member.leave(&self.node).await;
                member.enter(&self.node).await;
            }
        }
        self.said.extend(self.node.say_times(1).await);
        for (_, member) in &mut self.members {
            while member.got.last() < self.said.last() {
                if member.hear().await.contains(&Heard::Resubscribe) {
                    member.enter(&self.node).await;
                }
            }
            assert_eq!(member.got, self.said);
        }
    }
}

/// Every member gets everything once and in order, however joins, reads, opens, leaves, lost records and lost
/// connections fall between the messages.
#[test]
fn every_member_gets_everything_once_and_in_order() {
    let (_directory, store) = open_store();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(steps in prop::collection::vec(step(), 1..80))| {
        runtime.block_on(async {
            let mut history = History::new(Arc::clone(&store));
            for step in steps {
                history.take(step).await;
            }
            history.end().await;
        });
    });
}

#[tokio::test]
async fn a_gap_is_repaired_once_for_the_whole_node() {
    let mut node = Node::start(PLENTY, NEVER);
    let mut members = Vec::new();
    for _ in 0..5 {
        members.push(node.open_member().await);
    }
    let mut said = node.say_times(2).await;
    node.line.lose(3);
    said.extend(node.say_times(6).await);
    for member in &mut members {
        member.gets(&said).await;
    }
    assert_eq!(node.repairs(), (1, 0));
}

#[tokio::test]
async fn a_gap_below_the_hot_tail_is_repaired_from_the_store() {
    let mut node = Node::start(Limits { hot_messages: 3, ..PLENTY }, NEVER);
    let mut member = node.open_member().await;
    let mut said = node.say_times(1).await;
    node.line.lose(10);
    said.extend(node.say_times(10).await);
    node.store_all().await;
    said.extend(node.say_times(1).await);
    member.gets(&said).await;
    assert_eq!(node.repairs(), (1, 0));
}

#[tokio::test]
async fn a_lost_end_is_found_by_comparing_positions() {
    let mut node = Node::start_with(PLENTY, NEVER, OFTEN);
    let mut member = node.open_member().await;
    let mut said = node.say_times(1).await;
    node.line.lose(2);
    said.extend(node.say_times(2).await);
    member.gets(&said).await;
    assert_eq!(node.repairs(), (1, 0));
}

#[tokio::test]
async fn a_subscription_that_ends_by_itself_is_asked_for_again() {
    let mut node = Node::start(PLENTY, NEVER);
    let mut member = node.open_member().await;
    let mut said = node.say_times(1).await;
    member.gets(&said).await;
    node.broker.unsubscribe(&[conversation()]).await.unwrap();
    said.extend(node.say_times(3).await);
    member.gets(&said).await;
    said.extend(node.say_times(3).await);
    member.gets(&said).await;
    assert_eq!(node.line.counts(), (2, 1));
}

#[tokio::test]
async fn a_lost_connection_loses_nothing() {
    let mut node = Node::start(PLENTY, NEVER);
    let mut member = node.open_member().await;
    let mut said = node.say_times(1).await;
    node.cut().await;
    assert!(!node.feed.is_connected());
    said.extend(node.say_times(3).await);
    node.mend();
    assert!(node.feed.is_connected());
    member.gets(&said).await;
    said.extend(node.say_times(3).await);
    member.gets(&said).await;
}

#[tokio::test]
async fn a_confirmation_that_never_comes_is_asked_for_again() {
    let mut node = Node::start(PLENTY, NEVER);
    node.line.is_down.store(true, Ordering::Relaxed);
    let mut member = node.member();
    let joined = member.join(&node);
    let line = Arc::clone(&node.line);
    let comes_back = async move {
        while line.counts().0 == 0 {
            tokio::task::yield_now().await;
        }
        line.is_down.store(false, Ordering::Relaxed);
    };
    tokio::join!(joined, comes_back);
    member.read(&node).await;
    assert_eq!(member.open(&node).await, Opened::Open);
    let said = node.say_times(1).await;
    member.gets(&said).await;
}

#[tokio::test]
async fn an_empty_conversation_is_let_go_and_can_be_joined_again() {
    let mut node = Node::start(PLENTY, Duration::ZERO);
    let mut member = node.open_member().await;
    member.leave(&node).await;
    while node.line.counts() != (1, 1) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut said = node.say_times(2).await;
    member.enter(&node).await;
    said.extend(node.say_times(2).await);
    member.gets(&said).await;
    assert_eq!(node.line.counts(), (2, 1));
}

#[tokio::test]
async fn a_conversation_is_kept_while_its_last_member_may_come_back() {
    let mut node = Node::start(PLENTY, NEVER);
    let mut member = node.open_member().await;
    let mut said = Vec::new();
    for _ in 0..50 {
        member.leave(&node).await;
        said.extend(node.say_times(1).await);
        member.enter(&node).await;
        said.extend(node.say_times(1).await);
    }
    member.gets(&said).await;
    assert_eq!(node.line.counts(), (1, 0));
}

#[tokio::test]
async fn who_reads_too_slowly_reads_again() {
    let mut node = Node::start(PLENTY, NEVER);
    let mut member = node.member();
    member.join(&node).await;
    member.read(&node).await;
    let mut said = Vec::new();
    for _ in 0..5 {
        said.push(node.say(1024 * 1024).await);
    }
    assert_eq!(member.open(&node).await, Opened::Behind);
    member.read(&node).await;
    assert_eq!(member.open(&node).await, Opened::Open);
    said.extend(node.say_times(1).await);
    member.gets(&said).await;
}

#[tokio::test]
async fn what_only_another_one_has_read_is_not_taken_for_known() {
    let mut node = Node::start(PLENTY, NEVER);
    let (mut early, mut late) = (node.member(), node.member());
    early.join(&node).await;
    late.join(&node).await;
    early.read(&node).await;
    node.line.lose(1);
    let mut said = node.say_times(1).await;
    late.read(&node).await;
    assert_eq!(late.open(&node).await, Opened::Open);
    assert_eq!(early.open(&node).await, Opened::Behind);
    early.read(&node).await;
    assert_eq!(early.open(&node).await, Opened::Open);
    said.extend(node.say_times(1).await);
    early.gets(&said).await;
    late.gets(&said).await;
}

#[tokio::test]
async fn a_message_that_did_not_survive_keeps_nobody_out() {
    let mut node = Node::start(PLENTY, NEVER);
    let mut witness = node.open_member().await;
    let payload = node.payload(1);
    let lost = encode_message(&payload.at(conversation(), Seq(1), Seq(0), 0));
    (node.sink)(Inbound::Record(conversation(), lost));
    witness.gets(&[Seq(1)]).await;
    let mut member = node.member();
    member.join(&node).await;
    member.read(&node).await;
    assert_eq!(member.open(&node).await, Opened::Open);
}

#[tokio::test]
async fn a_position_beyond_the_end_is_not_followed() {
    let mut node = Node::start(PLENTY, NEVER);
    for after in [1, u64::MAX].map(Seq) {
        let found = catch_up(&*node.broker, &*node.store, &conversation(), after, CATCH_UP).await.unwrap();
        assert_eq!(found, CatchUp::Limited { top: Seq(0) });
    }
    let top = *node.say_times(3).await.last().unwrap();
    let found =
        catch_up(&*node.broker, &*node.store, &conversation(), Seq(top.0 + 1), CATCH_UP).await.unwrap();
    assert_eq!(found, CatchUp::Limited { top });
    let found = catch_up(&*node.broker, &*node.store, &conversation(), top, CATCH_UP).await.unwrap();
    assert_eq!(found, CatchUp::Complete { messages: Vec::new(), top });
}

#[tokio::test]
async fn what_the_store_has_beyond_the_brokers_end_is_read() {
    // The broker came back with less than it had; the store has all of it.
    let mut node = Node::start(PLENTY, NEVER);
    let said = node.say_times(5).await;
    node.store_all().await;
    let stale: Arc<dyn Broker> = Arc::new(MemoryBroker::new(Memory::new(4, PLENTY)));
    let mut before = Node { broker: Arc::clone(&stale), ..Node::start(PLENTY, NEVER) };
    before.publisher = Publisher::new(stale, Arc::clone(&before.store));
    before.say_times(2).await;
    let found = catch_up(&*before.broker, &*node.store, &conversation(), said[2], CATCH_UP).await.unwrap();
    let CatchUp::Complete { messages, top } = found else { panic!("{found:?}") };
    assert_eq!((messages, top), (node.all[3..].to_vec(), said[4]));
}

#[tokio::test]
async fn a_gap_that_cannot_be_repaired_sends_the_open_members_away() {
    let mut node = Node::start(Limits { hot_messages: 2, ..PLENTY }, NEVER);
    let mut client_side = node.open_member().await;
    let outboxes = Arc::clone(&node.outboxes);
    let mut server_side = node.member_with(Subscription::new(false, true), &outboxes);
    server_side.enter(&node).await;
    let mut reading = node.member();
    reading.join(&node).await;
    node.line.lose(9);
    let said = node.say_times(10).await;
    let mut heard = Vec::new();
    while heard.last() != Some(&Heard::Resubscribe) {
        heard.extend(client_side.hear().await);
    }
    assert_eq!(heard, [Heard::Opened, Heard::Resubscribe]);
    assert!(client_side.subscription.has_ended());
    let mut heard = Vec::new();
    while !matches!(heard.last(), Some(Heard::Closed(_))) {
        heard.extend(server_side.hear().await);
    }
    let code = Disconnect::InsufficientState.code().into();
    assert_eq!(heard, [Heard::Opened, Heard::Closed(code)]);
    assert_eq!(server_side.client.outbox.closed().await, Disconnect::InsufficientState);
    assert_eq!(node.repairs(), (1, 1));
    // Once the store has what the hot tail lacks, everyone can come in.
    node.store_all().await;
    reading.read(&node).await;
    assert_eq!(reading.open(&node).await, Opened::Open);
    client_side.enter(&node).await;
    reading.gets(&said).await;
    client_side.gets(&said).await;
}

#[tokio::test]
async fn a_slow_member_loses_ephemeral_events_first_and_harms_nobody() {
    let mut node = Node::start(PLENTY, NEVER);
    let limits = OutboxLimits { bytes_max: 4 * 1024, ..OutboxLimits::default() };
    let mut slow = node.member_with(Subscription::new(true, false), &outboxes(limits));
    slow.join(&node).await;
    slow.read(&node).await;
    assert_eq!(slow.open(&node).await, Opened::Open);
    let mut quick = node.open_member().await;
    for n in 0..1_000 {
        let joined = encode_ephemeral(&Event::Join(who(n))).unwrap();
        node.broker.signal(&conversation(), joined).await.unwrap();
    }
    node.settle().await;
    let mut said = node.say_times(1).await;
    quick.gets(&said).await;
    assert!(!slow.client.outbox.is_closed(), "joins make room for a message");
    said.extend(node.say_times(100).await);
    quick.gets(&said).await;
    assert_eq!(slow.client.outbox.closed().await, Disconnect::Slow);
    let mut heard = Vec::new();
    while !matches!(heard.last(), Some(Heard::Closed(_))) {
        heard.extend(slow.hear().await);
    }
    assert_eq!(heard, [Heard::Closed(Disconnect::Slow.code().into())]);
}

#[tokio::test]
async fn only_those_who_want_it_see_others_join() {
    let mut node = Node::start(PLENTY, NEVER);
    let outboxes = Arc::clone(&node.outboxes);
    let mut curious = node.member_with(Subscription::new(true, false), &outboxes);
    curious.join(&node).await;
    curious.read(&node).await;
    assert_eq!(curious.open(&node).await, Opened::Open);
    let mut other = node.open_member().await;
    let joined = encode_ephemeral(&Event::Join(who(9))).unwrap();
    node.broker.signal(&conversation(), joined).await.unwrap();
    let said = node.say_times(1).await;
    let expected = [Heard::Opened, Heard::Joined, Heard::Message(said[0])];
    let mut heard = Vec::new();
    while heard.len() < expected.len() {
        heard.extend(curious.hear().await);
    }
    assert_eq!(heard, expected);
    assert_eq!(other.hear().await, [Heard::Opened]);
    assert_eq!(other.hear().await, [Heard::Message(said[0])]);
}
