//! What happens when the log is full: a definite refusal, and nothing accepted is lost.

use loadtest::{client::ClientError, token::TokenSource, verify::read_history};

use crate::support::{SECRET, Stage, connect, eventually, metric};

const BACKLOG_ENTRIES_MAX: u64 = 50;
const CONVERSATION: &str = "conv_alice_bob";
const BODY: &str = r#"{"text":"hello"}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_log_refuses_and_recovers() {
    let mut stage = Stage::start(|options| {
        let limits = [
            ("STARLING_BACKLOG_ENTRIES_MAX", BACKLOG_ENTRIES_MAX.to_string()),
            ("STARLING_PARTITIONS", "1".to_owned()),
        ];
        options.gateway_env.extend(limits.map(|(name, value)| (name.to_owned(), value)));
    })
    .await;
    let (client, _pushes) = connect(&stage.gateway_url(0), "alice").await.unwrap();
    client.send(CONVERSATION, "before", BODY, false).await.unwrap();
    stage.wait_stored(1).await;

    stage.postgres().stop().await.unwrap();
    let mut accepted = 1;
    let refusal = loop {
        match client.send(CONVERSATION, &format!("full-{accepted}"), BODY, false).await {
            Ok(sent) => {
                accepted += 1;
                assert_eq!(sent.seq, accepted);
                assert!(accepted <= BACKLOG_ENTRIES_MAX + 1, "the log takes more than its limit");
            }
            Err(error) => break error,
        }
    };
    assert!(matches!(refusal, ClientError::Refused { code: 503, temporary: true, .. }), "{refusal:?}");
    assert_eq!(accepted, BACKLOG_ENTRIES_MAX + 1);
    eprintln!("after {BACKLOG_ENTRIES_MAX} messages: {refusal}");
    let health = stage.gateway_health_url(0);
    assert!(metric(&health, "starling_publishes_backlog_full_total").await > 0.0);

    stage.postgres().restart().await.unwrap();
    let refused_before = format!("full-{accepted}");
    eventually("there is room again", async || {
        let sent = client.send(CONVERSATION, &refused_before, BODY, true).await;
        sent.map(drop).map_err(|error| error.to_string())
    })
    .await;
    stage.wait_stored(accepted + 1).await;
    let tokens = TokenSource::Secret(SECRET.to_owned());
    for url in stage.gateway_urls() {
        let history = read_history(&url, &tokens, "bob", CONVERSATION).await.unwrap();
        let seqs: Vec<u64> = history.iter().map(|entry| entry.seq).collect();
        assert_eq!(seqs, (1..=accepted + 1).collect::<Vec<_>>(), "{url}");
    }
}
