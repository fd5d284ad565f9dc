//! What happens when the log is full: a definite refusal, nothing accepted is lost, and Redis gets its memory back.

use std::time::{Duration, Instant};

use loadtest::{client::ClientError, token::TokenSource, verify::read_history};

use crate::support::{SECRET, Stage, connect, eventually, metric};

/// Unless `STARLING_OUTAGE_ENTRIES` says otherwise.
const BACKLOG_ENTRIES_MAX: u64 = 2_000;
/// How much more the empty log may take than before, in bytes: a node of its tree.
const LOG_BYTES_TOLERANCE: u64 = 8 * 1024;
const CONVERSATION: &str = "conv_alice_bob";
/// Of so many bytes that their memory stands out.
const BODY_BYTES: usize = 2_000;

/// A number that a campaign sets.
fn set_by(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |number| number.parse().unwrap())
}

fn is_backlog_full(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused { code: 503, temporary: true, .. })
}

/// What Redis holds: in the log, and in all.
async fn memory(stage: &Stage) -> (u64, u64) {
    let client = redis::Client::open(stage.redis_url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let logs: Vec<String> = redis::cmd("KEYS").arg("{*}log").query_async(&mut connection).await.unwrap();
    let mut log_bytes = 0;
    for log in logs {
        let bytes: Option<u64> = redis::cmd("MEMORY")
            .arg(&["USAGE", &log, "SAMPLES", "0"])
            .query_async(&mut connection)
            .await
            .unwrap();
        log_bytes += bytes.unwrap_or(0);
    }
    let info: String = redis::cmd("INFO").arg("memory").query_async(&mut connection).await.unwrap();
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
    (log_bytes, used.trim().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_log_refuses_and_recovers() {
    let entries_max = set_by("STARLING_OUTAGE_ENTRIES", BACKLOG_ENTRIES_MAX);
    let outage = Duration::from_secs(set_by("STARLING_OUTAGE_SECONDS", 0));
    let mut stage = Stage::start(|options| {
        let limits = [
            ("STARLING_BACKLOG_ENTRIES_MAX", entries_max.to_string()),
            ("STARLING_PARTITIONS", "1".to_owned()),
        ];
        options.gateway_env.extend(limits.map(|(name, value)| (name.to_owned(), value)));
    })
    .await;
    // Who does not look at what is pushed must not hold it up either.
    let client = connect(&stage.gateway_url(0), "alice").await.unwrap().0;
    let body = format!(r#"{{"text":"{}"}}"#, "x".repeat(BODY_BYTES));
    client.send(CONVERSATION, "before", &body, false).await.unwrap();
    stage.wait_stored(1).await;
    let (log_before, used_before) = memory(&stage).await;

    stage.postgres().stop().await.unwrap();
    let gone = Instant::now();
    let mut accepted = 1;
    let refusal = loop {
        match client.send(CONVERSATION, &format!("full-{accepted}"), &body, false).await {
            Ok(sent) => {
                accepted += 1;
                assert_eq!(sent.seq, accepted);
                assert!(accepted <= entries_max + 1, "the log takes more than its limit");
            }
            Err(error) => break error,
        }
    };
    assert!(is_backlog_full(&refusal), "{refusal:?}");
    assert_eq!(accepted, entries_max + 1);
    eprintln!("after {entries_max} messages: {refusal}");
    let refused_before = format!("full-{accepted}");
    while gone.elapsed() < outage {
        let refusal = client.send(CONVERSATION, &refused_before, &body, false).await.unwrap_err();
        assert!(is_backlog_full(&refusal), "{refusal:?}");
    }
    let health = stage.gateway_health_url(0);
    assert!(metric(&health, "starling_publishes_backlog_full_total").await > 0.0);
    let (log_full, used_full) = memory(&stage).await;
    let bodies = entries_max * BODY_BYTES as u64;
    assert!(log_full - log_before > bodies && used_full - used_before > bodies, "what waits is in Redis");

    stage.postgres().restart().await.unwrap();
    eventually("there is room again", async || {
        let sent = client.send(CONVERSATION, &refused_before, &body, true).await;
        sent.map(drop).map_err(|error| error.to_string())
    })
    .await;
    stage.wait_stored(accepted + 1).await;
    let (log_after, used_after) = memory(&stage).await;
    eprintln!("log: {log_before} B before, {log_full} B full, {log_after} B after");
    eprintln!("all: {used_before} B before, {used_full} B full, {used_after} B after");
    assert!(log_after <= log_before + LOG_BYTES_TOLERANCE, "the log keeps what is stored");
    // What else there is now (the hot tail, the ids for deduplication) is bounded and expires.
    assert!(used_full - used_after > bodies * 9 / 10, "Redis does not give back what the log took");
    let tokens = TokenSource::Secret(SECRET.to_owned());
    for url in stage.gateway_urls() {
        let history = read_history(&url, &tokens, "bob", CONVERSATION).await.unwrap();
        let seqs: Vec<u64> = history.iter().map(|entry| entry.seq).collect();
        assert_eq!(seqs, (1..=accepted + 1).collect::<Vec<_>>(), "{url}");
    }
}
