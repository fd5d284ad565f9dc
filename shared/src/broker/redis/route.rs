//! The way of a request to the server that has its slot.
//!
//! One [`Router`] keeps one [`Way`] for each server: the connection for publishes, a pool, or a connection of its owner's
//! own. On a single server there is one, and nothing here adds to a request. In a Redis Cluster slots move, and primaries
//! fail. A server that does not have the slot says so *before* it does anything, so the request is then repeated: at once
//! where the slot is now, and while the slot is on its way (`TRYAGAIN`, and `ASK`, for the keys of a script are never all
//! at one end then) with pauses, for [`REPEAT_TIMEOUT`] at most. Everything else is up to the caller: what is lost with a
//! connection may have been done.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use deadpool_redis::PoolError;
use futures_util::future::join_all;
use parking_lot::RwLock;
use rand::RngExt;
use redis::{
    ConnectionInfo, ErrorKind, RedisError, RedisResult, ServerErrorKind, aio::MultiplexedConnection,
};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, sleep_until},
};

use super::{
    RedisConfig,
    connection::{self, Server, is_lost},
    keys::Slot,
    topology::{self, Address, Owners, Topology},
};
use crate::broker::BrokerError;

/// How long a request is repeated that its slot's server has not taken.
const REPEAT_TIMEOUT: Duration = Duration::from_secs(2);
/// Pauses between repetitions, in milliseconds: drawn anew each time, lest all come back at once.
const REPEAT_PAUSE_MS_MIN: u64 = 10;
const REPEAT_PAUSE_MS_MAX: u64 = 100;
/// Shortest time between two discoveries.
const DISCOVERY_PAUSE: Duration = Duration::from_millis(100);

/// Leads to one server.
pub(crate) trait Way: Sized + Send + Sync + 'static {
    /// What a request needs.
    type Held: Send;
    /// What is given back when the request has ended.
    type Rest: Send;

    /// Prepares the way; `server` may be away.
    ///
    /// # Errors
    /// When there can never be one.
    fn open(config: &RedisConfig, server: ConnectionInfo) -> impl Future<Output = RedisResult<Self>> + Send;

    /// # Errors
    /// When the server cannot be reached now.
    fn hold(&self) -> impl Future<Output = RedisResult<(Self::Held, Self::Rest)>> + Send;

    /// Ends a request; `failure` says how it failed.
    fn give_back(&self, rest: Self::Rest, failure: Option<&RedisError>);
}

/// The connections for publishes.
pub(crate) type Commands = Router<Server>;
/// A few connections to each server, for what is neither a publish nor a subscription nor a wait.
pub(crate) type Pool = Router<deadpool_redis::Pool>;

/// Knows where each slot is, and the way there.
pub(crate) struct Router<W> {
    config: RedisConfig,
    seeds: Vec<ConnectionInfo>,
    routes: RwLock<Option<Arc<Routes<W>>>>,
    /// When the last discovery ended.
    discovery: Mutex<Option<Instant>>,
}

/// Where everything is, as it was last found.
pub(crate) struct Routes<W> {
    ways: Vec<Arc<W>>,
    addresses: Vec<ConnectionInfo>,
    owners: Option<Owners>,
}

impl<W> Routes<W> {
    pub fn is_cluster(&self) -> bool {
        self.owners.is_some()
    }

    /// Which of the servers has the slot; `None` while nobody has it.
    pub fn index(&self, slot: Slot) -> Option<usize> {
        self.owners.as_ref().map_or(Some(0), |owners| owners.of(slot))
    }

    /// The server that has the slot.
    pub fn way(&self, slot: Slot) -> Option<&Arc<W>> {
        self.ways.get(self.index(slot)?)
    }

    /// How to connect to the server of this index.
    pub fn address(&self, index: usize) -> &ConnectionInfo {
        &self.addresses[index]
    }
}

/// What to do about a failure.
enum Remedy {
    /// Nothing has happened: another try may find the slot.
    Again,
    /// The server may have gone.
    Discover,
    /// It is the request's own.
    Nothing,
}

impl Remedy {
    fn of(error: &RedisError) -> Self {
        match error.kind() {
            // A transaction is aborted when one of its commands was sent elsewhere.
            ErrorKind::Server(
                ServerErrorKind::Moved
                | ServerErrorKind::Ask
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::ExecAbort,
            ) => Self::Again,
            _ if is_lost(error) => Self::Discover,
            _ => Self::Nothing,
        }
    }
}

impl<W: Way> Router<W> {
    /// Prepares; connections are made when they are first needed.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn new(config: &RedisConfig) -> RedisResult<Self> {
        let seeds = topology::seeds(&config.url)?;
        Ok(Self { config: config.clone(), seeds, routes: RwLock::default(), discovery: Mutex::default() })
    }

    /// The present routes; the first time they are discovered.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn routes(&self) -> RedisResult<Arc<Routes<W>>> {
        if let Some(routes) = &*self.routes.read() {
            return Ok(Arc::clone(routes));
        }
        let asked = Instant::now();
        let mut discovery = self.discovery.lock().await;
        if let Some(routes) = &*self.routes.read() {
            return Ok(Arc::clone(routes));
        }
        if discovery.is_some_and(|ended| ended >= asked) {
            return Err(std::io::Error::new(std::io::ErrorKind::NotConnected, "Redis does not answer").into());
        }
        let routes = self.discover(None).await;
        *discovery = Some(Instant::now());
        routes
    }

    /// Finds out where everything is now, unless somebody else has just done so.
    pub async fn refresh(&self, seen: &Arc<Routes<W>>) {
        if !seen.is_cluster() {
            return;
        }
        let asked = Instant::now();
        let mut discovery = self.discovery.lock().await;
        if discovery.is_some_and(|ended| ended >= asked) || !self.is_present(seen) {
            return;
        }
        if let Some(ended) = *discovery {
            sleep_until(ended + DISCOVERY_PAUSE).await;
        }
        if let Err(error) = self.discover(Some(seen)).await {
            tracing::warn!(%error, "nobody says who has which slots");
        }
        *discovery = Some(Instant::now());
    }

    fn is_present(&self, seen: &Arc<Routes<W>>) -> bool {
        self.routes.read().as_ref().is_some_and(|present| Arc::ptr_eq(present, seen))
    }

    /// Discovers, and keeps the ways to those servers that are still there.
    async fn discover(&self, before: Option<&Arc<Routes<W>>>) -> RedisResult<Arc<Routes<W>>> {
        let known = before.and_then(|before| before.owners.as_ref());
        let owners = match topology::discover(&self.seeds, known).await? {
            Topology::Single => None,
            Topology::Cluster(owners) => Some(owners),
        };
        if known.is_some() && owners.is_none() {
            return Err((ErrorKind::UnexpectedReturnType, "the servers are no cluster any more").into());
        }
        let seed = &self.seeds[0];
        let addresses: Vec<ConnectionInfo> = match &owners {
            None => vec![seed.clone()],
            Some(owners) => owners.primaries.iter().map(|address| topology::at(seed, address)).collect(),
        };
        let kept = |address: &Address| {
            let before = before?;
            let index = before.owners.as_ref()?.primaries.iter().position(|known| known == address)?;
            before.ways.get(index).cloned()
        };
        let ways = join_all(addresses.iter().enumerate().map(async |(index, server)| {
            match owners.as_ref().and_then(|owners| kept(&owners.primaries[index])) {
                Some(way) => Ok(way),
                None => W::open(&self.config, server.clone()).await.map(Arc::new),
            }
        }));
        let ways = ways.await.into_iter().collect::<RedisResult<_>>()?;
        let routes = Arc::new(Routes { ways, addresses, owners });
        *self.routes.write() = Some(Arc::clone(&routes));
        Ok(routes)
    }

    /// Sends one request to the server that has the slot.
    ///
    /// # Errors
    /// When there is no connection, or it failed: then the outcome is unknown.
    pub async fn run<T, F: Future<Output = RedisResult<T>>>(
        &self,
        slot: Slot,
        request: impl Fn(W::Held) -> F,
    ) -> Result<T, BrokerError> {
        let mut attempts = Attempts { router: self, since: None };
        loop {
            let routes = self.routes().await?;
            let result = match routes.way(slot) {
                Some(way) => run_on(&**way, &request).await,
                None => Err(nobody()),
            };
            match result {
                Ok(answer) => return Ok(answer),
                Err(error) => attempts.after(error, &routes).await?,
            }
        }
    }

    /// Sends one request to each server, with those of `items` whose slots it has, and puts the answers together in the
    /// order of the items. `request` has to answer each item that it is given, in their order.
    pub async fn spread<'a, I, T, F: Future<Output = RedisResult<Vec<T>>>>(
        &self,
        items: &'a [I],
        slot: impl Fn(&I) -> Slot,
        request: impl Fn(W::Held, Vec<&'a I>) -> F,
    ) -> Spread<T> {
        let mut answers: Vec<Option<T>> = items.iter().map(|_| None).collect();
        let mut waiting: Vec<usize> = (0..items.len()).collect();
        let mut attempts = Attempts { router: self, since: None };
        let mut refusal = None;
        while !waiting.is_empty() {
            let routes = match self.routes().await {
                Ok(routes) => routes,
                Err(error) => return Spread { answers, refusal: Some(error.into()) },
            };
            let mut by_server: BTreeMap<Option<usize>, Vec<usize>> = BTreeMap::new();
            for index in waiting.drain(..) {
                by_server.entry(routes.index(slot(&items[index]))).or_default().push(index);
            }
            let (routes_now, request) = (&routes, &request);
            let asked = by_server.into_iter().map(|(server, indexes)| async move {
                let some: Vec<&'a I> = indexes.iter().map(|&index| &items[index]).collect();
                let result = match server.and_then(|server| routes_now.ways.get(server)) {
                    Some(way) => run_on(&**way, |held| request(held, some)).await,
                    None => Err(nobody()),
                };
                (result, indexes)
            });
            let mut failure = None;
            for (result, indexes) in join_all(asked).await {
                match result {
                    Ok(some) => indexes
                        .into_iter()
                        .zip(some)
                        .for_each(|(index, answer)| answers[index] = Some(answer)),
                    Err(error) if matches!(Remedy::of(&error), Remedy::Again) => {
                        waiting.extend(indexes);
                        failure = Some(error);
                    }
                    Err(error) => refusal = attempts.after(error, &routes).await.err(),
                }
            }
            if let Some(error) = failure
                && let Err(error) = attempts.after(error, &routes).await
            {
                return Spread { answers, refusal: Some(error) };
            }
        }
        Spread { answers, refusal }
    }
}

impl Commands {
    /// Connects.
    ///
    /// # Errors
    /// When Redis does not answer now; later it is tried for ever.
    pub async fn connect(config: &RedisConfig) -> Result<Self, BrokerError> {
        let commands = Self::new(config)?;
        let routes = commands.routes().await?;
        match routes.ways.iter().find_map(|server| server.refusal()) {
            // Of a cluster, the others can do their part.
            Some(refusal) if !routes.is_cluster() => Err(BrokerError::Unavailable(refusal.to_owned())),
            _ => Ok(commands),
        }
    }

    /// The first of these slots whose server is connected, for what any server can do.
    pub async fn reachable(&self, mut slots: impl Iterator<Item = Slot>) -> Option<usize> {
        let routes = self.routes().await.ok()?;
        slots.position(|slot| routes.way(slot).is_some_and(|server| server.is_attached()))
    }
}

/// What became of a request that went to several servers.
pub(crate) struct Spread<T> {
    answers: Vec<Option<T>>,
    refusal: Option<BrokerError>,
}

impl<T> Spread<T> {
    /// # Errors
    /// When any server failed.
    pub fn all(self) -> Result<Vec<T>, BrokerError> {
        match self.refusal {
            Some(error) => Err(error),
            None => Ok(self.answers.into_iter().flatten().collect()),
        }
    }

    /// `None` stands for what a server that failed would have answered.
    ///
    /// # Errors
    /// When all failed.
    pub fn some(self) -> Result<Vec<Option<T>>, BrokerError> {
        match self.refusal {
            Some(error) if self.answers.iter().all(Option::is_none) => Err(error),
            _ => Ok(self.answers),
        }
    }
}

/// Counts how long a request has been repeated.
struct Attempts<'a, W> {
    router: &'a Router<W>,
    since: Option<Instant>,
}

impl<W: Way> Attempts<'_, W> {
    /// Waits until another try makes sense.
    ///
    /// # Errors
    /// The same error, when none does.
    async fn after(&mut self, error: RedisError, routes: &Arc<Routes<W>>) -> Result<(), BrokerError> {
        if !routes.is_cluster() {
            return Err(error.into());
        }
        match Remedy::of(&error) {
            Remedy::Nothing => Err(error.into()),
            Remedy::Discover => {
                self.router.refresh(routes).await;
                Err(error.into())
            }
            Remedy::Again => {
                let is_first = self.since.is_none();
                if self.since.get_or_insert_with(Instant::now).elapsed() >= REPEAT_TIMEOUT {
                    return Err(error.into());
                }
                self.router.refresh(routes).await;
                if !is_first {
                    let pause = rand::rng().random_range(REPEAT_PAUSE_MS_MIN..=REPEAT_PAUSE_MS_MAX);
                    sleep(Duration::from_millis(pause)).await;
                }
                Ok(())
            }
        }
    }
}

async fn run_on<W: Way, T, F: Future<Output = RedisResult<T>>>(
    way: &W,
    request: impl FnOnce(W::Held) -> F,
) -> RedisResult<T> {
    let (held, rest) = way.hold().await?;
    let result = request(held).await;
    way.give_back(rest, result.as_ref().err());
    result
}

/// Like what a server says of a slot that nobody has.
fn nobody() -> RedisError {
    (ErrorKind::Server(ServerErrorKind::ClusterDown), "nobody has the slot").into()
}

impl Way for deadpool_redis::Pool {
    type Held = deadpool_redis::Connection;
    type Rest = ();

    async fn open(config: &RedisConfig, server: ConnectionInfo) -> RedisResult<Self> {
        config.pool_of(server)
    }

    async fn hold(&self) -> RedisResult<(Self::Held, ())> {
        match self.get().await {
            Ok(connection) => Ok((connection, ())),
            Err(PoolError::Backend(error)) => Err(error),
            Err(error) => Err(std::io::Error::other(error.to_string()).into()),
        }
    }

    fn give_back(&self, (): (), _failure: Option<&RedisError>) {}
}

/// One connection of its owner's own, which may be kept busy by waiting.
pub(crate) struct Private {
    client: redis::Client,
    response_timeout: Duration,
    /// Taken out while it is in use: an error, and also a caller who goes away, leave none behind, since an answer may
    /// still be under way on it.
    idle: parking_lot::Mutex<Option<MultiplexedConnection>>,
}

impl Way for Private {
    type Held = MultiplexedConnection;
    type Rest = MultiplexedConnection;

    async fn open(config: &RedisConfig, server: ConnectionInfo) -> RedisResult<Self> {
        let (client, response_timeout) = (connection::client(server)?, config.response_timeout);
        Ok(Self { client, response_timeout, idle: parking_lot::Mutex::default() })
    }

    async fn hold(&self) -> RedisResult<(MultiplexedConnection, MultiplexedConnection)> {
        let idle = self.idle.lock().take();
        let connection = if let Some(connection) = idle {
            connection
        } else {
            let settings = connection::timeouts(self.response_timeout);
            self.client.get_multiplexed_async_connection_with_config(&settings).await?
        };
        Ok((connection.clone(), connection))
    }

    fn give_back(&self, rest: MultiplexedConnection, failure: Option<&RedisError>) {
        if failure.is_none() {
            *self.idle.lock() = Some(rest);
        }
    }
}
