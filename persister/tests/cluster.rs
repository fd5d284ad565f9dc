//! The binary over a real Redis and a real Postgres: killed at every point of a batch, and stopped politely.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;

use deploy::{
    PATIENCE, PostgresOptions, PostgresServer, Process, Program, RedisOptions, RedisServer, free_port,
    http_get,
};
use shared::{
    broker::redis::{RedisBroker, RedisConfig},
    domain::{
        Body, ClientMessageId, ConversationId, Direction, Message, MessageId, MessageKind, Partition, Seq,
        UserId,
    },
    log::{Log, redis::RedisLog},
    publisher::Publisher,
    record::{Payload, encode_payload},
    store::{HistoryRange, Store, postgres::PostgresStore},
};

const PARTITIONS: u16 = 8;
/// How many conversations the messages are spread over.
const CONVERSATIONS: usize = 10;

struct Cluster {
    redis: RedisServer,
    postgres: PostgresServer,
    log: RedisLog,
    store: Arc<dyn Store>,
    publisher: Publisher,
    dir: tempfile::TempDir,
}

fn conversation(n: usize) -> ConversationId {
    ConversationId::parse(&format!("c{}", n % CONVERSATIONS)).unwrap()
}

impl Cluster {
    async fn start() -> Self {
        let redis = RedisServer::start(RedisOptions::without_disk()).await.unwrap();
        let postgres = PostgresServer::start(PostgresOptions { fsync: false, ..PostgresOptions::default() })
            .await
            .unwrap();
        let url = postgres.create_database("starling").await.unwrap();
        let store: Arc<dyn Store> = Arc::new(PostgresStore::connect(&url).await.unwrap());
        assert_eq!(store.fix_partitions(PARTITIONS).await.unwrap(), PARTITIONS);
        let config = RedisConfig { partitions: PARTITIONS, ..RedisConfig::new(redis.url()) };
        let log = RedisLog::new(config.clone()).unwrap();
        let broker = Arc::new(RedisBroker::connect(config).await.unwrap());
        let publisher = Publisher::new(broker, Arc::clone(&store));
        Self { redis, postgres, log, store, publisher, dir: tempfile::tempdir().unwrap() }
    }

    /// Starts a persister that wants another number of partitions than the installation has.
    fn persister(&self, name: &str, failpoint: Option<&str>) -> Process {
        self.persister_at("127.0.0.1:0", name, failpoint)
    }

    fn persister_at(&self, health: &str, name: &str, failpoint: Option<&str>) -> Process {
        let mut program = Program::new(name, env!("CARGO_BIN_EXE_persister"))
            .arg("--batch-entries=20")
            .env("REDIS_URL", self.redis.url())
            .env("DATABASE_URL", self.postgres.url("starling"))
            .env("STARLING_HEALTH_LISTEN", health)
            .env("STARLING_PERSISTER", name);
        if let Some(failpoint) = failpoint {
            program = program.env("STARLING_FAILPOINT", failpoint);
        }
        Process::spawn(&program, self.dir.path()).unwrap()
    }

    async fn publish(&self, numbers: std::ops::Range<usize>) {
        for n in numbers {
            let (conversation, sender) = (conversation(n), UserId::parse("alice").unwrap());
            let client_id = ClientMessageId::parse(&format!("m-{n}")).unwrap();
            let payload = Payload {
                id: MessageId::derived(&conversation, &sender, &client_id),
                sender,
                client_id: Some(client_id),
                reply_to: None,
                kind: MessageKind::TEXT,
                body: Body::from_json(n.to_string()),
            };
            self.publisher.publish(&conversation, payload, false).await.unwrap();
        }
    }

    async fn is_log_empty(&self) -> bool {
        self.log.backlog().await.unwrap().iter().all(|backlog| backlog.entries == 0)
    }

    async fn history(&self, n: usize) -> Vec<Message> {
        let range = HistoryRange {
            conversation: conversation(n),
            after: Seq(0),
            before: None,
            limit: 1_000,
            direction: Direction::Forward,
        };
        self.store.messages(&range).await.unwrap()
    }

    /// Every message from 0 to `count` is stored once, in the order of its conversation and without a hole.
    async fn has_exactly(&self, count: usize) {
        for c in 0..CONVERSATIONS {
            let stored = self.history(c).await;
            let bodies: Vec<String> = stored
                .iter()
                .map(|message| String::from_utf8(message.body.as_bytes().to_vec()).unwrap())
                .collect();
            let expected: Vec<String> = (c..count).step_by(CONVERSATIONS).map(|n| n.to_string()).collect();
            assert_eq!(bodies, expected, "conversation {c}");
            assert!(stored.windows(2).all(|pair| pair[1].prev == pair[0].seq), "conversation {c}");
        }
    }
}

#[tokio::test]
async fn a_kill_at_any_point_of_a_batch_loses_nothing_and_stores_nothing_twice() {
    let cluster = Cluster::start().await;
    let mut count = 0;
    for failpoint in ["after-read", "after-commit:2", "after-notify", "after-trim:3"] {
        cluster.publish(count..count + 100).await;
        count += 100;
        let mut killed = cluster.persister("killed", Some(failpoint));
        let status = killed.wait_exit(PATIENCE).await.unwrap();
        assert_eq!(status.code(), None, "{failpoint}: died by a signal\n{}", killed.log_tail());
        assert!(!cluster.is_log_empty().await, "{failpoint}: it died in the middle");
    }
    let mut heir = cluster.persister("heir", None);
    heir.wait_until("done", PATIENCE, async || cluster.is_log_empty().await).await.unwrap();
    cluster.has_exactly(count).await;
    heir.terminate();
    let status = heir.wait_exit(PATIENCE).await.unwrap();
    assert_eq!(status.code(), Some(0), "{}", heir.log_tail());
}

#[tokio::test]
async fn a_second_persister_takes_over_from_one_that_is_killed() {
    let cluster = Cluster::start().await;
    let mut first = cluster.persister("first", None);
    let mut second = cluster.persister("second", None);
    cluster.publish(0..100).await;
    second.wait_until("sharing", PATIENCE, async || cluster.is_log_empty().await).await.unwrap();
    first.kill9();
    cluster.publish(100..300).await;
    second.wait_until("heir of everything", PATIENCE, async || cluster.is_log_empty().await).await.unwrap();
    cluster.has_exactly(300).await;
}

#[tokio::test]
async fn the_sessions_of_one_persister_share_the_partitions_and_outlive_each_other() {
    let cluster = Cluster::start().await;
    let mut persister = cluster.persister("both", None);
    let connected = tokio_postgres::connect(&cluster.postgres.url("starling"), tokio_postgres::NoTls).await;
    let (client, connection) = connected.unwrap();
    tokio::spawn(connection);
    let shares = async || {
        let sql = "SELECT count(*), pid FROM pg_locks JOIN pg_stat_activity USING (pid) \
                   WHERE locktype = 'advisory' AND application_name LIKE 'starling-persister-both-%' \
                   GROUP BY pid ORDER BY pid";
        let rows = client.query(sql, &[]).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect::<Vec<(i64, i32)>>()
    };
    // Each holds half of the partitions, and what says that it lives.
    let is_shared =
        async || shares().await.iter().map(|share| share.0).eq([i64::from(PARTITIONS) / 2 + 1; 2]);
    persister.wait_until("sharing", PATIENCE, is_shared).await.unwrap();
    cluster.publish(0..100).await;
    let (_, pid) = shares().await[0];
    client.execute("SELECT pg_terminate_backend($1)", &[&pid]).await.unwrap();
    cluster.publish(100..200).await;
    persister.wait_until("done", PATIENCE, async || cluster.is_log_empty().await).await.unwrap();
    cluster.has_exactly(200).await;
}

#[tokio::test]
async fn an_outage_of_either_server_is_outlived() {
    let mut cluster = Cluster::start().await;
    let mut persister = cluster.persister("p", None);
    cluster.publish(0..50).await;
    persister.wait_until("working", PATIENCE, async || cluster.is_log_empty().await).await.unwrap();
    cluster.postgres.kill9();
    cluster.publish(50..100).await;
    cluster.postgres.restart().await.unwrap();
    persister.wait_until("past Postgres", PATIENCE, async || cluster.is_log_empty().await).await.unwrap();
    cluster.has_exactly(100).await;
    persister.terminate();
    assert_eq!(persister.wait_exit(PATIENCE).await.unwrap().code(), Some(0), "{}", persister.log_tail());

    // What is in the log when Redis is killed is in its file, and is read when it is back.
    cluster.publish(100..150).await;
    cluster.redis.kill9();
    let mut persister = cluster.persister("q", None);
    cluster.redis.restart().await.unwrap();
    persister.wait_until("past Redis", PATIENCE, async || cluster.is_log_empty().await).await.unwrap();
    cluster.has_exactly(150).await;
}

#[tokio::test]
async fn what_can_never_be_stored_is_put_aside_and_the_rest_is_stored() {
    let cluster = Cluster::start().await;
    cluster.publish(0..10).await;
    let poisoned = conversation(0);
    let partition = Partition::of(&poisoned, PARTITIONS);
    let tag = shared::broker::redis::tag(PARTITIONS, partition);
    let client = redis::Client::open(cluster.redis.url()).unwrap();
    let mut raw = client.get_multiplexed_async_connection().await.unwrap();
    let (none, most) = (String::new(), u64::MAX.to_string());
    // No column holds its time; no column holds its seq either; it is no message at all.
    for (seq, time, what) in [("900", &most, "r"), (most.as_str(), &most, "r"), ("901", &none, "nonsense")] {
        let payload = Payload {
            id: MessageId(uuid::Uuid::new_v4()),
            sender: UserId::parse("mallory").unwrap(),
            client_id: None,
            reply_to: None,
            kind: MessageKind::TEXT,
            body: Body::from_json("0"),
        };
        let mut append = redis::cmd("XADD");
        append.arg(format!("{{{tag}}}log")).arg("*").arg("c").arg(poisoned.as_str()).arg("s").arg(seq);
        append
            .arg("p")
            .arg(1)
            .arg("t")
            .arg(time)
            .arg("e")
            .arg(0)
            .arg(what)
            .arg(&encode_payload(&payload)[..]);
        let _: String = append.query_async(&mut raw).await.unwrap();
    }
    cluster.publish(10..20).await;
    let mut persister = cluster.persister("p", None);
    persister.wait_until("done", PATIENCE, async || cluster.is_log_empty().await).await.unwrap();
    let stored = cluster.history(0).await;
    let kinds: Vec<&str> = stored.iter().map(|message| message.kind.as_str()).collect();
    assert_eq!(kinds, ["text", "text", "void"]);
    assert_eq!(stored[2].seq, Seq(900));
    for n in 1..CONVERSATIONS {
        assert_eq!(cluster.history(n).await.len(), 2, "conversation {n}");
    }
    let letters: u64 = redis::cmd("XLEN").arg(format!("{{{tag}}}dlq")).query_async(&mut raw).await.unwrap();
    assert_eq!(letters, 3);
}

#[tokio::test]
async fn health_and_metrics_say_how_it_is() {
    let mut cluster = Cluster::start().await;
    let health = format!("127.0.0.1:{}", free_port().unwrap());
    let status =
        async |path: &str| http_get(&format!("http://{health}/{path}")).await.ok().map(|got| got.status);
    let mut persister = cluster.persister_at(&health, "p", None);
    persister.wait_until("ready", PATIENCE, async || status("readyz").await == Some(200)).await.unwrap();
    cluster.publish(0..30).await;
    persister.wait_until("done", PATIENCE, async || cluster.is_log_empty().await).await.unwrap();
    let metrics = async || http_get(&format!("http://{health}/metrics")).await.unwrap().body;
    // Its sessions may still be sharing the partitions out.
    let has_counted = async || {
        let text = metrics().await;
        ["starling_persister_rows_total 30", "starling_persister_partitions_owned 8"]
            .iter()
            .all(|line| text.contains(line))
    };
    persister.wait_until("done counting", PATIENCE, has_counted).await.unwrap();
    let text = metrics().await;
    for line in [
        "starling_collisions_total 0",
        "starling_dead_letters_total 0",
        "starling_voided_total 0",
        "starling_persister_store_errors_total 0",
        "starling_log_backlog_entries",
        "starling_persister_lag_seconds",
        "starling_persister_batch_seconds_bucket",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    cluster.postgres.kill9();
    persister.wait_until("not ready", PATIENCE, async || status("readyz").await == Some(503)).await.unwrap();
    assert_eq!(status("healthz").await, Some(200));
    let has_noticed = async || !metrics().await.contains("starling_persister_store_errors_total 0");
    persister.wait_until("aware of it", PATIENCE, has_noticed).await.unwrap();
}

#[tokio::test]
async fn what_is_missing_is_said_and_help_has_examples() {
    let dir = tempfile::tempdir().unwrap();
    let program = |name: &str| Program::new(name, env!("CARGO_BIN_EXE_persister"));
    let mut bare = Process::spawn(&program("bare"), dir.path()).unwrap();
    assert_eq!(bare.wait_exit(PATIENCE).await.unwrap().code(), Some(1));
    let said = std::fs::read_to_string(bare.log_path()).unwrap();
    assert!(said.contains("REDIS_URL is not set"), "{said}");
    let mut help = Process::spawn(&program("help").arg("--help"), dir.path()).unwrap();
    assert_eq!(help.wait_exit(PATIENCE).await.unwrap().code(), Some(0));
    assert!(std::fs::read_to_string(help.log_path()).unwrap().contains("Examples:"));
}
