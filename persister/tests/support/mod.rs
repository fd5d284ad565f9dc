//! A log in memory, a store in a file, and a persister between them.
#![allow(dead_code, reason = "each suite uses a part of it")]

mod watched;

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use parking_lot::Mutex;
use persister::{Parts, PersisterConfig};
use shared::{
    broker::{
        Accepted, Broker, Inbound,
        memory::{Memory, MemoryBroker},
        sequence::Limits,
    },
    domain::{
        Body, ClientMessageId, ConversationId, Direction, Message, MessageId, MessageKind, NodeId, Partition,
        Seq, UserId,
    },
    log::{Log, memory::MemoryLog},
    publisher::Publisher,
    record::Payload,
    store::{HistoryRange, Store, sqlite::SqliteStore},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use deploy::eventually;
pub use watched::{Watcher, watched};

/// Few, so that a partition is met by more than one conversation.
pub const PARTITIONS: u16 = 4;
const DATABASE: &str = "starling.db";
/// The conversations that the tests use.
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

pub fn conversation(name: &str) -> ConversationId {
    ConversationId::parse(name).unwrap()
}

pub fn partition(name: &str) -> Partition {
    Partition::of(&conversation(name), PARTITIONS)
}

/// What alice says as her `n`-th message: the number itself.
pub fn payload(name: &str, n: usize) -> Payload {
    let sender = UserId::parse("alice").unwrap();
    let client_id = ClientMessageId::parse(&format!("m-{n}")).unwrap();
    Payload {
        id: MessageId::derived(&conversation(name), &sender, &client_id),
        sender,
        client_id: Some(client_id),
        reply_to: None,
        kind: MessageKind::TEXT,
        body: Body::from_json(n.to_string()),
    }
}

pub fn bodies(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|message| String::from_utf8(message.body.as_bytes().to_vec()).unwrap()).collect()
}

pub struct Place {
    pub memory: Arc<Memory>,
    pub log: Arc<dyn Log>,
    pub store: Arc<dyn Store>,
    pub publisher: Arc<Publisher>,
    dir: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&dir.path().join(DATABASE)).unwrap());
        let memory = Memory::new(PARTITIONS, Limits::default());
        let broker = Arc::new(MemoryBroker::new(Arc::clone(&memory)));
        let publisher = Arc::new(Publisher::new(broker, Arc::clone(&store)));
        let log = Arc::new(MemoryLog::new(Arc::clone(&memory)));
        Self { memory, log, store, publisher, dir }
    }

    /// The file of the store.
    pub fn database(&self) -> PathBuf {
        self.dir.path().join(DATABASE)
    }

    pub fn parts(&self, config: PersisterConfig, log: Arc<dyn Log>) -> Parts {
        Parts { log, store: Arc::clone(&self.store), publisher: Arc::clone(&self.publisher), config }
    }

    pub fn start(&self, name: &str, log: Arc<dyn Log>) -> Running {
        let shutdown = CancellationToken::new();
        let parts = self.parts(PersisterConfig::new(name), log);
        Running { task: tokio::spawn(persister::run(parts, shutdown.clone())), shutdown }
    }

    pub async fn publish(&self, name: &str, n: usize) -> Accepted {
        self.publisher.publish(&conversation(name), payload(name, n), false).await.unwrap()
    }

    pub fn node(&self, name: &str) -> Node {
        let broker = MemoryBroker::new(Arc::clone(&self.memory));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ear = Arc::clone(&heard);
        broker.start(&NodeId::parse(name).unwrap(), Arc::new(move |inbound| ear.lock().push(inbound)));
        Node { _broker: broker, heard }
    }

    pub async fn history(&self, name: &str) -> Vec<Message> {
        let range = HistoryRange {
            conversation: conversation(name),
            after: Seq(0),
            before: None,
            limit: 1_000,
            direction: Direction::Forward,
        };
        self.store.messages(&range).await.unwrap()
    }

    pub async fn count(&self) -> usize {
        let mut count = 0;
        for name in NAMES {
            count += self.history(name).await.len();
        }
        count
    }

    pub async fn backlog(&self) -> u64 {
        self.log.backlog().await.unwrap().iter().map(|backlog| backlog.entries).sum()
    }

    /// Waits until so many messages are stored and nothing is left to do, and makes sure that no more were stored.
    pub async fn is_stored_and_log_is_empty(&self, messages: usize) {
        eventually(async || (self.count().await >= messages && self.backlog().await == 0).then_some(()))
            .await;
        assert_eq!(self.count().await, messages);
    }
}

/// A node that notes what it hears.
pub struct Node {
    _broker: MemoryBroker,
    heard: Arc<Mutex<Vec<Inbound>>>,
}

impl Node {
    pub async fn hears(&self, wanted: impl Fn(&Inbound) -> bool) {
        eventually(async || self.heard.lock().iter().any(&wanted).then_some(())).await;
    }
}

pub struct Running {
    task: JoinHandle<bool>,
    shutdown: CancellationToken,
}

impl Running {
    pub async fn stop(self) -> bool {
        self.shutdown.cancel();
        self.task.await.unwrap()
    }

    pub async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

/// Notes which partitions the one reader of a log has.
#[derive(Default)]
pub struct Assigned(Mutex<BTreeSet<Partition>>);

impl Assigned {
    pub fn over(log: &Arc<dyn Log>) -> (Arc<dyn Log>, Arc<Self>) {
        let assigned = Arc::<Self>::default();
        (watched(Arc::clone(log), &assigned), assigned)
    }

    pub fn now(&self) -> BTreeSet<Partition> {
        self.0.lock().clone()
    }
}

impl Watcher for Assigned {
    fn assigned(&self, _: usize, partitions: &[Partition]) {
        *self.0.lock() = partitions.iter().copied().collect();
    }
}
