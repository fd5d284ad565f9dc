//! What the store refuses for ever goes aside, and everything else is stored, once and in order.
#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use shared::{
    broker::{BrokerError, LogPosition},
    domain::{MessageKind, Partition},
    log::{Backlog, Log, LogEntry, LogReader},
};
use support::*;

/// A log that notes what goes to the dead letters.
struct Letters {
    inner: Arc<dyn Log>,
    bodies: Arc<Mutex<Vec<String>>>,
}

#[async_trait]
impl Log for Letters {
    fn partitions(&self) -> u16 {
        self.inner.partitions()
    }
    async fn reader(&self) -> Result<Box<dyn LogReader>, BrokerError> {
        self.inner.reader().await
    }
    async fn notify_stored(&self, notices: &[(Partition, LogPosition)]) -> Result<(), BrokerError> {
        self.inner.notify_stored(notices).await
    }
    async fn dead_letter(
        &self,
        partition: Partition,
        entry: &LogEntry,
        reason: &str,
    ) -> Result<(), BrokerError> {
        self.bodies.lock().extend(bodies(&[entry.content.clone().unwrap()]));
        self.inner.dead_letter(partition, entry, reason).await
    }
    async fn backlog(&self) -> Result<Vec<Backlog>, BrokerError> {
        self.inner.backlog().await
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
    let letters = Arc::<Mutex<Vec<String>>>::default();
    let log = Letters { inner: Arc::clone(&place.log), bodies: Arc::clone(&letters) };
    let running = place.start("p", Arc::new(log));
    eventually(async || (place.backlog().await == 0).then_some(())).await;
    running.stop().await;
    let stored = place.history("a").await;
    let void = stored.iter().filter(|message| message.kind == MessageKind::VOID);
    assert!(void.clone().all(|message| message.client_id.is_none()));
    let letters = letters.lock().clone();
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
