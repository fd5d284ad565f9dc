//! A node whose subscriber connection goes silent: it notices, says so, and makes up for it.

use std::sync::Arc;

use deploy::http_get;
use loadtest::{
    check::{Durability, Evidence, HistoryRecord, judge},
    session::{Identity, ResumingReader, RetryingWriter},
    token::TokenSource,
    verify::read_history,
};
use tokio::sync::watch;

use crate::support::{PATIENCE, SECRET, Stage, eventually, metric, seen};

/// What the subscriber connection sends, and no other one.
const SUBSCRIBES: &[u8] = b"SSUBSCRIBE";
const CONVERSATION: &str = "conv_alice_bob";
/// Messages of each writer, before the stall and during it.
const MESSAGES: usize = 500;

fn identity(url: &str, user: &str) -> Identity {
    Identity {
        urls: vec![url.to_owned()],
        tokens: TokenSource::Secret(SECRET.to_owned()),
        user: user.to_owned(),
        conversation: CONVERSATION.to_owned(),
    }
}

fn writer(url: &str, user: &str, phase: &str, acked: &Arc<watch::Sender<u64>>) -> RetryingWriter {
    let message = |number| (format!("{phase}-{number}"), format!(r#"{{"number":{number}}}"#));
    let messages: Vec<_> = (0..MESSAGES).map(message).collect();
    RetryingWriter::start(identity(url, user), messages, Arc::clone(acked))
}

async fn readiness(stage: &Stage, gateway: usize, status: u16) {
    let url = format!("{}/readyz", stage.gateway_health_url(gateway));
    eventually(&format!("gateway {gateway} says {status}"), async || {
        let response = http_get(&url).await.map_err(|error| format!("{error:#}"))?;
        seen(response.status == status, || format!("{} {}", response.status, response.body))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_subscriber_connection_is_noticed_and_made_up_for() {
    let stage = Stage::start(|options| {
        options.redis_proxies = true;
        options.gateway_env.push(("STARLING_PROBE_SECONDS".to_owned(), "1".to_owned()));
    })
    .await;
    let (near, far) = (stage.gateway_url(0), stage.gateway_url(1));
    let mut readers = Vec::new();
    for (url, user, name) in [(&near, "alice", "near"), (&far, "bob", "far"), (&far, "alice", "far too")] {
        readers.push(ResumingReader::start(name.to_owned(), identity(url, user)).await.unwrap());
    }
    let (acked, _) = watch::channel(0);
    let acked = Arc::new(acked);
    let mut evidence = Evidence {
        conversation: CONVERSATION.to_owned(),
        durability: Durability::Accepted,
        ..Evidence::default()
    };

    // The stall begins in the middle of these.
    let writers = ["alice", "bob"].map(|user| writer(&near, user, "before", &acked));
    let middle = acked.subscribe().wait_for(|acked| *acked >= MESSAGES as u64 / 2).await.map(|acked| *acked);
    assert!(middle.unwrap() < 2 * MESSAGES as u64);
    let failures = metric(&stage.gateway_health_url(1), "starling_probe_failures_total").await;
    stage.redis_proxy(1).stall_connections_that_sent(SUBSCRIBES);
    readiness(&stage, 1, 503).await;
    for writer in writers {
        evidence.writers.push(writer.finish().await);
    }

    // The other node does not care: it takes messages and delivers them.
    readiness(&stage, 0, 200).await;
    for writer in ["alice", "bob"].map(|user| writer(&near, user, "during", &acked)) {
        evidence.writers.push(writer.finish().await);
    }
    let last = evidence.writers.iter().filter_map(|writer| writer.acks.last()).map(|ack| ack.seq).max();
    assert!(readers[0].wait_for(last.unwrap(), PATIENCE).await, "the healthy node's reader gets everything");
    readiness(&stage, 1, 503).await;
    assert!(metric(&stage.gateway_health_url(1), "starling_probe_failures_total").await > failures);

    stage.redis_proxy(1).resume();
    readiness(&stage, 1, 200).await;
    for mut reader in readers {
        reader.wait_for(last.unwrap(), PATIENCE).await;
        evidence.readers.push(reader.stop().await);
    }
    for url in [near, far] {
        let tokens = TokenSource::Secret(SECRET.to_owned());
        let messages = read_history(&url, &tokens, "alice", CONVERSATION).await.unwrap();
        evidence.histories.push(HistoryRecord { node: url, messages });
    }
    let verdict = judge(&evidence);
    eprintln!("{verdict}");
    assert!(verdict.is_clean(), "see the faults above");
    assert_eq!(verdict.acked, 4 * MESSAGES as u64);
}
