//! One process without anything else: its restarts, its crashes, its keys.

use deploy::http_get;
use loadtest::{
    check::Durability,
    token::TokenSource,
    verify::{self, read_history},
};

use crate::support::{PATIENCE, SECRET, Standalone, Traffic, connect};

const CONVERSATION: &str = "conv_alice_bob";
const BODY: &str = r#"{"text":"hello"}"#;

fn tokens() -> TokenSource {
    TokenSource::Secret(SECRET.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_keeps_everything_and_the_numbers_go_on() {
    let mut node = Standalone::start().await;
    let (client, _pushes) = connect(&node.url(), "alice").await.unwrap();
    for seq in 1..=5 {
        let sent = client.send(CONVERSATION, &format!("m{seq}"), BODY, false).await.unwrap();
        assert_eq!(sent.seq, seq);
    }
    let before = read_history(&node.url(), &tokens(), "bob", CONVERSATION).await.unwrap();
    assert_eq!(before.len(), 5);

    node.process().terminate();
    let status = node.process().wait_exit(PATIENCE).await.unwrap();
    assert!(status.success(), "{status}");
    let log = std::fs::metadata(node.data_dir().join("starling.db-wal")).map_or(0, |file| file.len());
    assert_eq!(log, 0, "the one file has everything, for whoever copies it");
    node.start_again().await;

    assert_eq!(read_history(&node.url(), &tokens(), "bob", CONVERSATION).await.unwrap(), before);
    let (client, _pushes) = connect(&node.url(), "alice").await.unwrap();
    let again = client.send(CONVERSATION, "m5", BODY, true).await.unwrap();
    assert_eq!((again.seq, &again.id), (5, &before[4].id), "a retry gets the first answer");
    assert_eq!(client.send(CONVERSATION, "m6", BODY, false).await.unwrap().seq, 6);
    let after = read_history(&node.url(), &tokens(), "bob", CONVERSATION).await.unwrap();
    assert_eq!((after.len(), after[5].prev), (6, 5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_under_traffic_loses_nothing() {
    let mut node = Standalone::start().await;
    let traffic = Traffic { conversations: 2, ..Traffic::default() };
    let run = node.traffic(traffic).await;
    traffic.wait_middle(&run).await;
    node.process().terminate();
    run.enough();
    node.process().wait_exit(PATIENCE).await.unwrap();
    node.start_again().await;
    traffic.finish(run).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_under_traffic_loses_nothing_and_no_number_is_used_twice() {
    let mut node = Standalone::start().await;
    // What a reader was given and no writer was answered for may go down with the log, and come again by the retry.
    let traffic = Traffic { conversations: 2, durability: Durability::Acknowledged, ..Traffic::default() };
    let run = node.traffic(traffic).await;
    traffic.wait_middle(&run).await;
    node.process().kill9();
    run.enough();
    node.start_again().await;
    traffic.finish(run).await;

    // With nobody writing: what comes after the crash is above everything before it.
    let (client, _pushes) = connect(&node.url(), "alice").await.unwrap();
    let before = client.send(CONVERSATION, "before", BODY, false).await.unwrap().seq;
    node.process().kill9();
    node.start_again().await;
    let (client, _pushes) = connect(&node.url(), "alice").await.unwrap();
    assert!(client.send(CONVERSATION, "after", BODY, false).await.unwrap().seq > before);
    let history = read_history(&node.url(), &tokens(), "bob", CONVERSATION).await.unwrap();
    assert_eq!((history.len(), history[1].prev), (2, before));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_on_the_same_data_is_refused() {
    let node = Standalone::start().await;
    let mut rival = node.start_rival();
    let status = rival.wait_exit(PATIENCE).await.unwrap();
    let output = rival.log_tail();
    assert!(!status.success(), "{output}");
    assert!(output.contains("another process"), "it does not say why:\n{output}");
    connect(&node.url(), "alice").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_tokens_are_given_without_a_key_and_survive_a_restart() {
    let mut node = Standalone::start_with(&[]).await;
    let token = TokenSource::Dev.token(&node.url(), "alice").await.unwrap();
    loadtest::client::Client::connect(&node.url(), &token).await.unwrap();
    node.process().kill9();
    node.start_again().await;
    loadtest::client::Client::connect(&node.url(), &token).await.unwrap();
    let options =
        verify::Options { messages: 50, ..verify::Options::new(vec![node.url()], TokenSource::Dev) };
    let verdict = verify::run(options, |_, _| {}).await.unwrap();
    assert!(verdict.is_clean(), "{verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_tokens_are_off_with_a_key() {
    let mut node = Standalone::start().await;
    let url = format!("{}/dev/token?user=alice", node.url());
    assert_eq!(http_get(&url).await.unwrap().status, 404);
    let log = node.process().log_tail();
    assert!(log.contains("/dev/token is off"), "{log}");
}
