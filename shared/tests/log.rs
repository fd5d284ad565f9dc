//! One suite for both logs, and what only a Redis can suffer.

#![expect(clippy::unwrap_used, reason = "a failure is what a test is for")]

mod support_ports;

use std::time::Duration;

use bytes::Bytes;
use deploy::{PATIENCE, eventually};
use shared::{
    broker::{Accepted, LogPosition, sequence::Limits},
    domain::{Epoch, Message, Partition, Seq},
    log::{LogBatch, LogReader, Trimmed},
};
use support_ports::*;

suite!(
    entries_are_read_in_order_and_once,
    a_reader_waits_for_what_comes,
    what_is_trimmed_is_gone_and_the_rest_stays,
    a_rewound_or_new_reader_starts_at_the_head,
    a_reader_reads_what_it_is_assigned,
    a_trim_across_epochs_is_refused_and_the_reader_starts_over,
    the_backlog_counts_what_is_there,
    a_dead_letter_is_put_aside,
);

const SHORT: Duration = Duration::from_millis(50);

async fn reader(log: &dyn shared::log::Log) -> Box<dyn LogReader> {
    let mut reader = log.reader().await.unwrap();
    reader.assign(&Partition::all(PARTITIONS).collect::<Vec<_>>());
    reader
}

/// Reads until there is nothing more.
async fn drain(reader: &mut dyn LogReader) -> Vec<LogBatch> {
    let mut all = Vec::new();
    loop {
        let batches = reader.read(7, SHORT).await.unwrap();
        if batches.is_empty() {
            return all;
        }
        assert!(batches.iter().all(|batch| (1..=7).contains(&batch.entries.len())));
        all.extend(batches);
    }
}

fn messages(batches: &[LogBatch], of: Partition) -> Vec<(LogPosition, Message)> {
    let entries = batches.iter().filter(|batch| batch.partition == of).flat_map(|batch| &batch.entries);
    entries.map(|entry| (entry.position, entry.content.clone().unwrap())).collect()
}

async fn entries_are_read_in_order_and_once<E: Environment>() {
    let environment = E::new(Limits::default()).await;
    let (broker, log) = (environment.broker().await, environment.log());
    open(&*broker, 0).await;
    let mut reader = reader(&*log).await;
    let mut accepted: Vec<(Partition, Accepted)> = Vec::new();
    for round in 0..2 {
        for n in 0..30 {
            let to = ["a", "b", "c"][n % 3];
            accepted.push((partition(to), accept(&*broker, named(to, &format!("{round}-{n}"))).await));
        }
        let read = drain(&mut *reader).await;
        for which in Partition::all(PARTITIONS) {
            let expected = accepted.iter().filter(|(partition, _)| *partition == which);
            let expected: Vec<_> = expected.map(|(_, accepted)| (accepted.position, accepted.seq)).collect();
            let got = messages(&read, which);
            let got: Vec<_> = got.iter().map(|(position, message)| (*position, message.seq)).collect();
            assert_eq!(got, expected);
        }
        accepted.clear();
    }
}

async fn a_reader_waits_for_what_comes<E: Environment>() {
    let environment = E::new(Limits::default()).await;
    let (broker, log) = (environment.broker().await, environment.log());
    let mut reader = reader(&*log).await;
    assert!(reader.read(10, SHORT).await.unwrap().is_empty());
    let publish = async {
        tokio::time::sleep(SHORT).await;
        open(&*broker, 0).await;
        accept(&*broker, named("a", "1")).await
    };
    let (read, accepted) = tokio::join!(reader.read(10, PATIENCE), publish);
    let read = messages(&read.unwrap(), partition("a"));
    let publish = named("a", "1");
    let message = publish.payload.at(publish.conversation, Seq(1), Seq(0), accepted.time);
    assert_eq!(read, [(accepted.position, message)]);
}

async fn what_is_trimmed_is_gone_and_the_rest_stays<E: Environment>() {
    let environment = E::new(Limits::default()).await;
    let (broker, log) = (environment.broker().await, environment.log());
    open(&*broker, 0).await;
    let mut places = Vec::new();
    for _ in 0..10 {
        places.push(accept(&*broker, unnamed("a")).await.position);
    }
    let mut first = reader(&*log).await;
    drain(&mut *first).await;
    assert_eq!(first.trim(&[(partition("a"), places[5])]).await.unwrap(), [Trimmed::Done]);
    // Trimming does not move the reader.
    assert!(first.read(10, SHORT).await.unwrap().is_empty());
    let mut second = reader(&*log).await;
    let left: Vec<_> =
        messages(&drain(&mut *second).await, partition("a")).iter().map(|entry| entry.0).collect();
    assert_eq!(left, places[6..]);
    assert_eq!(second.trim(&[(partition("a"), places[2])]).await.unwrap(), [Trimmed::Done]);
    assert_eq!(second.trim(&[(partition("a"), places[9])]).await.unwrap(), [Trimmed::Done]);
    assert!(log.backlog().await.unwrap().iter().all(|backlog| backlog.entries == 0));
    let next = accept(&*broker, unnamed("a")).await.position;
    let read = messages(&drain(&mut *second).await, partition("a"));
    assert_eq!(read.iter().map(|entry| entry.0).collect::<Vec<_>>(), [next]);
}

async fn a_rewound_or_new_reader_starts_at_the_head<E: Environment>() {
    let environment = E::new(Limits::default()).await;
    let (broker, log) = (environment.broker().await, environment.log());
    open(&*broker, 0).await;
    for _ in 0..10 {
        accept(&*broker, unnamed("a")).await;
    }
    let mut one = reader(&*log).await;
    let all = messages(&drain(&mut *one).await, partition("a"));
    assert_eq!(all.len(), 10);
    one.rewind();
    assert_eq!(messages(&drain(&mut *one).await, partition("a")), all);
    assert_eq!(messages(&drain(&mut *reader(&*log).await).await, partition("a")), all);
}

async fn a_reader_reads_what_it_is_assigned<E: Environment>() {
    let environment = E::new(Limits::default()).await;
    let (broker, log) = (environment.broker().await, environment.log());
    open(&*broker, 0).await;
    let (a, c) = (partition("a"), partition("c"));
    assert_ne!(a, c);
    accept(&*broker, unnamed("a")).await;
    accept(&*broker, unnamed("c")).await;
    let mut reader = log.reader().await.unwrap();
    assert!(drain(&mut *reader).await.is_empty());
    reader.assign(&[a]);
    let read = drain(&mut *reader).await;
    assert_eq!((messages(&read, a).len(), messages(&read, c).len()), (1, 0));
    reader.assign(&[a, c]);
    let read = drain(&mut *reader).await;
    assert_eq!((messages(&read, a).len(), messages(&read, c).len()), (0, 1));
    reader.assign(&[c]);
    accept(&*broker, unnamed("a")).await;
    assert!(drain(&mut *reader).await.is_empty());
    assert_eq!(reader.trim(&[(a, LogPosition::default())]).await.unwrap(), [Trimmed::Changed]);
    // Taken back, the partition is read from its head.
    reader.assign(&[a, c]);
    assert_eq!(messages(&drain(&mut *reader).await, a).len(), 2);
}

async fn a_trim_across_epochs_is_refused_and_the_reader_starts_over<E: Environment>() {
    let environment = E::new(Limits::default()).await;
    let (broker, log) = (environment.broker().await, environment.log());
    open(&*broker, 0).await;
    let first = accept(&*broker, unnamed("a")).await;
    let mut reader = reader(&*log).await;
    assert_eq!(messages(&drain(&mut *reader).await, partition("a")).len(), 1);
    open(&*broker, 1).await;
    let second = accept(&*broker, unnamed("a")).await;
    assert_eq!(reader.trim(&[(partition("a"), first.position)]).await.unwrap(), [Trimmed::Changed]);
    let read: Vec<_> =
        messages(&drain(&mut *reader).await, partition("a")).iter().map(|entry| entry.0).collect();
    assert_eq!(read, [first.position, second.position]);
    assert_eq!((first.position.epoch, second.position.epoch), (Epoch(0), Epoch(1)));
    assert_eq!(reader.trim(&[(partition("a"), second.position)]).await.unwrap(), [Trimmed::Done]);
    assert!(log.backlog().await.unwrap().iter().all(|backlog| backlog.entries == 0));
}

async fn the_backlog_counts_what_is_there<E: Environment>() {
    let environment = E::new(Limits::default()).await;
    let (broker, log) = (environment.broker().await, environment.log());
    open(&*broker, 0).await;
    let first = accept(&*broker, unnamed("a")).await;
    for _ in 0..4 {
        accept(&*broker, unnamed("a")).await;
    }
    let backlog = log.backlog().await.unwrap();
    assert_eq!(backlog.len(), usize::from(PARTITIONS));
    for (backlog, which) in backlog.iter().zip(Partition::all(PARTITIONS)) {
        assert_eq!(backlog.partition, which);
        let expected = if which == partition("a") { (5, Some(first.position.entry.ms)) } else { (0, None) };
        assert_eq!((backlog.entries, backlog.oldest_ms), expected);
    }
}

async fn a_dead_letter_is_put_aside<E: Environment>() {
    let environment = E::new(Limits::default()).await;
    let (broker, log) = (environment.broker().await, environment.log());
    open(&*broker, 0).await;
    accept(&*broker, unnamed("a")).await;
    let mut reader = reader(&*log).await;
    let read = drain(&mut *reader).await;
    log.dead_letter(partition("a"), &read[0].entries[0], "too odd").await.unwrap();
    assert_eq!(environment.dead_letters(partition("a")).await, 1);
    assert_eq!(environment.dead_letters(partition("c")).await, 0);
}

/// The full name of a key of the partition.
async fn key(environment: &OnRedis, of: &str) -> Vec<String> {
    let pattern = format!("{{*}}{of}");
    redis_command(environment, &["KEYS", &pattern]).await
}

async fn redis_command<T: ::redis::FromRedisValue>(environment: &OnRedis, words: &[&str]) -> T {
    let mut command = ::redis::cmd(words[0]);
    command.arg(&words[1..]).query_async(&mut environment.raw().await).await.unwrap()
}

#[tokio::test]
async fn an_entry_that_nobody_wrote_is_handed_out_as_it_is() {
    let environment = OnRedis::new(Limits::default()).await;
    let (broker, log) = (environment.broker().await, environment.log());
    open(&*broker, 0).await;
    accept(&*broker, unnamed("a")).await;
    let log_key = key(&environment, "log").await.remove(0);
    let _: String =
        redis_command(&environment, &["XADD", &log_key, "*", "c", "a", "s", "many", "x", "y"]).await;
    accept(&*broker, unnamed("a")).await;
    let mut reader = reader(&*log).await;
    let read = reader.read(10, SHORT).await.unwrap();
    let entries = &read[0].entries;
    assert!(entries[0].content.is_ok() && entries[2].content.is_ok());
    let unreadable = entries[1].content.clone().unwrap_err();
    let field = |name: &str, value: &'static str| (name.to_owned(), Bytes::from_static(value.as_bytes()));
    assert_eq!(unreadable.fields, [field("c", "a"), field("s", "many"), field("x", "y")]);
    assert!(entries[1].position > entries[0].position && entries[1].position < entries[2].position);
    log.dead_letter(partition("a"), &entries[1], &unreadable.reason).await.unwrap();
    assert_eq!(environment.dead_letters(partition("a")).await, 1);
    assert_eq!(reader.trim(&[(partition("a"), entries[2].position)]).await.unwrap(), [Trimmed::Done]);
}

#[tokio::test]
async fn a_log_that_was_lost_and_whose_clock_went_back_is_read_from_its_head() {
    let environment = OnRedis::new(Limits::default()).await;
    let (broker, log) = (environment.broker().await, environment.log());
    open(&*broker, 0).await;
    let log_key = {
        accept(&*broker, unnamed("a")).await;
        key(&environment, "log").await.remove(0)
    };
    // As if the clock had been ahead by centuries: no id that a clock gives out comes after this one.
    let far =
        ["XADD", &log_key, "9000000000000-0", "c", "a", "s", "2", "p", "1", "t", "1", "e", "0", "r", "?"];
    let _: String = redis_command(&environment, &far).await;
    let mut reader = reader(&*log).await;
    let read = reader.read(10, SHORT).await.unwrap();
    let newest = read[0].entries[1].position;
    let () = redis_command(&environment, &["FLUSHALL"]).await;
    assert_eq!(reader.trim(&[(partition("a"), newest)]).await.unwrap(), [Trimmed::Changed]);
    open(&*broker, 1).await;
    let accepted = accept(&*broker, unnamed("a")).await;
    assert!(accepted.position.entry < newest.entry && accepted.position > newest);
    let read = messages(&reader.read(10, PATIENCE).await.unwrap(), partition("a"));
    assert_eq!(read.iter().map(|entry| entry.0).collect::<Vec<_>>(), [accepted.position]);
}

#[tokio::test]
async fn a_reader_that_waits_notices_a_lost_log_by_itself() {
    let environment = OnRedis::new(Limits::default()).await;
    let (broker, log) = (environment.broker().await, environment.log());
    open(&*broker, 0).await;
    accept(&*broker, unnamed("a")).await;
    let log_key = key(&environment, "log").await.remove(0);
    let far = ["XADD", &log_key, "9000000000000-0", "x", "y"];
    let _: String = redis_command(&environment, &far).await;
    let mut reader = reader(&*log).await;
    drain(&mut *reader).await;
    let () = redis_command(&environment, &["FLUSHALL"]).await;
    open(&*broker, 1).await;
    let accepted = accept(&*broker, unnamed("a")).await;
    let read = messages(&reader.read(10, PATIENCE).await.unwrap(), partition("a"));
    assert_eq!(read.iter().map(|entry| entry.0).collect::<Vec<_>>(), [accepted.position]);
}

#[tokio::test]
async fn after_a_crash_of_redis_a_reader_starts_over() {
    let mut environment = OnRedis::new(Limits::default()).await;
    let (broker, log) = (environment.broker().await, environment.log());
    open(&*broker, 0).await;
    let accepted = accept(&*broker, unnamed("a")).await;
    let mut reader = reader(&*log).await;
    assert_eq!(drain(&mut *reader).await.len(), 1);
    environment.server.kill9();
    assert!(reader.read(10, PATIENCE).await.is_err());
    assert_eq!(reader.trim(&[(partition("a"), accepted.position)]).await.unwrap(), [Trimmed::Changed]);
    environment.server.restart().await.unwrap();
    let read = eventually(async || reader.read(10, SHORT).await.ok().filter(|read| !read.is_empty())).await;
    assert_eq!(messages(&read, partition("a"))[0].0, accepted.position);
    assert_eq!(reader.trim(&[(partition("a"), accepted.position)]).await.unwrap(), [Trimmed::Done]);
}

#[tokio::test]
async fn entries_without_an_epoch_wait_until_there_is_one() {
    let environment = OnRedis::new(Limits::default()).await;
    let (broker, log) = (environment.broker().await, environment.log());
    open(&*broker, 0).await;
    let accepted = accept(&*broker, unnamed("a")).await;
    for epoch in key(&environment, "ep").await {
        let _: u32 = redis_command(&environment, &["DEL", &epoch]).await;
    }
    let mut reader = reader(&*log).await;
    assert!(reader.read(10, SHORT).await.unwrap().is_empty());
    open(&*broker, 1).await;
    let read = messages(&reader.read(10, PATIENCE).await.unwrap(), partition("a"));
    assert_eq!(read[0].0, accepted.position);
    assert_eq!(reader.trim(&[(partition("a"), accepted.position)]).await.unwrap(), [Trimmed::Done]);
}
