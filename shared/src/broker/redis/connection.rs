//! The command connection to a server, and which run of it the connection is attached to.
//!
//! A publish is fenced by the server run that the partition was opened for. A run ends when the process ends, and also
//! when a primary becomes a replica, since it then takes over another server's data; so its name is the process's
//! `run_id` with the replication id, which is new after each promotion. (It is also new when a server gets its first
//! replica, or has had none for an hour. Then partitions get an epoch that they did not need, which harms nobody.)
//!
//! A connection and the run that was asked for over it are one immutable value, [`Attached`]: a TCP connection ends with
//! the process at its other end, so whatever is sent over this one is answered by the very process that was asked, or
//! not at all. Nothing here ever reconnects beneath that value. A client that does so silently would go on naming
//! the old run to a server that may have lost data, and the fence, which compares that name with the one in the data,
//! would let it pass. When a connection breaks, requests in flight fail, and only after the run was asked for over a new
//! connection does the next request go out.
//!
//! A demotion does not break connections by itself (Sentinel does it), so every [`CONFIRM_INTERVAL`], and before a
//! partition is opened, the run is asked for again. What remains is a primary that is demoted, loses messages, and is
//! promoted again, all within one interval and without a write in between, which would be refused.
//!
//! So Redis must be reached directly or through a proxy that gives each client a server connection of its own (HAProxy
//! does); one that shares server connections would break the rule.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::RngExt;
use redis::{
    AsyncConnectionConfig, ConnectionInfo, ErrorKind, ProtocolVersion, PushInfo, PushKind, RedisError,
    RedisResult, ServerErrorKind,
    aio::{AsyncPushSender, MultiplexedConnection, SendError},
    io::tcp::TcpSettings,
};
use tokio::{sync::watch, time::timeout};
use tokio_util::task::AbortOnDropHandle;

use super::{RedisConfig, metric, route::Way};
use crate::broker::BrokerError;

/// Longest wait for a TCP connection and its greeting.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How often the run at the other end is asked for again.
const CONFIRM_INTERVAL: Duration = Duration::from_secs(1);
/// Pauses between two attempts to connect, in milliseconds; each is drawn from half to the whole of its length.
const BACKOFF_MS_MIN: u64 = 50;
const BACKOFF_MS_MAX: u64 = 2_000;

/// Pauses that grow, and differ from node to node.
#[derive(Debug)]
pub(crate) struct Backoff(u64);

impl Default for Backoff {
    fn default() -> Self {
        Self(BACKOFF_MS_MIN)
    }
}

impl Backoff {
    pub async fn pause(&mut self) {
        let pause = rand::rng().random_range(self.0 / 2..=self.0);
        self.0 = (self.0 * 2).min(BACKOFF_MS_MAX);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

/// A client whose connections send at once and speak RESP3.
pub(crate) fn client(server: ConnectionInfo) -> RedisResult<redis::Client> {
    let settings = server.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    redis::Client::open(
        server.set_redis_settings(settings).set_tcp_settings(TcpSettings::default().set_nodelay(true)),
    )
}

pub(crate) fn timeouts(response: Duration) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(response))
}

impl From<RedisError> for BrokerError {
    fn from(error: RedisError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// A connection, and the server run at its other end.
struct Attached {
    connection: MultiplexedConnection,
    run: String,
    generation: u64,
}

type Slot = watch::Sender<Option<Arc<Attached>>>;

/// Keeps one command connection to one server.
pub(crate) struct Server {
    attached: Arc<Slot>,
    /// Why the first attempt to connect failed.
    refusal: Option<String>,
    _keeper: AbortOnDropHandle<()>,
}

/// The present connection, for one request.
pub(crate) struct Held {
    pub connection: MultiplexedConnection,
    attached: Arc<Attached>,
}

impl Held {
    /// The server run at the other end.
    pub fn run(&self) -> &str {
        &self.attached.run
    }

    /// Makes sure that the server at the other end is still in the run that it was in.
    ///
    /// # Errors
    /// When it is not; the connection is then of no use any more.
    pub async fn confirm(&mut self) -> RedisResult<()> {
        if ask_run(&mut self.connection).await? == self.attached.run {
            Ok(())
        } else {
            Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server was demoted or promoted").into())
        }
    }
}

impl Server {
    /// Whether there is a connection at the moment.
    pub fn is_attached(&self) -> bool {
        self.attached.borrow().is_some()
    }

    /// Why there was no connection at first.
    pub fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }
}

impl Way for Server {
    type Held = Held;
    /// The generation of the connection.
    type Rest = u64;

    /// Connects. When the server does not answer now, it is tried for ever.
    async fn open(config: &RedisConfig, server: ConnectionInfo) -> RedisResult<Self> {
        let keeper = Keeper {
            client: client(server)?,
            response_timeout: config.response_timeout,
            attached: Arc::new(watch::Sender::new(None)),
            generation: AtomicU64::new(0),
        };
        let refusal = keeper.attach().await.err().map(|error| error.to_string());
        let attached = Arc::clone(&keeper.attached);
        Ok(Self { attached, refusal, _keeper: AbortOnDropHandle::new(tokio::spawn(keeper.keep())) })
    }

    async fn hold(&self) -> RedisResult<(Held, u64)> {
        let held = hold(&self.attached)?;
        let generation = held.attached.generation;
        Ok((held, generation))
    }

    /// A connection that proved to be of no use is dropped.
    fn give_back(&self, generation: u64, failure: Option<&RedisError>) {
        if failure.is_some_and(is_lost) {
            detach(&self.attached, generation);
        }
    }
}

fn hold(slot: &Slot) -> RedisResult<Held> {
    let attached = slot.borrow().clone();
    let attached =
        attached.ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "not connected to Redis"))?;
    Ok(Held { connection: attached.connection.clone(), attached })
}

/// The run of the server at the other end.
///
/// # Errors
/// When it is a replica: nothing can be published there.
async fn ask_run(connection: &mut MultiplexedConnection) -> RedisResult<String> {
    let info: String = redis::cmd("INFO").arg(&["server", "replication"]).query_async(connection).await?;
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    match (field("run_id"), field("master_replid"), field("role")) {
        (Some(run), Some(replication), Some("master")) => Ok(format!("{run}:{replication}")),
        (_, _, Some("slave")) => Err(io::Error::other("the server is a replica").into()),
        _ => Err((ErrorKind::UnexpectedReturnType, "INFO names no run").into()),
    }
}

/// Whether the connection is of no use any more, and not just the request. A timeout counts: a link that is half open
/// says nothing else. So does a server that has become a replica, or that still loads: the address may lead elsewhere.
pub(crate) fn is_lost(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Io | ErrorKind::Parse => true,
        ErrorKind::Server(kind) => {
            matches!(
                kind,
                ServerErrorKind::ReadOnly | ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown
            )
        }
        _ => false,
    }
}

fn detach(slot: &Slot, generation: u64) {
    slot.send_if_modified(|attached| {
        attached.take_if(|attached| attached.generation == generation).is_some()
    });
}

/// Hears of the connection's end even while no request is under way.
struct EndOf {
    slot: Arc<Slot>,
    generation: u64,
}

impl AsyncPushSender for EndOf {
    fn send(&self, info: PushInfo) -> Result<(), SendError> {
        if info.kind == PushKind::Disconnection {
            detach(&self.slot, self.generation);
        }
        Ok(())
    }
}

struct Keeper {
    client: redis::Client,
    response_timeout: Duration,
    attached: Arc<Slot>,
    generation: AtomicU64,
}

impl Keeper {
    async fn keep(self) {
        let mut watched = self.attached.subscribe();
        loop {
            while timeout(CONFIRM_INTERVAL, watched.wait_for(Option::is_none)).await.is_err() {
                let Ok(mut held) = hold(&self.attached) else { break };
                if held.confirm().await.is_err_and(|error| is_lost(&error)) {
                    detach(&self.attached, held.attached.generation);
                }
            }
            metric::reconnects("command");
            let mut backoff = Backoff::default();
            let mut is_told = false;
            loop {
                backoff.pause().await;
                match self.attach().await {
                    Ok(()) => break,
                    // A primary of a Redis Cluster that has become a replica stays one for long.
                    Err(error) if is_told => tracing::debug!(%error, "Redis does not answer"),
                    Err(error) => tracing::warn!(%error, "Redis does not answer"),
                }
                is_told = true;
            }
        }
    }

    async fn attach(&self) -> RedisResult<()> {
        let generation = self.generation.fetch_add(1, Ordering::Relaxed);
        let end = EndOf { slot: Arc::clone(&self.attached), generation };
        let settings = timeouts(self.response_timeout).set_push_sender(end);
        let mut connection = self.client.get_multiplexed_async_connection_with_config(&settings).await?;
        let run = ask_run(&mut connection).await?;
        tracing::info!(run, "attached to Redis");
        self.attached.send_replace(Some(Arc::new(Attached { connection, run, generation })));
        Ok(())
    }
}
