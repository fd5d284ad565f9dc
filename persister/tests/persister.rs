//! The loop over a log in memory and a store in a file: what is published is stored, whatever happens in between.
#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use std::{sync::Arc, time::Duration};

use persister::PersisterConfig;
use shared::{
    broker::{Inbound, Publication, Publish, memory::MemoryBroker},
    domain::{Epoch, Partition, Seq},
    store::Committed,
};
use support::*;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn everything_published_ends_in_the_store_in_order() {
    let place = Place::new();
    let node = place.node("n");
    let running = place.start("p", Arc::clone(&place.log));
    let mut last = Vec::new();
    for n in 0..200 {
        let name = ["a", "b", "c", "d", "e"][n % 5];
        last.push(place.publish(name, n).await);
    }
    place.is_stored_and_log_is_empty(200).await;
    for (index, name) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
        let stored = place.history(name).await;
        let expected: Vec<String> = (0..40).map(|n| (n * 5 + index).to_string()).collect();
        assert_eq!(bodies(&stored), expected, "{name}");
        let prevs: Vec<Seq> = stored.iter().map(|message| message.prev).collect();
        let seqs: Vec<Seq> = stored.iter().map(|message| message.seq).collect();
        assert_eq!(prevs[1..], seqs[..39], "{name}");
    }
    // Each partition's newest entry was told to every node.
    let newest = last.iter().map(|accepted| accepted.position).max().unwrap();
    node.hears(|inbound| matches!(inbound, Inbound::Stored(_, position) if *position >= newest)).await;
    assert!(!running.stop().await, "only a persister that drains can say that the log is empty");
}

#[tokio::test]
async fn a_batch_that_was_committed_and_not_trimmed_is_not_stored_again() {
    let place = Place::new();
    for n in 0..50 {
        place.publish("a", n).await;
    }
    let partition = partition("a");
    let mut reader = place.log.reader().await.unwrap();
    reader.assign(&[partition]);
    let batch = reader.read(30, Duration::ZERO).await.unwrap().remove(0);
    let messages: Vec<_> = batch.entries.iter().map(|entry| entry.content.clone().unwrap()).collect();
    let mut writer = place.store.writer("killed").await.unwrap();
    writer.beat().await.unwrap();
    assert!(writer.lock(partition).await.unwrap());
    let cursor = batch.entries.last().unwrap().position;
    let committed = writer.commit(&messages, &[(partition, cursor)]).await.unwrap();
    assert_eq!(committed, Committed { inserted: 30, ..Committed::default() });
    drop(writer);

    let running = place.start("p", Arc::clone(&place.log));
    place.is_stored_and_log_is_empty(50).await;
    let expected: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    assert_eq!(bodies(&place.history("a").await), expected);
    running.stop().await;
}

#[tokio::test]
async fn a_message_whose_seq_is_taken_gets_another_and_none_is_lost() {
    let place = Place::new();
    let (name, partition) = (conversation("a"), partition("a"));
    // The store has a message at seq 1 that the broker does not know of.
    let mut writer = place.store.writer("phantom").await.unwrap();
    writer.beat().await.unwrap();
    assert!(writer.lock(partition).await.unwrap());
    let phantom = payload("a", 0).at(name.clone(), Seq(1), Seq(0), 1);
    writer.commit(&[phantom], &[]).await.unwrap();
    drop(writer);
    place.publisher.seed(partition).await.unwrap();
    let broker = MemoryBroker::new(Arc::clone(&place.memory));
    for n in 1..=3 {
        let publish = Publish {
            conversation: name.clone(),
            payload: payload("a", n),
            seed: Some(Seq(0)),
            retry: false,
            checked: true,
        };
        let publication = shared::broker::Broker::publish(&broker, &publish).await.unwrap();
        assert!(matches!(publication, Publication::Accepted(accepted) if accepted.seq == Seq(n as u64)));
    }

    let running = place.start("p", Arc::clone(&place.log));
    place.is_stored_and_log_is_empty(4).await;
    let stored = place.history("a").await;
    assert_eq!(bodies(&stored), ["0", "2", "3", "1"], "the second message of seq 1 comes last");
    assert_eq!(stored.iter().map(|message| message.seq.0).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(stored[3].id, payload("a", 1).id, "a retry long after must find it");
    assert_eq!(stored[3].client_id, None);
    running.stop().await;
}

#[tokio::test]
async fn a_clean_stop_with_drain_leaves_nothing_in_the_log() {
    let place = Place::new();
    for n in 0..500 {
        place.publish(["a", "b", "c"][n % 3], n).await;
    }
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    let config = PersisterConfig { drain_on_stop: true, batch_entries: 7, ..PersisterConfig::new("p") };
    assert!(persister::run(place.parts(config, Arc::clone(&place.log)), shutdown).await);
    assert_eq!(place.backlog().await, 0);
    assert_eq!(place.count().await, 500);
}

#[tokio::test]
async fn two_share_the_partitions_and_one_takes_over() {
    let place = Place::new();
    let half = usize::from(PARTITIONS) / 2;
    let (first_log, first) = Assigned::over(&place.log);
    let (second_log, second) = Assigned::over(&place.log);
    let first_run = place.start("first", first_log);
    eventually(async || (first.now().len() == usize::from(PARTITIONS)).then_some(())).await;
    let second_run = place.start("second", second_log);
    eventually(async || {
        let (first, second) = (first.now(), second.now());
        (first.len() == half && second.len() == half && first.is_disjoint(&second)).then_some(())
    })
    .await;
    for n in 0..40 {
        place.publish(["a", "b", "c", "d", "e"][n % 5], n).await;
    }
    place.is_stored_and_log_is_empty(40).await;
    // As a kill does: nothing is released, the writer is merely gone.
    first_run.kill().await;
    eventually(async || (second.now().len() == usize::from(PARTITIONS)).then_some(())).await;
    for n in 40..80 {
        place.publish(["a", "b", "c", "d", "e"][n % 5], n).await;
    }
    place.is_stored_and_log_is_empty(80).await;
    second_run.stop().await;
}

#[tokio::test]
async fn a_log_that_was_opened_anew_is_read_on() {
    let place = Place::new();
    let running = place.start("p", Arc::clone(&place.log));
    for n in 0..10 {
        place.publish("a", n).await;
    }
    place.is_stored_and_log_is_empty(10).await;
    let broker = MemoryBroker::new(Arc::clone(&place.memory));
    for partition in Partition::all(PARTITIONS) {
        shared::broker::Broker::seed(&broker, partition, Epoch(9)).await.unwrap();
    }
    for n in 10..20 {
        place.publish("a", n).await;
    }
    place.is_stored_and_log_is_empty(20).await;
    let expected: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    assert_eq!(bodies(&place.history("a").await), expected);
    running.stop().await;
}
