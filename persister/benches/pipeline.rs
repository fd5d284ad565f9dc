//! How many messages a second one Redis server accepts, and one persister stores.
//!
//! Publishes go by the production path, `Publisher::publish` down to the socket, from many tasks over its one connection.
//! Beside it `redis-benchmark` calls the bare script over one connection, with as many calls under way; the two take turns,
//! so that whatever else the machine does meets both. Then a persister drains what was published into Postgres; beside it a
//! loop inserts the same rows by the same statement and does nothing else.
//!
//! `cargo bench -p persister` prints the table; `-- --help` lists the flags. It starts private servers.
#![expect(clippy::print_stdout, reason = "the table is what a benchmark is for")]

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::Parser;
use deploy::{PostgresOptions, PostgresServer, RedisOptions, RedisServer};
use persister::{Parts, PersisterConfig};
use shared::{
    broker::redis::{RedisBroker, RedisConfig, tag},
    domain::{
        Body, ClientMessageId, ConversationId, MessageId, MessageKind, PARTITIONS_DEFAULT, Partition, UserId,
    },
    log::{Log, redis::RedisLog},
    publisher::Publisher,
    record::{Payload, encode_payload},
    store::{Store, postgres::PostgresStore},
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
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

struct Place {
    redis: RedisServer,
    postgres: PostgresServer,
    store: Arc<dyn Store>,
    publisher: Arc<Publisher>,
    log: Arc<dyn Log>,
}

fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let mut place = Place::start(&flags.aof).await?;
        println!("aof {}, {} publishes under way, {} B", flags.aof, flags.concurrency, flags.bytes);
        println!("                    ours/s    bare/s  ratio  Redis CPU µs: ours  bare  own CPU µs");
        for _ in 0..flags.turns {
            place.compare_publishes(&flags).await?;
        }
        println!("                    rows/s  own CPU µs  Postgres CPU µs  Redis CPU µs");
        for _ in 0..flags.turns {
            place.drain(&flags).await?;
        }
        Ok(())
    })
}

impl Place {
    async fn start(aof: &str) -> anyhow::Result<Self> {
        let extra = if aof == "off" { vec!["appendonly no".to_owned()] } else { Vec::new() };
        let redis = RedisServer::start(RedisOptions { fsync_always: aof == "always", extra }).await?;
        let postgres = PostgresServer::start(PostgresOptions::default()).await?;
        let store = PostgresStore::connect(&postgres.create_database("starling").await?).await?;
        let store: Arc<dyn Store> = Arc::new(store);
        store.fix_partitions(PARTITIONS_DEFAULT).await?;
        let mut config = RedisConfig::new(redis.url());
        config.limits.backlog_entries_max = BACKLOG;
        let log: Arc<dyn Log> = Arc::new(RedisLog::new(config.clone())?);
        let broker = Arc::new(RedisBroker::connect(config).await?);
        let publisher = Arc::new(Publisher::new(broker, Arc::clone(&store)));
        Ok(Self { redis, postgres, store, publisher, log })
    }

    /// One turn of each.
    async fn compare_publishes(&mut self, flags: &Flags) -> anyhow::Result<()> {
        // One conversation, as the bare script has one.
        let (redis, own) = (self.redis_cpu()?, own_cpu()?);
        let ours = self.publish(flags, 1).await?;
        let (redis_ours, own) = (self.redis_cpu()? - redis, own_cpu()? - own);
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
    async fn publish(&self, flags: &Flags, conversations: usize) -> anyhow::Result<f64> {
        let next = Arc::new(AtomicUsize::new(0));
        let start = Instant::now();
        let mut tasks = Vec::new();
        for _ in 0..flags.concurrency {
            let (publisher, next) = (Arc::clone(&self.publisher), Arc::clone(&next));
            let (messages, bytes) = (flags.messages, flags.bytes);
            tasks.push(tokio::spawn(async move {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= messages {
                        return anyhow::Ok(());
                    }
                    let conversation = ConversationId::parse(&format!("bench-{}", at % conversations))?;
                    publisher.publish(&conversation, payload(bytes)?, false).await?;
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

    /// Publishes, then lets a persister store all of it.
    async fn drain(&self, flags: &Flags) -> anyhow::Result<()> {
        self.publish(flags, CONVERSATIONS).await?;
        let parts = Parts {
            log: Arc::clone(&self.log),
            store: Arc::clone(&self.store),
            publisher: Arc::clone(&self.publisher),
            config: PersisterConfig { drain_on_stop: true, ..PersisterConfig::new("bench") },
        };
        let shutdown = CancellationToken::new();
        let (own, postgres, redis) = (own_cpu()?, self.postgres_cpu()?, self.redis_cpu()?);
        let start = Instant::now();
        let persister = tokio::spawn(persister::run(parts, shutdown.clone()));
        while self.log.backlog().await?.iter().any(|backlog| backlog.entries > 0) {
            ensure!(!persister.is_finished(), "the persister has ended");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let seconds = start.elapsed().as_secs_f64();
        let spent = [own_cpu()? - own, self.postgres_cpu()? - postgres, self.redis_cpu()? - redis];
        shutdown.cancel();
        persister.await?;
        let [own, postgres, redis] = spent.map(|seconds| seconds * 1e6 / number(flags.messages));
        println!(
            "persister       {:>10.0}{own:>12.2}{postgres:>17.2}{redis:>14.2}",
            number(flags.messages) / seconds
        );
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

    fn redis_cpu(&self) -> anyhow::Result<f64> {
        let info = self.ask(&["INFO", "cpu"])?;
        let times = info.lines().filter_map(|line| {
            line.strip_prefix("used_cpu_sys:").or_else(|| line.strip_prefix("used_cpu_user:"))
        });
        Ok(times.filter_map(|time| time.trim().parse::<f64>().ok()).sum())
    }

    /// CPU seconds of Postgres' processes that live.
    fn postgres_cpu(&self) -> anyhow::Result<f64> {
        let data = self.postgres.port().to_string();
        let mut seconds = 0.0;
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let read = |file: &str| std::fs::read_to_string(entry.path().join(file)).unwrap_or_default();
            let command = read("cmdline");
            if command.starts_with("postgres:") && command.contains("starling") || command.contains(&data) {
                seconds += cpu_of(&read("stat")).unwrap_or_default();
            }
        }
        Ok(seconds)
    }
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

/// CPU seconds of this process.
fn own_cpu() -> anyhow::Result<f64> {
    cpu_of(&std::fs::read_to_string("/proc/self/stat")?).context("/proc/self/stat has no times")
}

/// User and system time of a process, from its `stat`; Linux counts them in hundredths of a second.
fn cpu_of(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).take(2).map_while(|time| time.parse::<u32>().ok());
    Some(f64::from(times.next()? + times.next()?) / 100.0)
}

#[expect(clippy::cast_precision_loss, reason = "a benchmark's count is far below 2^52")]
fn number(count: usize) -> f64 {
    count as f64
}
