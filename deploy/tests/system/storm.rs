//! All clients of a node that died come to the other one at once: all resume, and whoever was there before is served on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use loadtest::{
    client::{Client, ClientError},
    session::{Identity, ResumingReader},
    token::TokenSource,
};
use tokio::{sync::Semaphore, task::JoinSet};

use crate::support::{SECRET, Stage, connect, eventually, seen};

/// How many come, unless `STARLING_STORM_CLIENTS` says otherwise.
const CLIENTS: usize = 2_000;
/// How many connect at the same time while nothing is broken yet.
const CALM: usize = 64;
/// Far above what it takes; only a failure waits for it.
const STORM_PATIENCE: Duration = Duration::from_mins(3);
const BODY: &str = r#"{"text":"hello"}"#;
/// Where those talk who are not concerned.
const OTHERS: &str = "conv_alice_bob";

fn clients() -> usize {
    std::env::var("STARLING_STORM_CLIENTS").map_or(CLIENTS, |clients| clients.parse().unwrap())
}

/// A direct conversation with the one who writes to all.
fn conversation(number: usize) -> String {
    format!("conv_u{number:05}_writer")
}

fn identity(urls: Vec<String>, user: &str, conversation: &str) -> Identity {
    let tokens = TokenSource::Secret(SECRET.to_owned());
    Identity { urls, tokens, user: user.to_owned(), conversation: conversation.to_owned() }
}

/// Readers at the first node, each in a conversation of its own.
async fn gather(urls: &[String]) -> Vec<ResumingReader> {
    let (calm, mut starting) = (Arc::new(Semaphore::new(CALM)), JoinSet::new());
    for number in 0..clients() {
        let (calm, identity) =
            (calm.clone(), identity(urls.to_vec(), &format!("u{number:05}"), &conversation(number)));
        starting.spawn(async move {
            let _turn = calm.acquire().await.unwrap();
            ResumingReader::start(identity.user.clone(), identity).await.unwrap()
        });
    }
    starting.join_all().await
}

/// Sends until it is answered: on a machine that is busy with its clients, an answer may take longer than one waits for it.
async fn send(client: &Client, conversation: &str, client_id: &str) -> u64 {
    let mut retry = false;
    loop {
        match client.send(conversation, client_id, BODY, retry).await {
            Ok(sent) => return sent.seq,
            Err(error) if error != ClientError::Closed && !error.is_definite() => retry = true,
            Err(error) => panic!("{conversation}: {error}"),
        }
    }
}

/// One message to each conversation.
async fn write_to_all(writer: &Client, name: &str) {
    for number in 0..clients() {
        send(writer, &conversation(number), name).await;
    }
}

async fn all_have(readers: &[ResumingReader], count: usize) {
    let deadline = Instant::now() + STORM_PATIENCE;
    loop {
        let missing = readers.iter().filter(|reader| reader.count() < count).count();
        if missing == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "{missing} of {} wait for message {count}", readers.len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_clients_of_a_dead_node_come_back_at_once() {
    let mut stage = Stage::start(|_| {}).await;
    let (urls, survivor) = (stage.gateway_urls(), stage.gateway_url(1));
    let readers = gather(&urls).await;
    let (writer, _notices) = connect(&survivor, "writer").await.unwrap();
    write_to_all(&writer, "first").await;
    all_have(&readers, 1).await;

    // Two who are not concerned go on talking.
    let bob = ResumingReader::start("bob".to_owned(), identity(vec![survivor.clone()], "bob", OTHERS));
    let mut bob = bob.await.unwrap();
    let (alice, _pushes) = connect(&survivor, "alice").await.unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let talking = tokio::spawn({
        let is_over = is_over.clone();
        async move {
            let mut said = 0;
            while !is_over.load(Ordering::Relaxed) {
                said = send(&alice, OTHERS, &said.to_string()).await;
            }
            said
        }
    });
    eventually("they talk", async || seen(bob.count() > 10, || bob.count().to_string())).await;

    let (began, before) = (Instant::now(), bob.count());
    stage.kill_gateway(0);
    // What they miss meanwhile they must be given when they resume.
    write_to_all(&writer, "second").await;
    all_have(&readers, 2).await;
    let (took, meanwhile) = (began.elapsed(), bob.count() - before);
    is_over.store(true, Ordering::Relaxed);
    let said = talking.await.unwrap();
    eprintln!(
        "{} clients came back in {:.1} s; {meanwhile} messages of others meanwhile",
        clients(),
        took.as_secs_f32()
    );
    assert!(meanwhile > 0, "others were starved");

    assert!(bob.wait_for(said, STORM_PATIENCE).await);
    let record = bob.stop().await;
    assert_eq!(record.reconnects, 0, "others were sent away");
    let heard: Vec<u64> = record.received.iter().map(|entry| entry.seq).collect();
    assert_eq!(heard, (record.from + 1..=said).collect::<Vec<_>>());
    for reader in readers {
        let record = reader.stop().await;
        let seqs: Vec<u64> = record.received.iter().map(|entry| entry.seq).collect();
        assert_eq!((seqs.as_slice(), record.limited), ([1, 2].as_slice(), 0), "{}", record.name);
    }
}
