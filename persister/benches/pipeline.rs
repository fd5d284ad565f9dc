//! How many messages a second one Redis server accepts, and one persister stores.
//!
//! Publishes go by the production path, `Publisher::publish` down to the socket, from many tasks over its one connection.
//! Beside it `redis-benchmark` calls the bare script over one connection, with as many calls under way; the two take turns,
//! so that whatever else the machine does meets both.
//!
//! Then a persister drains what was published into Postgres. In turns with it, loops add the same rows in batches of the same
//! size over one session and over several and do nothing else, by each method there is ([`bare::Method`]). At the end
//! messages are published at half the rate of the best drain, and the ages at which they are stored are told.
//!
//! `cargo bench -p persister` prints the table; `-- --help` lists the flags. It starts private servers.
#![expect(clippy::print_stdout, reason = "the table is what a benchmark is for")]

mod bare;
mod storing;
mod usage;

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::{Parser, ValueEnum};
use deploy::{Fsync, PostgresOptions, PostgresServer, RedisOptions, RedisServer};
use persister::{Parts, PersisterConfig};
use shared::{
    broker::redis::{RedisBroker, RedisConfig, tag},
    domain::{
        Body, ClientMessageId, ConversationId, Message, MessageId, MessageKind, PARTITIONS_DEFAULT,
        Partition, Seq, UserId,
    },
    log::{Log, redis::RedisLog},
    publisher::Publisher,
    record::{Payload, encode_payload},
    store::{Store, postgres::PostgresStore},
};
use tokio::{
    sync::Barrier,
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Conversations that the messages for the persister are spread over.
const CONVERSATIONS: usize = 1_000;
/// Entries that the log may hold here: more than any turn publishes.
const BACKLOG: u64 = 100_000_000;

#[derive(Parser)]
struct Flags {
    /// Publishes under way at once.
    #[arg(long, default_value_t = 512)]
    concurrency: usize,
    /// Messages of each turn.
    #[arg(long, default_value_t = 100_000)]
    messages: usize,
    /// How often each takes its turn.
    #[arg(long, default_value_t = 3)]
    turns: usize,
    /// Bytes of a body.
    #[arg(long, default_value_t = 100)]
    bytes: usize,
    /// Redis writes its file at every publish (`appendfsync always`), every second, or not at all.
    #[arg(long, default_value = "off", value_parser = ["off", "everysec", "always"])]
    aof: String,
    /// Measure only one half.
    #[arg(long)]
    only: Option<Half>,
    /// Rows of one transaction.
    #[arg(long, default_value_t = 5_000)]
    batch: usize,
    /// Sessions of the persister, and of the loops beside it.
    #[arg(long, value_delimiter = ',', default_value = "1,2,3")]
    sessions: Vec<usize>,
    /// The persister's conversations are direct ones, whose rows and read marks move with every batch.
    #[arg(long)]
    direct: bool,
    /// Methods of the loops.
    #[arg(long, value_delimiter = ',', default_value = "copy,unnest,values,staged")]
    methods: Vec<bare::Method>,
    /// Seconds at half the rate; 0 for none.
    #[arg(long, default_value_t = 10)]
    paced_seconds: u64,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Half {
    Publish,
    Store,
}

struct Place {
    redis: RedisServer,
    postgres: PostgresServer,
    store: Arc<dyn Store>,
    publisher: Arc<Publisher>,
    log: Arc<dyn Log>,
    /// Databases of loops that were made.
    databases: usize,
}

fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let mut place = Place::start(&flags.aof).await?;
        if flags.only != Some(Half::Store) {
            println!("aof {}, {} publishes under way, {} B", flags.aof, flags.concurrency, flags.bytes);
            println!("                    ours/s    bare/s  ratio  Redis CPU µs: ours  bare  own CPU µs");
            for _ in 0..flags.turns {
                place.compare_publishes(&flags).await?;
            }
        }
        if flags.only != Some(Half::Publish) {
            println!(
                "{} rows of {CONVERSATIONS} conversations, {} B, {} in a batch",
                flags.messages, flags.bytes, flags.batch
            );
            println!("by              sessions    rows/s  CPU µs: own  Postgres  Redis");
            let mut best = 0.0;
            for _ in 0..flags.turns {
                best = f64::max(best, place.compare_stores(&flags).await?);
            }
            if flags.paced_seconds > 0 {
                place.pace(&flags, best / 2.0).await?;
            }
        }
        Ok(())
    })
}

impl Place {
    async fn start(aof: &str) -> anyhow::Result<Self> {
        let extra = if aof == "off" { vec!["appendonly no".to_owned()] } else { Vec::new() };
        let fsync = if aof == "always" { Fsync::Always } else { Fsync::EverySecond };
        let redis = RedisServer::start(RedisOptions { fsync, extra }).await?;
        let postgres = PostgresServer::start(PostgresOptions::default()).await?;
        let store = PostgresStore::connect(&postgres.create_database("starling").await?).await?;
        let store: Arc<dyn Store> = Arc::new(store);
        store.fix_partitions(PARTITIONS_DEFAULT).await?;
        let mut config = RedisConfig::new(redis.url());
        config.limits.backlog_entries_max = BACKLOG;
        let log: Arc<dyn Log> = Arc::new(RedisLog::new(config.clone())?);
        let broker = Arc::new(RedisBroker::connect(config).await?);
        let publisher = Arc::new(Publisher::new(broker, Arc::clone(&store)));
        Ok(Self { redis, postgres, store, publisher, log, databases: 0 })
    }

    /// One turn of each.
    async fn compare_publishes(&mut self, flags: &Flags) -> anyhow::Result<()> {
        // One conversation, as the bare script has one.
        let (redis, own) = (self.redis_cpu()?, usage::of(std::process::id())?);
        let ours = self.publish(flags, &[conversation(0, false)?]).await?;
        let (redis_ours, own) = (self.redis_cpu()? - redis, usage::of(std::process::id())? - own);
        let redis = self.redis_cpu()?;
        let bare = self.bare(flags)?;
        let redis_bare = self.redis_cpu()? - redis;
        let each = 1e6 / number(flags.messages);
        println!(
            "publish         {ours:>10.0}{bare:>10.0}{:>7.2}{:>20.2}{:>6.2}{:>12.2}",
            ours / bare,
            redis_ours * each,
            redis_bare * each,
            own * each
        );
        self.forget()
    }

    /// Publishes, and returns how many a second were accepted.
    async fn publish(&self, flags: &Flags, conversations: &[ConversationId]) -> anyhow::Result<f64> {
        let next = Arc::new(AtomicUsize::new(0));
        let start = Instant::now();
        let mut tasks = Vec::new();
        for _ in 0..flags.concurrency {
            let (publisher, next) = (Arc::clone(&self.publisher), Arc::clone(&next));
            let (messages, bytes, conversations) = (flags.messages, flags.bytes, conversations.to_vec());
            tasks.push(tokio::spawn(async move {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= messages {
                        return anyhow::Ok(());
                    }
                    let conversation = &conversations[at % conversations.len()];
                    publisher.publish(conversation, payload(bytes)?, false).await?;
                }
            }));
        }
        for task in tasks {
            task.await??;
        }
        Ok(number(flags.messages) / start.elapsed().as_secs_f64())
    }

    /// Calls the bare script by `redis-benchmark`, and returns how often a second.
    fn bare(&self, flags: &Flags) -> anyhow::Result<f64> {
        let conversation = ConversationId::parse("bench-0")?;
        let partition = Partition::of(&conversation, PARTITIONS_DEFAULT);
        let tag = tag(PARTITIONS_DEFAULT, partition);
        let key = |name: &str| format!("{{{tag}}}{name}");
        let run = self.ask(&["HGET", &key("ep"), "run"])?;
        let sha = self.ask(&["SCRIPT", "LOAD", include_str!("../../shared/src/broker/redis/publish.lua")])?;
        // The script does not look into it.
        let payload = "x".repeat(encode_payload(&self::payload(flags.bytes)?).len());
        let (port, calls) = (self.redis.port().to_string(), flags.messages.to_string());
        let window = flags.concurrency.to_string();
        let keys = ["ep", "m:bench-0", "d:__rand_int__", "log", "h:bench-0", "c:bench-0"].map(key);
        let output = Command::new("redis-benchmark")
            .args(["-p", &port, "-c", "1", "-P", &window, "-n", &calls, "-r", "1000000000", "--csv"])
            .args(["EVALSHA", &sha, "6"])
            .args(&keys)
            .args([&run, "bench-0", &payload, "1", "", "", &BACKLOG.to_string(), "200", "600000", "3600000"])
            .output()
            .context("redis-benchmark is not installed")?;
        let said = String::from_utf8_lossy(&output.stdout);
        let rate = said.lines().last().and_then(|line| line.rsplit("\",\"").nth(6)?.parse().ok());
        rate.with_context(|| format!("redis-benchmark said {said}"))
    }

    /// One turn of each loop and of the persister; returns how many rows a second the persister stored at best.
    async fn compare_stores(&mut self, flags: &Flags) -> anyhow::Result<f64> {
        for &method in &flags.methods {
            for &sessions in &flags.sessions {
                self.loop_bare(flags, method, sessions).await?;
            }
        }
        let mut best = 0.0;
        for &sessions in &flags.sessions {
            best = f64::max(best, self.drain(flags, sessions).await?);
        }
        Ok(best)
    }

    /// Adds rows to an empty table over so many sessions, and does nothing else.
    async fn loop_bare(
        &mut self,
        flags: &Flags,
        method: bare::Method,
        sessions: usize,
    ) -> anyhow::Result<()> {
        self.databases += 1;
        let url = self.postgres.create_database(&format!("bare_{}", self.databases)).await?;
        drop(PostgresStore::connect(&url).await?);
        let mut tasks = Vec::new();
        let start = Arc::new(Barrier::new(sessions + 1));
        let end = Arc::new(Barrier::new(sessions + 1));
        for session in 0..sessions {
            let messages = messages(flags.messages / sessions, session, flags.bytes)?;
            let (url, batch) = (url.clone(), flags.batch.min(messages.len()));
            let (start, end) = (Arc::clone(&start), Arc::clone(&end));
            tasks.push(tokio::spawn(async move {
                let batches: Vec<_> =
                    messages.chunks_exact(batch).map(bare::Batch::of).collect::<anyhow::Result<_>>()?;
                let mut session = bare::Session::open(&url, method, batch).await?;
                start.wait().await;
                session.add(&batches).await?;
                // A process that has ended tells its CPU time no more.
                end.wait().await;
                end.wait().await;
                anyhow::Ok(batches.len() * batch)
            }));
        }
        start.wait().await;
        let (before, started) = (self.spent()?, Instant::now());
        end.wait().await;
        let (seconds, spent) = (started.elapsed().as_secs_f64(), self.spent()?.since(before));
        end.wait().await;
        let mut rows = 0;
        for task in tasks {
            rows += task.await??;
        }
        spent.print(&format!("{method:?} alone").to_lowercase(), sessions, rows, seconds);
        Ok(())
    }

    /// Publishes, then lets a persister store all of it; returns how many rows a second.
    async fn drain(&mut self, flags: &Flags, sessions: usize) -> anyhow::Result<f64> {
        self.publish(flags, &conversations(flags.direct)?).await?;
        let persister = self.persister(flags, sessions).await?;
        let (before, start) = (self.spent()?, Instant::now());
        persister.seen.open();
        self.is_empty(&persister).await?;
        let (seconds, spent) = (start.elapsed().as_secs_f64(), self.spent()?.since(before));
        persister.stop().await?;
        spent.print("persister", sessions, flags.messages, seconds);
        Ok(number(flags.messages) / seconds)
    }

    /// Publishes at this rate, with as many under way as there may be, and tells how old the messages are when they are stored.
    async fn pace(&mut self, flags: &Flags, rate: f64) -> anyhow::Result<()> {
        let sessions = flags.sessions.iter().copied().max().unwrap_or(1);
        let persister = self.persister(flags, sessions).await?;
        persister.seen.open();
        let conversations = conversations(flags.direct)?;
        let start = Instant::now();
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        let mut tasks = JoinSet::new();
        let mut published = 0;
        let is_over = || start.elapsed() >= Duration::from_secs(flags.paced_seconds);
        while !is_over() {
            tick.tick().await;
            while number(published) < start.elapsed().as_secs_f64() * rate && !is_over() {
                // What Redis is too slow for shows in the rate that was reached.
                if tasks.len() >= flags.concurrency
                    && let Some(ended) = tasks.join_next().await
                {
                    ended??;
                }
                let (publisher, payload) = (Arc::clone(&self.publisher), payload(flags.bytes)?);
                let conversation = conversations[published % CONVERSATIONS].clone();
                tasks.spawn(async move { publisher.publish(&conversation, payload, false).await });
                published += 1;
            }
            while let Some(ended) = tasks.try_join_next() {
                ended??;
            }
        }
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        let reached = number(published) / start.elapsed().as_secs_f64();
        self.is_empty(&persister).await?;
        let ages = persister.seen.ages_ms();
        ensure!(ages.len() >= published, "{} of {published} were stored", ages.len());
        let at = |percent: usize| ages[(ages.len() * percent / 100).min(ages.len() - 1)];
        println!(
            "at {reached:.0} of {rate:.0} messages/s, {sessions} sessions: stored after {} ms (p50), {} ms (p99), {} ms (most)",
            at(50),
            at(99),
            at(100)
        );
        persister.stop().await
    }

    /// Starts a persister that owns all partitions and waits for the log to be opened.
    async fn persister(&self, flags: &Flags, sessions: usize) -> anyhow::Result<Persister> {
        let (log, seen) = storing::Seen::over(Arc::clone(&self.log));
        let parts = Parts {
            log,
            store: Arc::clone(&self.store),
            publisher: Arc::clone(&self.publisher),
            config: PersisterConfig { sessions, batch_entries: flags.batch, ..PersisterConfig::new("bench") },
        };
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(persister::run(parts, shutdown.clone()));
        let share = usize::from(PARTITIONS_DEFAULT).div_ceil(sessions);
        let is_shared = |shares: Vec<usize>| {
            shares.iter().sum::<usize>() == usize::from(PARTITIONS_DEFAULT)
                && shares.iter().all(|&owned| owned <= share)
        };
        while !is_shared(seen.shares()) {
            ensure!(!task.is_finished(), "the persister has ended");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Persister { task, shutdown, seen })
    }

    async fn is_empty(&self, persister: &Persister) -> anyhow::Result<()> {
        while self.log.backlog().await?.iter().any(|backlog| backlog.entries > 0) {
            ensure!(!persister.task.is_finished(), "the persister has ended");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Empties the log, so that no turn starts with more in memory than another. The epochs stay.
    fn forget(&self) -> anyhow::Result<()> {
        for partition in Partition::all(PARTITIONS_DEFAULT) {
            let key = format!("{{{}}}log", tag(PARTITIONS_DEFAULT, partition));
            self.ask(&["DEL", &key])?;
        }
        Ok(())
    }

    fn ask(&self, command: &[&str]) -> anyhow::Result<String> {
        let port = self.redis.port().to_string();
        let output = Command::new("redis-cli").args(["-p", &port]).args(command).output()?;
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    fn redis_cpu(&mut self) -> std::io::Result<f64> {
        usage::of(self.redis.process().pid())
    }

    fn spent(&mut self) -> anyhow::Result<Spent> {
        let postgres = usage::children(self.postgres.process().pid())?;
        Ok(Spent { own: usage::of(std::process::id())?, postgres, redis: self.redis_cpu()? })
    }
}

/// A persister that runs.
struct Persister {
    task: JoinHandle<bool>,
    shutdown: CancellationToken,
    seen: Arc<storing::Seen>,
}

impl Persister {
    async fn stop(self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        self.task.await?;
        Ok(())
    }
}

/// CPU seconds.
#[derive(Clone, Copy)]
struct Spent {
    own: f64,
    postgres: f64,
    redis: f64,
}

impl Spent {
    fn since(self, before: Self) -> Self {
        Self {
            own: self.own - before.own,
            postgres: self.postgres - before.postgres,
            redis: self.redis - before.redis,
        }
    }

    fn print(self, what: &str, sessions: usize, rows: usize, seconds: f64) {
        let each = 1e6 / number(rows);
        println!(
            "{what:<16}{sessions:>8}{:>10.0}{:>13.2}{:>10.2}{:>7.2}",
            number(rows) / seconds,
            self.own * each,
            self.postgres * each,
            self.redis * each
        );
    }
}

/// What a publisher would have made of so many payloads, in the order in which a persister stores them.
fn messages(count: usize, session: usize, bytes: usize) -> anyhow::Result<Vec<Message>> {
    let message = |index: usize| {
        let seq = u64::try_from(index / CONVERSATIONS)? + 1;
        let conversation = ConversationId::parse(&format!("bench-{session}-{}", index % CONVERSATIONS))?;
        Ok(payload(bytes)?.at(conversation, Seq(seq), Seq(seq - 1), 1_700_000_000_000))
    };
    (0..count).map(message).collect()
}

fn conversations(is_direct: bool) -> anyhow::Result<Vec<ConversationId>> {
    (0..CONVERSATIONS).map(|number| conversation(number, is_direct)).collect()
}

/// One with the sender as a member, if it is direct.
fn conversation(number: usize, is_direct: bool) -> anyhow::Result<ConversationId> {
    let name = if is_direct { format!("conv_alice_user-{number}") } else { format!("bench-{number}") };
    Ok(ConversationId::parse(&name)?)
}

fn payload(bytes: usize) -> anyhow::Result<Payload> {
    let id = Uuid::new_v4();
    Ok(Payload {
        id: MessageId(id),
        sender: UserId::parse("alice")?,
        client_id: Some(ClientMessageId::parse(&id.simple().to_string())?),
        reply_to: None,
        kind: MessageKind::TEXT,
        body: Body::from_json(format!("{:?}", "x".repeat(bytes.saturating_sub(2)))),
    })
}

#[expect(clippy::cast_precision_loss, reason = "a benchmark's count is far below 2^52")]
fn number(count: usize) -> f64 {
    count as f64
}
