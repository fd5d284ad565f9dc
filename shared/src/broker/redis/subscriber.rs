//! The subscriber connections: everything that reaches a node comes in here.
//!
//! What arrives is handed to the sink by the very task that reads the socket; there is no queue in between. A connection
//! is not trusted: after a while without traffic it has to prove that what is published reaches it, by an empty message
//! to the node itself that goes out over the command connection. Silence means a new connection, so a link that is half
//! open, or a subscriber that Redis has forgotten, is noticed.
//!
//! There is one [`Line`] for each server that has partitions. When one is lost, or slots have moved, the others stay; the
//! node is told that it was disconnected and is connected, so that it asks for everything anew and compares its positions:
//! a conversation counts as confirmed only where its slot is now.
//!
//! redis-rs keeps no subscriptions alive, and nothing here relies on its bookkeeping (it may take a `sunsubscribe` that
//! nobody has asked for as the answer to something else): only confirmations that Redis sends count, asked for or not, and
//! after a change the caller asks for everything anew.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use parking_lot::{Mutex, RwLock};
use redis::{ConnectionInfo, RedisResult, Value, aio::MultiplexedConnection};
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    RedisConfig,
    connection::{self, Backoff, Server},
    keys::Keys,
    line::{Ear, Line},
    metric,
    route::{Commands, Routes},
};
use crate::{
    broker::{BrokerError, Inbound, Sink},
    domain::{ConversationId, NodeId, Partition},
};

/// How many channels one command names; all of them in one slot, as Redis Cluster asks.
const CHANNELS_PER_COMMAND_MAX: usize = 256;
/// How often a Redis Cluster is asked who has which slots, though nothing has happened.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// Keeps the subscriber connections from [`Subscriber::start`] on.
pub(super) struct Subscriber {
    shared: Arc<Shared>,
    task: Mutex<Option<AbortOnDropHandle<()>>>,
}

struct Shared {
    config: RedisConfig,
    keys: Arc<Keys>,
    commands: Arc<Commands>,
    /// For each partition the connection to its server.
    present: RwLock<HashMap<Partition, MultiplexedConnection>>,
    /// Something was lost, or has moved.
    changed: Arc<Notify>,
}

impl Subscriber {
    pub fn new(config: &RedisConfig, keys: Arc<Keys>, commands: Arc<Commands>) -> Self {
        let (present, changed) = (RwLock::default(), Arc::default());
        let shared = Shared { config: config.clone(), keys, commands, present, changed };
        Self { shared: Arc::new(shared), task: Mutex::default() }
    }

    /// Starts the connections on the runtime of the caller. Starting again replaces those before.
    pub fn start(&self, node: &NodeId, sink: Sink) {
        let lines = Lines {
            shared: Arc::clone(&self.shared),
            node: node.clone(),
            sink,
            links: BTreeMap::new(),
            is_up: false,
        };
        *self.task.lock() = Some(AbortOnDropHandle::new(tokio::spawn(lines.keep())));
    }

    pub async fn close(&self) {
        let task = self.task.lock().take();
        if let Some(task) = task {
            task.abort();
            // It ends by being aborted, which is no news.
            let _ = task.await;
        }
        self.shared.present.write().clear();
    }

    /// Sends `command` for the channels of these conversations. Their confirmations go to the sink.
    pub async fn send(&self, command: &str, conversations: &[ConversationId]) -> Result<(), BrokerError> {
        let Shared { keys, present, .. } = &*self.shared;
        let mut by_partition: BTreeMap<Partition, Vec<String>> = BTreeMap::new();
        for conversation in conversations {
            let channels = by_partition.entry(keys.partition(conversation)).or_default();
            channels.push(keys.channel(conversation));
        }
        let chunks = by_partition.iter().flat_map(|(partition, channels)| {
            let connection = present.read().get(partition).cloned();
            channels.chunks(CHANNELS_PER_COMMAND_MAX).map(move |channels| (connection.clone(), channels))
        });
        let asked = chunks.map(|(connection, channels)| async move {
            let none = || BrokerError::Unavailable("no subscriber connection".to_owned());
            ask(connection.ok_or_else(none)?, command, channels).await?;
            Ok(())
        });
        // One server's refusal is no reason not to ask the others.
        let result: Result<(), BrokerError> = join_all(asked).await.into_iter().collect();
        if result.is_err() {
            // Perhaps a slot is elsewhere.
            self.shared.changed.notify_one();
        }
        result
    }
}

/// Sends one command and waits for its confirmation, or its refusal.
async fn ask(
    mut connection: MultiplexedConnection,
    command: &str,
    channels: &[String],
) -> RedisResult<Value> {
    redis::cmd(command).arg(channels).query_async(&mut connection).await
}

/// The connection to one server, and what keeps an eye on it.
struct Link {
    line: Arc<Line>,
    connection: MultiplexedConnection,
    /// What its server has.
    partitions: Vec<Partition>,
    _watch: AbortOnDropHandle<()>,
}

/// The task that owns the connections of a node.
struct Lines {
    shared: Arc<Shared>,
    node: NodeId,
    sink: Sink,
    /// By the addresses of the servers.
    links: BTreeMap<String, Link>,
    /// Whether the node was told that it is connected.
    is_up: bool,
}

impl Lines {
    async fn keep(mut self) {
        let mut backoff = Backoff::default();
        let mut looked: Option<Instant> = None;
        loop {
            if self.drop_lost() {
                looked = None;
                backoff.pause().await;
            }
            let is_whole = match self.shared.commands.routes().await {
                Ok(mut routes) => {
                    if looked.is_none_or(|looked| looked.elapsed() >= LOOK_INTERVAL) {
                        self.shared.commands.refresh(&routes).await;
                        routes = self.shared.commands.routes().await.unwrap_or(routes);
                        looked = Some(Instant::now());
                    }
                    self.follow(&routes).await
                }
                Err(error) => {
                    tracing::warn!(%error, "nobody says where subscriptions are to go");
                    false
                }
            };
            if is_whole {
                backoff.reset();
                let is_told = timeout(LOOK_INTERVAL, self.shared.changed.notified()).await.is_ok();
                if is_told && !self.links.values().any(|link| link.line.is_lost()) {
                    looked = None;
                }
            } else {
                looked = None;
                backoff.pause().await;
            }
        }
    }

    /// Gives up what is lost. The rest stays, but what was confirmed where, the node no longer knows.
    fn drop_lost(&mut self) -> bool {
        self.drop_links(|server, link| {
            let is_lost = link.line.is_lost();
            if is_lost {
                tracing::warn!(server, "a subscriber connection is lost");
                metric::reconnects("subscriber");
            }
            is_lost
        })
    }

    fn drop_links(&mut self, is_over: impl Fn(&str, &Link) -> bool) -> bool {
        let before = self.links.len();
        self.links.retain(|server, link| {
            let is_over = is_over(server, link);
            if is_over {
                link.line.close();
            }
            !is_over
        });
        let has_dropped = self.links.len() < before;
        if has_dropped {
            self.tell(&[]);
        }
        has_dropped
    }

    /// Brings the connections in line with who has which partitions now. True when nothing is missing.
    async fn follow(&mut self, routes: &Routes<Server>) -> bool {
        let wanted = self.wanted(routes);
        let are_all_owned = wanted.values().map(|(_, partitions)| partitions.len()).sum::<usize>()
            == usize::from(self.shared.keys.partitions());
        self.drop_links(|server, _| !wanted.contains_key(server));
        let mut has_changed = false;
        for link in self.links.values_mut() {
            let gone = link.line.take_gone();
            has_changed |= link.partitions.extract_if(.., |partition| gone.contains(partition)).count() > 0;
        }
        let this = &*self;
        let followed = join_all(wanted.into_iter().map(|(name, (server, partitions))| async move {
            let link = match this.links.get(&name) {
                Some(link) if link.partitions == partitions => return (name, Ok(None)),
                Some(link) => this.extend(link, &partitions).await.map(|()| (None, partitions)),
                None => this.connect(server, &partitions).await.map(|opened| (Some(opened), partitions)),
            };
            (name, link.map(Some))
        }));
        let mut is_whole = are_all_owned;
        let mut opened = Vec::new();
        for (name, result) in followed.await {
            match result {
                Ok(None) => {}
                Ok(Some((connected, partitions))) => {
                    has_changed = true;
                    opened.extend(connected.as_ref().map(|(line, _)| Arc::clone(line)));
                    self.set(&name, connected, partitions);
                }
                Err(error) => {
                    is_whole = false;
                    tracing::warn!(server = name, %error, "no subscriber connection");
                }
            }
        }
        if has_changed {
            self.tell(&opened);
        }
        is_whole
    }

    /// For each server that has any partitions its address and these.
    fn wanted(&self, routes: &Routes<Server>) -> BTreeMap<String, (ConnectionInfo, Vec<Partition>)> {
        let keys = &self.shared.keys;
        let mut wanted: BTreeMap<String, (ConnectionInfo, Vec<Partition>)> = BTreeMap::new();
        for partition in Partition::all(keys.partitions()) {
            let Some(index) = routes.index(keys.slot(partition)) else { continue };
            let server = routes.address(index);
            let entry = wanted.entry(server.addr().to_string());
            entry.or_insert_with(|| (server.clone(), Vec::new())).1.push(partition);
        }
        wanted
    }

    /// Notes what a server has, and the connection to it, if it is new.
    fn set(
        &mut self,
        server: &str,
        connected: Option<(Arc<Line>, MultiplexedConnection)>,
        partitions: Vec<Partition>,
    ) {
        if let Some((line, connection)) = connected {
            let watched = watch(Arc::clone(&self.shared), Arc::clone(&line), self.node.clone());
            let watch = AbortOnDropHandle::new(tokio::spawn(watched));
            self.links
                .insert(server.to_owned(), Link { line, connection, partitions: Vec::new(), _watch: watch });
        }
        if let Some(link) = self.links.get_mut(server) {
            link.line.set_probe(partitions[0]);
            link.partitions = partitions;
        }
    }

    /// Tells the node that whatever it has subscribed to has to be asked for anew.
    fn tell(&mut self, opened: &[Arc<Line>]) {
        let present = self
            .links
            .values()
            .flat_map(|link| link.partitions.iter().map(|&partition| (partition, link.connection.clone())));
        *self.shared.present.write() = present.collect();
        if std::mem::replace(&mut self.is_up, !self.links.is_empty()) {
            (self.sink)(Inbound::Disconnected);
        }
        if self.is_up {
            Line::open(opened, &self.sink, || (self.sink)(Inbound::Connected));
        }
    }

    /// Connects to a server, and subscribes to what every node listens to in its partitions.
    async fn connect(
        &self,
        server: ConnectionInfo,
        partitions: &[Partition],
    ) -> RedisResult<(Arc<Line>, MultiplexedConnection)> {
        let line = Line::new(Arc::clone(&self.shared.keys), Arc::clone(&self.shared.changed));
        let settings =
            connection::timeouts(self.shared.config.response_timeout).set_push_sender(Ear(Arc::clone(&line)));
        let client = connection::client(server)?;
        let connection = client.get_multiplexed_async_connection_with_config(&settings).await?;
        // What arrives before all of these are confirmed is dropped: to its receiver, this connection is not up yet.
        self.listen(&connection, partitions).await?;
        Ok((line, connection))
    }

    /// Subscribes to the same in partitions that the server has got.
    async fn extend(&self, link: &Link, partitions: &[Partition]) -> RedisResult<()> {
        let new = partitions.iter().copied().filter(|partition| !link.partitions.contains(partition));
        self.listen(&link.connection, &new.collect::<Vec<_>>()).await
    }

    async fn listen(&self, connection: &MultiplexedConnection, partitions: &[Partition]) -> RedisResult<()> {
        let keys = &self.shared.keys;
        let asked = partitions.iter().map(|&partition| async move {
            let own = [keys.stored(partition), keys.everyone(partition), keys.node(partition, &self.node)];
            ask(connection.clone(), "SSUBSCRIBE", &own).await
        });
        join_all(asked).await.into_iter().try_for_each(|confirmed| confirmed.map(drop))
    }
}

/// Returns when the connection is lost, or has failed to prove itself.
async fn watch(shared: Arc<Shared>, line: Arc<Line>, node: NodeId) {
    let RedisConfig { probe_after, probe_timeout, .. } = shared.config;
    loop {
        if line.is_lost_within(probe_after).await {
            return;
        }
        if line.has_heard() {
            continue;
        }
        let partition = line.probe();
        let mut command = redis::cmd("SPUBLISH");
        command.arg(shared.keys.node(partition, &node)).arg("");
        let command = &command;
        let sent = shared.commands.run(shared.keys.slot(partition), |mut held| async move {
            command.query_async::<u64>(&mut held.connection).await
        });
        // Whether or not it could be sent, what counts is whether anything comes back.
        let sent = async { matches!(timeout(probe_timeout, sent).await, Ok(Ok(_))) };
        let (sent, is_lost) = tokio::join!(sent, line.is_lost_within(probe_timeout));
        if is_lost {
            return;
        }
        if !line.has_heard() {
            metric::probe_failures();
            tracing::warn!(sent, "a subscriber connection does not prove that it is alive");
            line.lose();
            return;
        }
    }
}
