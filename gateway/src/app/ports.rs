//! Opens the ports that the mode asks for.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use parking_lot::Mutex;
use persister::PersisterConfig;
use shared::{
    broker::{
        Broker,
        memory::{Memory, MemoryBroker},
        redis::{RedisBroker, RedisConfig, metric},
        sequence::Limits,
    },
    connections::{Connections, memory::MemoryConnections, redis::RedisConnections},
    domain::Partition,
    log::{Log, memory::MemoryLog},
    presence::{Presence, memory::MemoryPresence, redis::RedisPresence},
    publisher::Publisher,
    rate::{RateLimits, memory::MemoryRateLimits, redis::RedisRateLimits},
    recovery::{Recovery, memory::MemoryRecovery, redis::RedisRecovery},
    revocations::{Revocations, memory::MemoryRevocations, redis::RedisRevocations},
    store::{Store, postgres::PostgresStore, sqlite::SqliteStore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::config::{Config, Mode};

/// The name of the SQLite file in the data directory.
const DATABASE_FILE: &str = "starling.db";
/// The name of the file of revocations in the data directory.
const REVOCATIONS_FILE: &str = "revocations.jsonl";

/// Where the SQLite file of this configuration lies.
pub fn database_file(config: &Config) -> PathBuf {
    config.data_dir.join(DATABASE_FILE)
}

/// The ports of a process, and the persister where it runs inside.
pub struct Ports {
    pub broker: Arc<dyn Broker>,
    pub presence: Arc<dyn Presence>,
    pub connections: Arc<dyn Connections>,
    pub store: Arc<dyn Store>,
    pub rates: Arc<dyn RateLimits>,
    pub revocations: Arc<dyn Revocations>,
    pub recovery: Arc<dyn Recovery>,
    persister: Option<Inside>,
}

/// The persister of a standalone process.
struct Inside {
    memory: Arc<Memory>,
    log: Arc<dyn Log>,
    stop: CancellationToken,
    task: Mutex<Option<tokio::task::JoinHandle<bool>>>,
}

impl Ports {
    /// Opens them. A revocation is kept for `life`.
    pub async fn open(config: &Config, life: Duration) -> anyhow::Result<Self> {
        match &config.mode {
            Mode::Standalone => standalone(config, life).await,
            Mode::Cluster { redis_url, database_url } => cluster(config, redis_url, database_url, life).await,
        }
    }

    /// Starts the persister, where it runs inside.
    pub fn start_persister(&self, tracker: &TaskTracker) {
        let Some(inside) = &self.persister else { return };
        let publisher = Publisher::new(Arc::clone(&self.broker), Arc::clone(&self.store));
        let parts = persister::Parts {
            log: Arc::clone(&inside.log),
            store: Arc::clone(&self.store),
            publisher: Arc::new(publisher),
            config: PersisterConfig { drain_on_stop: true, ..PersisterConfig::new("standalone") },
        };
        *inside.task.lock() = Some(tracker.spawn(persister::run(parts, inside.stop.clone())));
    }

    /// Lets nothing be published any more, and the persister finish what is in the log. When it has, the next run goes on
    /// with the same numbers.
    pub async fn stop_persister(&self) {
        let Some(inside) = &self.persister else { return };
        inside.memory.seal();
        inside.stop.cancel();
        let task = inside.task.lock().take();
        let drained = match task {
            Some(task) => task.await.unwrap_or(false),
            None => false,
        };
        if !drained {
            return tracing::warn!("the log was not drained: the next start opens new epochs");
        }
        if let Err(error) = self.store.mark_clean(&self.opened().await).await {
            tracing::warn!(%error, "the clean stop could not be noted: the next start opens new epochs");
        }
    }

    /// The partitions that this run has opened. Of another one it cannot say that all of its epoch is stored: the run
    /// that has opened it last may have crashed.
    async fn opened(&self) -> Vec<Partition> {
        let mut opened = Vec::new();
        for partition in Partition::all(self.broker.partitions()) {
            if let Ok(Some(_)) = self.broker.epoch(partition).await {
                opened.push(partition);
            }
        }
        opened
    }
}

/// Whether the configuration can be meant, as far as it shows without a connection.
pub fn check(config: &Config) -> anyhow::Result<()> {
    if let Mode::Cluster { redis_url, .. } = &config.mode {
        // It connects only when it is asked, so that nothing but the URL can be wrong.
        RedisPresence::new(&RedisConfig::new(redis_url)).context("cannot use REDIS_URL")?;
    }
    Ok(())
}

async fn standalone(config: &Config, life: Duration) -> anyhow::Result<Ports> {
    std::fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("cannot make the directory {}", config.data_dir.display()))?;
    let file = database_file(config);
    let store = SqliteStore::open(&file).with_context(|| format!("cannot open {}", file.display()))?;
    let store: Arc<dyn Store> = Arc::new(store);
    let partitions = fix_partitions(&*store, config).await?;
    let limits = Limits { backlog_entries_max: config.backlog_entries_max, ..Limits::default() };
    let file = config.data_dir.join(REVOCATIONS_FILE);
    let revocations = MemoryRevocations::open(&file, life);
    let revocations = revocations.with_context(|| format!("cannot use {}", file.display()))?;
    Ok(in_memory(store, partitions, limits, revocations, config.presence_seconds.saturating_mul(1_000)))
}

fn in_memory(
    store: Arc<dyn Store>,
    partitions: u16,
    limits: Limits,
    revocations: MemoryRevocations,
    presence_ms: u64,
) -> Ports {
    let memory = Memory::new(partitions, limits);
    let persister = Inside {
        memory: Arc::clone(&memory),
        log: Arc::new(MemoryLog::new(Arc::clone(&memory))),
        stop: CancellationToken::new(),
        task: Mutex::new(None),
    };
    Ports {
        broker: Arc::new(MemoryBroker::new(memory)),
        presence: Arc::new(MemoryPresence::with_ttl_ms(presence_ms)),
        connections: Arc::new(MemoryConnections::with_ttl_ms(presence_ms)),
        revocations: Arc::new(revocations),
        store,
        rates: Arc::new(MemoryRateLimits::default()),
        recovery: Arc::new(MemoryRecovery::default()),
        persister: Some(persister),
    }
}

async fn cluster(
    config: &Config,
    redis_url: &str,
    database_url: &str,
    life: Duration,
) -> anyhow::Result<Ports> {
    let store = PostgresStore::connect(database_url).await.context("cannot use DATABASE_URL")?;
    let store: Arc<dyn Store> = Arc::new(store);
    let partitions = fix_partitions(&*store, config).await?;
    metric::describe();
    let probe = Duration::from_secs(config.probe_seconds);
    let redis = RedisConfig {
        partitions,
        limits: Limits { backlog_entries_max: config.backlog_entries_max, ..Limits::default() },
        wait_replicas: config.ack_wait_replicas,
        probe_after: probe,
        probe_timeout: probe,
        ..RedisConfig::new(redis_url)
    };
    let presence_ms = config.presence_seconds.saturating_mul(1_000);
    Ok(Ports {
        revocations: Arc::new(RedisRevocations::new(&redis, life).context("cannot use REDIS_URL")?),
        presence: Arc::new(RedisPresence::with_ttl_ms(&redis, presence_ms).context("cannot use REDIS_URL")?),
        connections: Arc::new(
            RedisConnections::with_ttl_ms(&redis, presence_ms).context("cannot use REDIS_URL")?,
        ),
        recovery: Arc::new(RedisRecovery::new(&redis).context("cannot use REDIS_URL")?),
        rates: Arc::new(RedisRateLimits::new(&redis).context("cannot use REDIS_URL")?),
        broker: Arc::new(RedisBroker::connect(redis).await.context("cannot use REDIS_URL")?),
        store,
        persister: None,
    })
}

async fn fix_partitions(store: &dyn Store, config: &Config) -> anyhow::Result<u16> {
    let partitions = store.fix_partitions(config.partitions).await.context("the store does not answer")?;
    if partitions != config.partitions {
        tracing::warn!(
            partitions,
            wanted = config.partitions,
            "this installation was made with another number of partitions"
        );
    }
    Ok(partitions)
}

#[cfg(test)]
mod tests {
    use shared::{
        domain::{Body, ConversationId, MessageId, MessageKind, Seq, UserId},
        publisher::PublishError,
        record::Payload,
    };

    use super::*;

    async fn say(ports: &Ports, to: &str) -> Result<Seq, PublishError> {
        let publisher = Publisher::new(Arc::clone(&ports.broker), Arc::clone(&ports.store));
        let payload = Payload {
            id: MessageId(uuid::Uuid::new_v4()),
            sender: UserId::parse("alice").unwrap(),
            client_id: None,
            reply_to: None,
            kind: MessageKind::TEXT,
            body: Body::from_json("1"),
        };
        let said = publisher.publish(&ConversationId::parse(to).unwrap(), payload, false).await;
        said.map(|accepted| accepted.seq)
    }

    /// Two conversations in different partitions.
    const ONE: &str = "one";
    const OTHER: &str = "other";

    #[tokio::test]
    async fn only_what_a_run_has_drained_is_noted_as_clean() {
        let [one, other] = [ONE, OTHER].map(|id| Partition::of(&ConversationId::parse(id).unwrap(), 64));
        assert_ne!(one, other);
        let dir = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&dir.path().join("db")).unwrap());
        let start = || {
            let revocations = MemoryRevocations::new(Duration::ZERO);
            in_memory(Arc::clone(&store), 64, Limits::default(), revocations, 60_000)
        };

        // A run that crashes before anything is stored.
        let crashed = start();
        let lost = say(&crashed, OTHER).await.unwrap();
        drop(crashed);

        let clean = start();
        clean.start_persister(&TaskTracker::new());
        assert_eq!(say(&clean, ONE).await.unwrap(), Seq(1));
        clean.stop_persister().await;
        assert!(say(&clean, ONE).await.is_err(), "nothing is accepted after the log was drained");
        drop(clean);

        let next = start();
        assert_eq!(say(&next, ONE).await.unwrap(), Seq(2), "its number goes on");
        assert!(say(&next, OTHER).await.unwrap().0 > lost.0 + 1, "the lost number is not given again");
    }
}
