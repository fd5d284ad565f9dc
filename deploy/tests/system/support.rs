//! What the tests share: systems that show their logs when a test fails, and looks from outside at what is stored.

use std::{
    fmt::Write as _,
    ops::{Deref, DerefMut},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

pub use deploy::PATIENCE;
use deploy::{
    Cluster, ClusterOptions, PostgresOptions, Process, Program, RedisOptions, binary, free_port, http_get,
};
use loadtest::{
    check::{Durability, Verdict},
    client::{Client, ClientError, Pushes},
    token::{TokenSource, mint},
    verify::{self, Run},
};
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};

/// How many systems run at once, however many tests do: more would only slow each other down.
const SYSTEMS_MAX: usize = 2;
/// Pause between two looks at whether something has happened.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// What every gateway here checks tokens with, unless a test is about tokens.
pub const SECRET: &str = "only for tests: 0123456789abcdefghij";
/// Seconds that a token lives: longer than any test.
const TOKEN_SECONDS: u64 = 24 * 3600;

static TURNS: Semaphore = Semaphore::const_new(SYSTEMS_MAX);

async fn turn() -> SemaphorePermit<'static> {
    TURNS.acquire().await.unwrap()
}

/// A cluster that shows its logs when the test fails.
pub struct Stage {
    cluster: Cluster,
    _turn: SemaphorePermit<'static>,
}

impl Stage {
    /// Two gateways and two persisters, without a balancer, and changed by `change`.
    pub async fn start(change: impl FnOnce(&mut ClusterOptions)) -> Self {
        let turn = turn().await;
        let mut options = ClusterOptions {
            haproxy: false,
            // What a killed process has written is there all the same.
            redis: RedisOptions::without_disk(),
            postgres: PostgresOptions { fsync: false, ..PostgresOptions::default() },
            ..ClusterOptions::default()
        };
        for (name, value) in [
            ("STARLING_TOKEN_HMAC_SECRET", SECRET),
            ("STARLING_DRAIN_SECONDS", "1"),
            ("STARLING_DRAIN_DELAY_SECONDS", "0"),
        ] {
            options.gateway_env.push((name.to_owned(), value.to_owned()));
        }
        change(&mut options);
        let started = Instant::now();
        let cluster = Cluster::start(options).await.unwrap_or_else(|error| panic!("{error:#}"));
        eprintln!("the cluster is up after {:.1} s", started.elapsed().as_secs_f32());
        Self { cluster, _turn: turn }
    }

    /// How many messages Postgres has, besides what Starling itself has said about conversations and their members.
    pub async fn rows(&self) -> Result<u64, String> {
        let (client, connection) =
            tokio_postgres::connect(&self.cluster.database_url(), tokio_postgres::NoTls)
                .await
                .map_err(|error| error.to_string())?;
        let connection = tokio::spawn(connection);
        let counted = client
            .query_one(
                "SELECT count(*) FROM messages WHERE kind NOT IN ('void', 'conversation', 'members')",
                &[],
            )
            .await;
        connection.abort();
        let count: i64 = counted.map_err(|error| error.to_string())?.get(0);
        Ok(count.unsigned_abs())
    }

    /// How many entries the logs of all partitions have, on all servers.
    pub async fn log_entries(&self) -> Result<u64, redis::RedisError> {
        let mut entries = 0;
        for url in self.cluster.redis_url().split(',') {
            let client = redis::Client::open(url)?;
            let mut connection = client.get_multiplexed_async_connection().await?;
            let role: Vec<redis::Value> = redis::cmd("ROLE").query_async(&mut connection).await?;
            if role.first() != Some(&redis::Value::BulkString(b"master".to_vec())) {
                continue;
            }
            let logs: Vec<String> = redis::cmd("KEYS").arg("{*}log").query_async(&mut connection).await?;
            for log in logs {
                let length: u64 = redis::cmd("XLEN").arg(log).query_async(&mut connection).await?;
                entries += length;
            }
        }
        Ok(entries)
    }

    /// Waits until Postgres has exactly so many messages, and Redis' logs have none.
    pub async fn wait_stored(&self, count: u64) {
        eventually("everything is stored and trimmed", async || {
            let rows = self.rows().await?;
            let entries = self.log_entries().await.map_err(|error| error.to_string())?;
            seen(rows == count && entries == 0, || format!("{rows} of {count} rows, {entries} log entries"))
        })
        .await;
    }

    /// Redis loses everything.
    pub async fn flush(&self) {
        let client = redis::Client::open(self.cluster.redis_url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        redis::cmd("FLUSHALL").exec_async(&mut connection).await.unwrap();
    }

    /// What a gateway answers to whoever asks whether it wants traffic.
    pub async fn readiness(&self, gateway: usize) -> Option<u16> {
        let url = format!("{}/readyz", self.cluster.gateway_health_url(gateway));
        http_get(&url).await.ok().map(|response| response.status)
    }

    /// Readers of and writers to several conversations on both gateways.
    pub async fn traffic(&self, traffic: Traffic) -> Run {
        traffic.start(self.cluster.gateway_urls()).await
    }

    /// Does something in the middle of traffic, which goes on until it is done, and then to its end. Returns how many messages
    /// were acknowledged.
    pub async fn amid(&mut self, traffic: Traffic, deed: impl AsyncFnOnce(&mut Self, &Run)) -> u64 {
        let run = self.traffic(traffic).await;
        traffic.wait_middle(&run).await;
        deed(self, &run).await;
        traffic.finish(run).await.acked
    }
}

impl Deref for Stage {
    type Target = Cluster;
    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl DerefMut for Stage {
    fn deref_mut(&mut self) -> &mut Cluster {
        &mut self.cluster
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if thread::panicking() {
            let tails = self.cluster.processes().fold(String::new(), |mut tails, process| {
                let _ = writeln!(tails, "{}", process.log_tail());
                tails
            });
            eprintln!("{tails}");
        }
    }
}

/// A gateway on its own, with its data in a directory that goes away with it.
pub struct Standalone {
    program: Program,
    process: Process,
    port: u16,
    health_port: u16,
    dir: TempDir,
    _turn: SemaphorePermit<'static>,
}

impl Standalone {
    /// With the signing key [`SECRET`].
    pub async fn start() -> Self {
        Self::start_with(&[("STARLING_TOKEN_HMAC_SECRET", SECRET)]).await
    }

    /// With these environment variables only, beside its addresses and its directory.
    pub async fn start_with(env: &[(&str, &str)]) -> Self {
        let turn = turn().await;
        let dir = tempfile::tempdir().unwrap();
        let (port, health_port) = (free_port().unwrap(), free_port().unwrap());
        let program = Self::program("gateway", port, health_port, &dir);
        let program = env.iter().fold(program, |program, &(name, value)| program.env(name, value));
        let process = Process::spawn(&program, dir.path()).unwrap();
        let mut standalone = Self { program, process, port, health_port, dir, _turn: turn };
        standalone.wait_ready().await;
        standalone
    }

    fn program(name: &str, port: u16, health_port: u16, dir: &TempDir) -> Program {
        Program::new(name, binary("gateway").unwrap())
            .env("STARLING_LISTEN", format!("127.0.0.1:{port}"))
            .env("STARLING_HEALTH_LISTEN", format!("127.0.0.1:{health_port}"))
            .env("STARLING_DATA_DIR", dir.path().join("data"))
    }

    /// Where its data are.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// One more process on the same data.
    pub fn start_rival(&self) -> Process {
        let rival = Self::program("rival", free_port().unwrap(), free_port().unwrap(), &self.dir);
        Process::spawn(&rival.env("STARLING_TOKEN_HMAC_SECRET", SECRET), self.dir.path()).unwrap()
    }

    async fn wait_ready(&mut self) {
        let url = format!("{}/readyz", self.health_url());
        let is_ready = async || http_get(&url).await.is_ok_and(|response| response.status == 200);
        let ready = self.process.wait_until("ready", PATIENCE, is_ready).await;
        ready.unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// The base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// The base URL of health and metrics.
    pub fn health_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.health_port)
    }

    /// Host and port of the base URL.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// How many were over a limit.
    pub async fn refused(&self, limit: &str) -> f64 {
        let name = format!("starling_limit_refusals_total{{limit=\"{limit}\"}}");
        metric(&self.health_url(), &name).await
    }

    /// The running process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Starts it again on its ports and data; it must have ended.
    pub async fn start_again(&mut self) {
        assert!(!self.process.is_running());
        self.process = Process::spawn(&self.program, self.dir.path()).unwrap();
        self.wait_ready().await;
    }

    /// Readers of and writers to several conversations.
    pub async fn traffic(&self, traffic: Traffic) -> Run {
        traffic.start(vec![self.url()]).await
    }
}

impl Drop for Standalone {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.process.log_tail());
        }
    }
}

/// How much is written and read.
#[derive(Debug, Clone, Copy)]
pub struct Traffic {
    pub conversations: usize,
    /// Of each conversation.
    pub writers: usize,
    /// Of each conversation.
    pub readers: usize,
    /// Of each writer, at least.
    pub messages: usize,
    pub durability: Durability,
}

impl Default for Traffic {
    fn default() -> Self {
        Self { conversations: 3, writers: 3, readers: 2, messages: 250, durability: Durability::Accepted }
    }
}

impl Traffic {
    /// How many messages will be acknowledged at least.
    pub fn total(&self) -> u64 {
        (self.conversations * self.writers * self.messages) as u64
    }

    async fn start(self, urls: Vec<String>) -> Run {
        let Self { conversations, writers, readers, messages, durability } = self;
        let tokens = TokenSource::Secret(SECRET.to_owned());
        let options = verify::Options { urls, tokens, conversations, writers, readers, messages, durability };
        verify::start(options).await.unwrap()
    }

    /// Waits until a third of it is acknowledged. What happens between this and [`Run::enough`] happens in the middle of it, however
    /// long it takes.
    pub async fn wait_middle(self, run: &Run) {
        let middle = tokio::time::timeout(PATIENCE, run.wait_acked(self.total() / 3)).await;
        assert_eq!(middle, Ok(true), "only {} of {} are acknowledged", run.acked(), self.total());
    }

    /// Lets the run come to its end; everything is acknowledged, and nothing is wrong.
    pub async fn finish(self, run: Run) -> Verdict {
        let started = Instant::now();
        let verdict = run.finish().await;
        eprintln!("{verdict}\n({:.1} s after the last deed)", started.elapsed().as_secs_f32());
        assert!(verdict.is_clean(), "see the faults above");
        assert!(verdict.acked >= self.total(), "{} of {} were sent", verdict.acked, self.total());
        assert_eq!(verdict.refused, 0);
        verdict
    }
}

/// The value of a metric, summed over its labels; 0 while it does not exist. A name may end with the labels that are meant.
/// `health_url` is that of the process.
pub async fn metric(health_url: &str, name: &str) -> f64 {
    let text = http_get(&format!("{health_url}/metrics")).await.unwrap().body;
    let of_name = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let is_whole_name = rest.starts_with([' ', '{']);
        is_whole_name.then(|| rest.rsplit(' ').next()?.parse::<f64>().ok()).flatten()
    };
    text.lines().filter_map(of_name).sum()
}

/// A client of `user` at the node with this URL.
pub async fn connect(url: &str, user: &str) -> Result<(Client, Pushes), ClientError> {
    Client::connect(url, &mint(SECRET, user, TOKEN_SECONDS)).await
}

/// Waits until `look` says `Ok`; shows its last complaint if it does not.
pub async fn eventually(what: &str, mut look: impl AsyncFnMut() -> Result<(), String>) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(complaint) = look().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}: {complaint}");
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Makes sure that one more message is acknowledged.
pub async fn assert_goes_on(run: &Run, otherwise: &str) {
    let next = run.acked() + 1;
    let goes_on = tokio::time::timeout(PATIENCE, run.wait_acked(next)).await;
    assert_eq!(goes_on, Ok(true), "{otherwise}");
}

/// `Ok` when what was hoped for is seen.
pub fn seen(is_seen: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if is_seen { Ok(()) } else { Err(otherwise()) }
}
