//! What the store refuses for ever goes aside, and everything else is stored, once and in order.
#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use std::sync::Arc;

use parking_lot::Mutex;
use shared::{domain::MessageKind, log::LogEntry};
use support::*;

/// Notes the bodies of what goes to the dead letters.
#[derive(Default)]
struct Letters(Mutex<Vec<String>>);

impl Watcher for Letters {
    fn put_aside(&self, entry: &LogEntry) {
        self.0.lock().extend(bodies(&[entry.content.clone().unwrap()]));
    }
}

/// Publishes 100 messages of one conversation, of which the store refuses the rows that `refuses` (SQL) is true for,
/// and returns what is stored and what went to the dead letters once the log is empty.
async fn persist(refuses: &str) -> (Vec<String>, Vec<String>) {
    let place = Place::new();
    rusqlite::Connection::open(place.database())
        .unwrap()
        .execute_batch(&format!(
            "CREATE TRIGGER refuse BEFORE INSERT ON messages WHEN {refuses}
             BEGIN SELECT RAISE(ABORT, 'refused'); END"
        ))
        .unwrap();
    for n in 1..=100 {
        place.publish("a", n).await;
    }
    let letters = Arc::<Letters>::default();
    let running = place.start("p", watched(Arc::clone(&place.log), &letters));
    eventually(async || (place.backlog().await == 0).then_some(())).await;
    running.stop().await;
    let stored = place.history("a").await;
    let void = stored.iter().filter(|message| message.kind == MessageKind::VOID);
    assert!(void.clone().all(|message| message.client_id.is_none()));
    let letters = letters.0.lock().clone();
    (bodies(&stored), letters)
}

#[tokio::test]
async fn what_the_store_refuses_goes_aside_and_leaves_a_void() {
    let (stored, letters) = persist("CAST(NEW.body AS TEXT) IN ('1', '41', '42', '100')").await;
    let expected: Vec<String> = (1..=100)
        .map(|n| if [1, 41, 42, 100].contains(&n) { "null".to_owned() } else { n.to_string() })
        .collect();
    assert_eq!(stored, expected);
    assert_eq!(letters, ["1", "41", "42", "100"]);
}

#[tokio::test]
async fn a_place_that_cannot_even_be_void_does_not_keep_the_rest_waiting() {
    let (stored, letters) = persist("NEW.seq = 50").await;
    let expected: Vec<String> = (1..=100).filter(|n| *n != 50).map(|n| n.to_string()).collect();
    assert_eq!(stored, expected);
    assert_eq!(letters, ["50"]);
}
