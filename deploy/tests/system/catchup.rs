//! Catching up: the hot tail, Postgres below it, live events above it, and no more than the limit.

use loadtest::{
    client::{Push, Pushes},
    wire::{Position, Publication, Subscribed},
};

use crate::support::{PATIENCE, Stage, connect};

const CONVERSATION: &str = "conv_alice_bob";
/// More than a hot tail keeps, so that the oldest must come from Postgres; fewer than one resume returns.
const MISSED: u64 = 450;
/// What one resume returns at most, by default.
const LIMIT: u64 = 500;

fn seqs(publications: &[Publication]) -> Vec<u64> {
    publications.iter().map(|publication| publication.offset).collect()
}

/// Reads live messages up to a seq.
async fn read_up_to(pushes: &mut Pushes, top: u64) -> Vec<u64> {
    let mut seen = Vec::new();
    while seen.last() != Some(&top) {
        let push = tokio::time::timeout(PATIENCE, pushes.next()).await.expect("it arrives");
        if let Push::Publication(_, publication) = push.expect("the connection lives") {
            seen.push(publication.offset);
        }
    }
    seen
}

async fn resume(url: &str, from: u64, epoch: &str) -> (Subscribed, Pushes, loadtest::client::Client) {
    let (bob, pushes) = connect(url, "bob").await.unwrap();
    let position = Position { epoch: epoch.to_owned(), seq: from };
    let subscribed = bob.subscribe(CONVERSATION, Some(&position)).await.unwrap();
    (subscribed, pushes, bob)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resume_has_no_hole_and_no_repeat_at_its_seams_and_no_more_than_the_limit() {
    let stage = Stage::start(|_| {}).await;
    let (alice, _alice_pushes) = connect(&stage.gateway_url(0), "alice").await.unwrap();
    for n in 1..=MISSED {
        let sent =
            alice.send(CONVERSATION, &format!("m{n}"), &format!(r#"{{"n":{n}}}"#), false).await.unwrap();
        assert_eq!(sent.seq, n);
    }

    // While bob resumes, alice goes on: what is live must follow what was missed.
    let writing = tokio::spawn(async move {
        for n in MISSED + 1..=LIMIT {
            alice.send(CONVERSATION, &format!("m{n}"), &format!(r#"{{"n":{n}}}"#), false).await.unwrap();
        }
        alice
    });
    let (subscribed, mut pushes, _bob) = resume(&stage.gateway_url(1), 0, "").await;
    assert!(subscribed.was_recovering && subscribed.recovered, "{} missed", subscribed.publications.len());
    let mut seen = seqs(&subscribed.publications);
    assert!(seen.len() as u64 >= MISSED, "{}", seen.len());
    if seen.last() != Some(&LIMIT) {
        seen.extend(read_up_to(&mut pushes, LIMIT).await);
    }
    assert_eq!(seen, (1..=LIMIT).collect::<Vec<_>>());
    let alice = writing.await.unwrap();

    // From the middle, and from the end.
    let (subscribed, ..) = resume(&stage.gateway_url(0), 300, &subscribed.epoch).await;
    assert_eq!(seqs(&subscribed.publications), (301..=LIMIT).collect::<Vec<_>>());
    let (subscribed, ..) = resume(&stage.gateway_url(1), LIMIT, &subscribed.epoch).await;
    assert!(subscribed.recovered && subscribed.publications.is_empty());

    // One above the limit: nothing partial, but a plain no; paging then has it all.
    alice.send(CONVERSATION, "one-more", r#"{"n":"last"}"#, false).await.unwrap();
    let (limited, _, bob) = resume(&stage.gateway_url(1), 0, &subscribed.epoch).await;
    assert!(limited.was_recovering && !limited.recovered && limited.publications.is_empty());
    assert_eq!(limited.offset, LIMIT + 1);
    let mut paged = Vec::new();
    while paged.last() != Some(&(LIMIT + 1)) {
        let page = bob.history(CONVERSATION, paged.last().copied().unwrap_or(0), 100).await.unwrap();
        assert!(!page.messages.is_empty(), "the end is not reached: {:?}", paged.last());
        paged.extend(page.messages.iter().map(|message| message.seq));
    }
    assert_eq!(paged, (1..=LIMIT + 1).collect::<Vec<_>>());

    // A position of another installation means nothing here.
    let (foreign, ..) = resume(&stage.gateway_url(1), 10, "elsewhere").await;
    assert!(foreign.was_recovering && !foreign.recovered && foreign.publications.is_empty());
}
