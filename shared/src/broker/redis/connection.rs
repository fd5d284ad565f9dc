//! The command connection, and which run of which server it is attached to.
//!
//! A publish is fenced by the server's run id, which is new whenever a Redis server starts and differs from server to
//! server. A connection and the run id that was read over it are one immutable value, [`Attached`]: a TCP connection
//! ends with the process at its other end, so whatever is sent over this one is answered by the very run that was
//! asked for its id, or not at all. Nothing here ever reconnects beneath that value. A client that does so silently
//! would go on naming the old run to a server that may have lost data, and the fence, which compares that name with
//! the one in the data, would let it pass. When a connection breaks, requests in flight fail, and only after the run
//! id was read over a new connection does the next request go out.
//!
//! So Redis must be reached directly or through a proxy that gives each client a server connection of its own (HAProxy
//! does); one that shares server connections would break the rule.

use std::{
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
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::{RedisConfig, metric};
use crate::broker::BrokerError;

/// Longest wait for a TCP connection and its greeting.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
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
        let attached = self.attached.borrow().clone();
        let attached =
            attached.ok_or_else(|| BrokerError::Unavailable("not connected to Redis".to_owned()))?;
        let result = request(&mut attached.connection.clone(), &attached.run).await;
        if let Err(error) = &result
            && is_lost(error)
        {
            detach(&self.attached, attached.generation);
        }
        Ok(result?)
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
            // The sender is a field of this very value, so it is still there.
            let _ = watched.wait_for(Option::is_none).await;
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
        let info: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await?;
        let run = info.lines().find_map(|line| line.strip_prefix("run_id:"));
        let run = run.ok_or((ErrorKind::UnexpectedReturnType, "INFO server has no run_id"))?.to_owned();
        tracing::info!(run, "attached to Redis");
        self.attached.send_replace(Some(Arc::new(Attached { connection, run, generation })));
        Ok(())
    }
}
