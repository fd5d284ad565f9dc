//! The orderly way out: not ready, a wait, clients sent away a few at a time with their answers, and the exit code.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use deploy::http_get;
use loadtest::client::Push;
use tokio::task::JoinSet;

use crate::support::{PATIENCE, SECRET, Stage, Standalone, connect, eventually, seen};

/// How the protocol tells a client to come back, since the node goes down.
const SHUTDOWN: u16 = 3001;
const CLIENTS: usize = 40;
/// The exit code after a second signal.
const AT_ONCE: i32 = 130;
const BODY: &str = r#"{"text":"hello"}"#;

fn set(options: &mut deploy::ClusterOptions, name: &str, value: &str) {
    options.gateway_env.push((name.to_owned(), value.to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_sent_away_a_few_at_a_time() {
    let mut stage = Stage::start(|options| {
        // Nobody may be sent away before what is done meanwhile is done.
        set(options, "STARLING_DRAIN_DELAY_SECONDS", "15");
        set(options, "STARLING_DRAIN_SECONDS", "5");
    })
    .await;
    let url = stage.gateway_url(0);
    let (gone, mut ends) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
    for number in 0..CLIENTS {
        let (client, mut pushes) = connect(&url, &format!("user{number}")).await.unwrap();
        let gone = Arc::clone(&gone);
        ends.spawn(async move {
            let _client = client;
            while let Some(push) = pushes.next().await {
                if let Push::Closed(code, reason) = push {
                    gone.fetch_add(1, Ordering::SeqCst);
                    return (code, reason);
                }
            }
            panic!("the last push says how it ended");
        });
    }
    stage.gateway(0).terminate();
    eventually("it is not ready", async || {
        let status = stage.readiness(0).await;
        seen(status == Some(503), || format!("{status:?}"))
    })
    .await;
    // Balancers have not noticed yet: who comes is served, and nobody is sent away.
    let (late, _pushes) = connect(&url, "late").await.unwrap();
    late.send("conv_bob_late", "1", BODY, false).await.unwrap();
    assert_eq!(gone.load(Ordering::SeqCst), 0);

    let first = ends.join_next().await.unwrap().unwrap();
    let at_first = gone.load(Ordering::SeqCst);
    assert!(at_first < CLIENTS, "all were sent away at once");
    let mut all = ends.join_all().await;
    all.push(first);
    assert_eq!(all, vec![(SHUTDOWN, "shutdown".to_owned()); CLIENTS]);
    let status = stage.gateway(0).wait_exit(PATIENCE).await.unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_an_answer_gets_it_first() {
    let mut stage = Stage::start(|options| set(options, "STARLING_ACK_MODE", "stored")).await;
    let (client, mut pushes) = connect(&stage.gateway_url(0), "alice").await.unwrap();
    client.send("conv_alice_bob", "before", BODY, false).await.unwrap();
    stage.wait_stored(1).await;
    for persister in 0..2 {
        stage.persister(persister).stop_signal();
    }
    let sending =
        tokio::spawn(async move { (client.send("conv_alice_bob", "pending", BODY, false).await, client) });
    eventually("it is accepted", async || {
        let entries = stage.log_entries().await.map_err(|error| error.to_string())?;
        seen(entries == 1, || format!("{entries} entries"))
    })
    .await;
    stage.gateway(0).terminate();
    eventually("the gateway goes down", async || {
        let status = stage.readiness(0).await;
        seen(status != Some(200), || format!("{status:?}"))
    })
    .await;
    // Time to be sent away without an answer; too short a time could only miss the defect.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!sending.is_finished(), "there is nothing to answer yet");
    for persister in 0..2 {
        stage.persister(persister).cont();
    }
    let (sent, _client) = sending.await.unwrap();
    assert_eq!(sent.unwrap().seq, 2);
    while let Some(push) = pushes.next().await {
        if let Push::Closed(code, _) = push {
            assert_eq!(code, SHUTDOWN);
        }
    }
    let status = stage.gateway(0).wait_exit(PATIENCE).await.unwrap();
    assert_eq!(status.code(), Some(0));
    stage.wait_stored(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_it_at_once() {
    let env = [("STARLING_TOKEN_HMAC_SECRET", SECRET), ("STARLING_DRAIN_DELAY_SECONDS", "3600")];
    let mut node = Standalone::start_with(&env).await;
    let _client = connect(&node.url(), "alice").await.unwrap();
    node.process().terminate();
    let url = format!("{}/readyz", node.health_url());
    eventually("it is not ready", async || {
        let response = http_get(&url).await.map_err(|error| error.to_string())?;
        seen(response.status == 503, || response.body)
    })
    .await;
    node.process().terminate();
    let status = node.process().wait_exit(PATIENCE).await.unwrap();
    assert_eq!(status.code(), Some(AT_ONCE));
}
