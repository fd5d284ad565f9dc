//! `ack_mode = stored`: a send is answered once Postgres has it, and delivered before.

use std::{sync::Arc, time::Duration};

use loadtest::{
    session::{Identity, ResumingReader, RetryingWriter},
    token::TokenSource,
};
use tokio::sync::watch;

use crate::support::{PATIENCE, SECRET, Stage};

/// Time for a wrong answer to come. One that is too short could only miss a defect, never fail without one.
const GRACE: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_waits_for_the_store_and_delivery_does_not() {
    let mut stage = Stage::start(|options| {
        options.gateway_env.push(("STARLING_ACK_MODE".to_owned(), "stored".to_owned()));
    })
    .await;
    let identity = |user: &str| Identity {
        urls: stage.gateway_urls(),
        tokens: TokenSource::Secret(SECRET.to_owned()),
        user: user.to_owned(),
        conversation: "conv_alice_bob".to_owned(),
    };
    let (writing, mut reader) =
        (identity("alice"), ResumingReader::start("bob".to_owned(), identity("bob")).await.unwrap());
    let (acked, watched) = watch::channel(0);
    let acked = Arc::new(acked);
    let send = |name: &str| {
        let message = (name.to_owned(), r#"{"text":"hello"}"#.to_owned());
        RetryingWriter::start(writing.clone(), vec![message], Arc::clone(&acked))
    };

    let first = send("first").finish().await;
    assert_eq!((first.acks.len(), first.acks[0].seq), (1, 1), "{first:?}");
    assert_eq!(stage.rows().await, Ok(1), "it was answered, so it is stored");

    for persister in 0..2 {
        stage.persister(persister).stop_signal();
    }
    let second = send("second");
    assert!(reader.wait_for(2, PATIENCE).await, "it is accepted, so it is delivered");
    tokio::time::sleep(GRACE).await;
    assert_eq!(*watched.borrow(), 1, "it is answered although nothing can store it");
    assert_eq!(stage.rows().await, Ok(1));

    for persister in 0..2 {
        stage.persister(persister).cont();
    }
    let second = second.finish().await;
    assert_eq!((second.acks.len(), second.acks[0].seq), (1, 2), "{second:?}");
    stage.wait_stored(2).await;
}
