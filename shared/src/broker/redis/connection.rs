//! The command connection, and which run of which server it is attached to.
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
    AsyncConnectionConfig, ErrorKind, IntoConnectionInfo, ProtocolVersion, PushInfo, PushKind, RedisError,
    RedisResult, ServerErrorKind,
    aio::{AsyncPushSender, MultiplexedConnection, SendError},
    io::tcp::TcpSettings,
};
use tokio::{sync::watch, time::timeout};
use tokio_util::task::AbortOnDropHandle;

use super::{RedisConfig, metric};
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
pub(crate) fn client(url: &str) -> RedisResult<redis::Client> {
    let info = url.into_connection_info()?;
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    redis::Client::open(
        info.set_redis_settings(settings).set_tcp_settings(TcpSettings::default().set_nodelay(true)),
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
pub(crate) struct Attached {
    pub connection: MultiplexedConnection,
    pub run: String,
    generation: u64,
}

type Slot = watch::Sender<Option<Arc<Attached>>>;

/// Keeps one command connection.
pub(crate) struct Commands {
    attached: Arc<Slot>,
    _keeper: AbortOnDropHandle<()>,
}

impl Commands {
    /// Connects.
    ///
    /// # Errors
    /// When Redis does not answer now; later it is tried for ever.
    pub async fn connect(config: &RedisConfig) -> RedisResult<Self> {
        let keeper = Keeper {
            client: client(&config.url)?,
            response_timeout: config.response_timeout,
            attached: Arc::new(watch::Sender::new(None)),
            generation: AtomicU64::new(0),
        };
        keeper.attach().await?;
        let attached = Arc::clone(&keeper.attached);
        Ok(Self { attached, _keeper: AbortOnDropHandle::new(tokio::spawn(keeper.keep())) })
    }

    /// Runs one request over the present connection.
    ///
    /// # Errors
    /// When there is none, or it failed: then the outcome is unknown. A connection that proved to be of no use is dropped.
    pub async fn run<T>(
        &self,
        request: impl AsyncFnOnce(&mut MultiplexedConnection, &str) -> RedisResult<T>,
    ) -> Result<T, BrokerError> {
        run_on(&self.attached, request).await
    }
}

async fn run_on<T>(
    slot: &Slot,
    request: impl AsyncFnOnce(&mut MultiplexedConnection, &str) -> RedisResult<T>,
) -> Result<T, BrokerError> {
    let attached = slot.borrow().clone();
    let attached = attached.ok_or_else(|| BrokerError::Unavailable("not connected to Redis".to_owned()))?;
    let result = request(&mut attached.connection.clone(), &attached.run).await;
    if let Err(error) = &result
        && is_lost(error)
    {
        detach(slot, attached.generation);
    }
    Ok(result?)
}

/// Makes sure that the server at the other end is still in the run that it was in.
///
/// # Errors
/// When it is not; the connection is then of no use any more.
pub(crate) async fn confirm(connection: &mut MultiplexedConnection, run: &str) -> RedisResult<()> {
    if ask_run(connection).await? == run {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server was demoted or promoted").into())
    }
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
fn is_lost(error: &RedisError) -> bool {
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
                // An error has dropped the connection already.
                let _ = run_on(&self.attached, async |connection, run| confirm(connection, run).await).await;
            }
            metric::reconnects("command");
            let mut backoff = Backoff::default();
            loop {
                backoff.pause().await;
                match self.attach().await {
                    Ok(()) => break,
                    Err(error) => tracing::warn!(%error, "Redis does not answer"),
                }
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
