//! One suite for both brokers, and what only a Redis can suffer.

#![expect(clippy::unwrap_used, reason = "a failure is what a test is for")]

mod support_ports;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use deploy::{PATIENCE, TcpProxy, eventually};
use futures_util::future::join_all;
use shared::{
    broker::{
        Accepted, Audience, Broker, BrokerError, EntryId, Inbound, LogPosition, Publication, Publish,
        redis::{RedisBroker, RedisConfig},
        sequence::Limits,
    },
    domain::{Epoch, Event, NodeId, Partition, Seq},
    record::decode_live,
};
use support_ports::*;

suite!(
    messages_get_their_places_in_order,
    a_retry_gets_the_first_answer,
    nothing_is_published_before_the_partition_is_opened,
    an_epoch_opens_a_partition_once,
    a_conversation_continues_after_its_seed,
    a_young_epoch_asks_for_a_check,
    a_retry_asks_for_a_check_unless_it_is_remembered,
    a_full_log_refuses_and_writes_nothing,
    the_tail_says_whether_it_is_whole,
    many_who_ask_at_once_get_their_own_answers,
    a_tail_that_grows_is_read_without_a_hole,
    positions_are_in_the_order_asked,
    records_arrive_between_subscribe_and_unsubscribe,
    a_signal_arrives_and_leaves_no_trace,
    announcements_reach_whom_they_are_for,
    stored_notices_reach_every_node,
    writers_at_once_make_one_chain,
);

async fn messages_get_their_places_in_order<E: Environment>() {
    let environment = E::new(Limits::default()).await;
    let (one, other) = (environment.broker().await, environment.broker().await);
    open(&*one, 0).await;
    let mut last =
        Accepted { seq: Seq(0), prev: Seq(0), time: 0, position: LogPosition::default(), duplicate: false };
    for n in 0..20 {
        let broker = if n % 3 == 0 { &other } else { &one };
        let next =
            accept(&**broker, if n % 2 == 0 { unnamed("a") } else { named("a", &n.to_string()) }).await;
        assert_eq!((next.seq, next.prev), (Seq(last.seq.0 + 1), last.seq));
        assert!(next.time >= last.time && next.position > last.position && !next.duplicate);
        last = next;
    }
    assert!(last.time > 1_700_000_000_000);
    assert_eq!(accept(&*one, unnamed("b")).await.seq, Seq(1));
}

async fn a_retry_gets_the_first_answer<E: Environment>() {
    let environment = E::new(Limits::default()).await;
    let (one, other) = (environment.broker().await, environment.broker().await);
    open(&*one, 0).await;
    let first = accept(&*one, named("a", "1")).await;
    accept(&*one, named("a", "2")).await;
    let again = accept(&*other, named("a", "1")).await;
    assert_eq!(again, Accepted { duplicate: true, ..first });
    assert_eq!(one.positions(&[conversation("a")]).await.unwrap(), [Some(Seq(2))]);
}

async fn nothing_is_published_before_the_partition_is_opened<E: Environment>() {
    let environment = E::new(Limits::default()).await;
    let broker = environment.broker().await;
    let publish = seeded(named("a", "1"), 7);
    assert_eq!(broker.publish(&publish).await.unwrap(), Publication::NeedsEpoch);
    assert_eq!(broker.epoch(partition("a")).await.unwrap(), None);
    assert_eq!(broker.positions(&[conversation("a")]).await.unwrap(), [None]);
    open(&*broker, 0).await;
    assert_eq!(broker.epoch(partition("a")).await.unwrap(), Some(Epoch(0)));
    assert_eq!(broker.publish(&unnamed("a")).await.unwrap(), Publication::NeedsSeed);
}

async fn an_epoch_opens_a_partition_once<E: Environment>() {
    let environment = E::new(Limits::default()).await;
    let broker = environment.broker().await;
    let partition = Partition(1);
    assert!(broker.seed(partition, Epoch(5)).await.unwrap());
    for epoch in [5, 4, 0] {
        assert!(!broker.seed(partition, Epoch(epoch)).await.unwrap());
    }
    assert_eq!(broker.epoch(partition).await.unwrap(), Some(Epoch(5)));
    assert!(broker.seed(partition, Epoch(6)).await.unwrap());
    assert_eq!(broker.epoch(Partition(0)).await.unwrap(), None);
}

async fn a_conversation_continues_after_its_seed<E: Environment>() {
    let environment = E::new(Limits::default()).await;
    let broker = environment.broker().await;
    open(&*broker, 0).await;
    let publish = |to: &str, seed| seeded(unnamed(to), seed);
    let accepted = |publication| match publication {
        Publication::Accepted(Accepted { seq, prev, .. }) => (seq.0, prev.0),
        other => panic!("{other:?}"),
    };
    assert_eq!(accepted(broker.publish(&publish("a", 41)).await.unwrap()), (42, 41));
    // A seed is for the first publish of an epoch only.
    assert_eq!(accepted(broker.publish(&publish("a", 1000)).await.unwrap()), (43, 42));
    open(&*broker, 3).await;
    assert_eq!(broker.publish(&unnamed("a")).await.unwrap(), Publication::NeedsSeed);
    let base = Epoch(3).base().0;
    // What the broker knows counts, where it is more than what the store knows.
    assert_eq!(accepted(broker.publish(&publish("a", 40)).await.unwrap()), (base + 1, 43));
    assert_eq!(accepted(broker.publish(&publish("b", base + 9)).await.unwrap()), (base + 10, base + 9));
    let after = broker.recent(&conversation("a"), Seq(42), 10).await.unwrap();
    assert_eq!(after.messages.iter().map(|m| m.seq.0).collect::<Vec<_>>(), [43, base + 1]);
    assert!(after.complete);
}

async fn a_young_epoch_asks_for_a_check<E: Environment>() {
    let environment = E::new(Limits::default()).await;
    let broker = environment.broker().await;
    open(&*broker, 1).await;
    let publish = seeded(named("a", "1"), 0);
    assert_eq!(broker.publish(&named("a", "1")).await.unwrap(), Publication::NeedsSeed);
    assert_eq!(broker.publish(&publish).await.unwrap(), Publication::NeedsCheck);
    assert_eq!(broker.positions(&[conversation("a")]).await.unwrap(), [None]);
    // A message without a name cannot have been sent before.
    accept(&*broker, unnamed("a")).await;
    let first = accept(&*broker, publish.clone()).await;
    // One that is remembered needs no check.
    let again = broker.publish(&publish).await.unwrap();
    assert_eq!(again, Publication::Accepted(Accepted { duplicate: true, ..first }));
}

async fn a_retry_asks_for_a_check_unless_it_is_remembered<E: Environment>() {
    let environment = E::new(Limits::default()).await;
    let broker = environment.broker().await;
    open(&*broker, 0).await;
    let retry = |client_id| Publish { retry: true, ..seeded(named("a", client_id), 0) };
    assert_eq!(broker.publish(&retry("1")).await.unwrap(), Publication::NeedsCheck);
    let first = accept(&*broker, retry("1")).await;
    assert_eq!(first.seq, Seq(1));
    let again = broker.publish(&retry("1")).await.unwrap();
    assert_eq!(again, Publication::Accepted(Accepted { duplicate: true, ..first }));
    // A message without a name cannot have been sent before.
    let unnamed = Publish { retry: true, ..seeded(unnamed("a"), 0) };
    assert!(matches!(broker.publish(&unnamed).await.unwrap(), Publication::Accepted(_)));
}

async fn a_full_log_refuses_and_writes_nothing<E: Environment>() {
    let environment = E::new(Limits { backlog_entries_max: 3, ..Limits::default() }).await;
    let broker = environment.broker().await;
    open(&*broker, 0).await;
    let first = accept(&*broker, named("a", "0")).await;
    accept(&*broker, named("a", "1")).await;
    let last = accept(&*broker, named("a", "2")).await;
    let refused = Publish { checked: true, ..seeded(named("a", "3"), 0) };
    assert_eq!(broker.publish(&refused).await.unwrap(), Publication::BacklogFull);
    let tail = broker.recent(&conversation("a"), Seq(0), 10).await.unwrap();
    assert_eq!((tail.messages.len(), tail.top), (3, Some(Seq(3))));
    // A retry of what was accepted is answered all the same.
    assert!(accept(&*broker, named("a", "0")).await.duplicate);
    let mut reader = environment.log().reader().await.unwrap();
    reader.assign(&[partition("a")]);
    reader.read(10, PATIENCE).await.unwrap();
    reader.trim(&[(partition("a"), first.position)]).await.unwrap();
    let next = accept(&*broker, named("a", "3")).await;
    assert_eq!((next.prev, next.duplicate), (last.seq, false));
}

async fn the_tail_says_whether_it_is_whole<E: Environment>() {
    // Redis trims a tail in steps of about a hundred.
    let environment = E::new(Limits { hot_messages: 5, ..Limits::default() }).await;
    let broker = environment.broker().await;
    open(&*broker, 0).await;
    let a = conversation("a");
    let nothing = broker.recent(&a, Seq(0), 10).await.unwrap();
    assert_eq!((nothing.messages.len(), nothing.complete, nothing.top), (0, false, None));
    for _ in 0..300 {
        accept(&*broker, unnamed("a")).await;
    }
    let seqs = |messages: &[shared::domain::Message]| messages.iter().map(|m| m.seq.0).collect::<Vec<_>>();
    let tail = broker.recent(&a, Seq(297), 10).await.unwrap();
    assert_eq!((seqs(&tail.messages), tail.complete, tail.top), (vec![298, 299, 300], true, Some(Seq(300))));
    let limited = broker.recent(&a, Seq(297), 2).await.unwrap();
    assert_eq!((seqs(&limited.messages), limited.complete), (vec![298, 299], true));
    let at_the_end = broker.recent(&a, Seq(300), 10).await.unwrap();
    assert_eq!((at_the_end.messages.len(), at_the_end.complete), (0, true));
    let too_far_back = broker.recent(&a, Seq(1), 1000).await.unwrap();
    assert!(!too_far_back.complete && too_far_back.messages[0].prev > Seq(1));
    let newest = too_far_back.messages.last().unwrap();
    assert_eq!((newest.seq, newest.conversation.as_str(), newest.sender.as_str()), (Seq(300), "a", "alice"));
}

async fn many_who_ask_at_once_get_their_own_answers<E: Environment>() {
    let environment = E::new(Limits::default()).await;
    let broker = environment.broker().await;
    open(&*broker, 0).await;
    let name = |n: u64| format!("c{n}");
    for n in 0..12 {
        for _ in 0..n {
            accept(&*broker, unnamed(&name(n))).await;
        }
    }
    // Some ask the same, some the same conversation from elsewhere, and some its end alone.
    let asked = (0..600).map(|number| {
        let (broker, n, after) = (&broker, number % 12, number % 5);
        async move {
            let id = conversation(&name(n));
            let end = (n > 0).then_some(Seq(n));
            assert_eq!(broker.positions(std::slice::from_ref(&id)).await.unwrap(), [end]);
            let tail = broker.recent(&id, Seq(after), 3).await.unwrap();
            let seqs: Vec<u64> = tail.messages.iter().map(|message| message.seq.0).collect();
            assert_eq!(seqs, (after + 1..=n.min(after + 3)).collect::<Vec<_>>());
            assert!(tail.messages.iter().all(|message| message.conversation == id));
            assert_eq!((tail.complete, tail.top), (n > 0 && n >= after, end));
        }
    });
    join_all(asked).await;
}

/// Whoever reads while others write sees a part of the chain each time, and all of it in the end.
async fn a_tail_that_grows_is_read_without_a_hole<E: Environment>() {
    const MESSAGES: u64 = 300;
    let environment = E::new(Limits { hot_messages: 1_000, ..Limits::default() }).await;
    let (writer, reader) = (environment.broker().await, environment.broker().await);
    open(&*writer, 0).await;
    accept(&*writer, unnamed("a")).await;
    let write = async {
        for _ in 1..MESSAGES {
            accept(&*writer, unnamed("a")).await;
        }
    };
    let read = async |_| {
        let mut last = Seq(0);
        while last < Seq(MESSAGES) {
            let tail = reader.recent(&conversation("a"), last, 1_000).await.unwrap();
            assert!(tail.complete);
            for message in &tail.messages {
                assert_eq!((message.prev, message.seq), (last, Seq(last.0 + 1)));
                last = message.seq;
            }
            assert_eq!(tail.top, Some(last));
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(write, join_all((0..20).map(read)));
}

async fn positions_are_in_the_order_asked<E: Environment>() {
    let environment = E::new(Limits::default()).await;
    let broker = environment.broker().await;
    open(&*broker, 0).await;
    accept(&*broker, unnamed("a")).await;
    accept(&*broker, unnamed("c")).await;
    accept(&*broker, unnamed("c")).await;
    let mut asked = vec![conversation("c"), conversation("b"), conversation("a")];
    asked.extend((0..2500).map(|n| conversation(&format!("none{n}"))));
    asked.push(conversation("c"));
    let positions = broker.positions(&asked).await.unwrap();
    assert_eq!(positions[..3], [Some(Seq(2)), None, Some(Seq(1))]);
    assert_eq!((positions.len(), positions[2503]), (2504, Some(Seq(2))));
    assert!(broker.positions(&[]).await.unwrap().is_empty());
}

fn is_subscribed(to: &str) -> impl Fn(&Inbound) -> Option<()> {
    move |inbound| matches!(inbound, Inbound::Subscribed(which) if which.as_str() == to).then_some(())
}

fn message_of(inbound: &Inbound) -> Option<Arc<shared::domain::Message>> {
    match inbound {
        Inbound::Record(conversation, record) => match decode_live(conversation, record).unwrap() {
            Event::Message(message) => Some(message),
            _ => None,
        },
        _ => None,
    }
}

async fn records_arrive_between_subscribe_and_unsubscribe<E: Environment>() {
    let environment = E::new(Limits::default()).await;
    let (one, other) = (environment.broker().await, environment.broker().await);
    assert!(matches!(one.subscribe(&[conversation("a")]).await, Err(BrokerError::Unavailable(_))));
    let mut ear = Ear::of(&*one, "one").await;
    open(&*one, 0).await;
    accept(&*other, unnamed("a")).await;
    let all: Vec<_> = (0..500).map(|n| conversation(&format!("c{n}"))).chain([conversation("a")]).collect();
    one.subscribe(&all).await.unwrap();
    for _ in &all {
        assert!(matches!(ear.next().await, Inbound::Subscribed(_)));
    }
    one.subscribe(&[conversation("a")]).await.unwrap();
    ear.find(is_subscribed("a")).await;
    let accepted = accept(&*other, named("a", "1")).await;
    let message = message_of(&ear.next().await).unwrap();
    assert_eq!((message.seq, message.prev, message.time), (accepted.seq, accepted.prev, accepted.time));
    assert_eq!(message.client_id.as_ref().unwrap().as_str(), "1");
    // A duplicate is not sent again.
    accept(&*other, named("a", "1")).await;
    one.unsubscribe(&[conversation("a")]).await.unwrap();
    assert!(matches!(ear.next().await, Inbound::Unsubscribed(which) if which.as_str() == "a"));
    accept(&*other, unnamed("a")).await;
    accept(&*other, unnamed("c7")).await;
    assert_eq!(message_of(&ear.next().await).unwrap().conversation.as_str(), "c7");
}

async fn a_signal_arrives_and_leaves_no_trace<E: Environment>() {
    let environment = E::new(Limits::default()).await;
    let (one, other) = (environment.broker().await, environment.broker().await);
    let mut ear = Ear::of(&*one, "one").await;
    one.subscribe(&[conversation("a")]).await.unwrap();
    ear.find(is_subscribed("a")).await;
    other.signal(&conversation("a"), Bytes::from_static(b"\x00any\r\nthing")).await.unwrap();
    match ear.next().await {
        Inbound::Record(which, record) => {
            assert_eq!((which.as_str(), &record[..]), ("a", &b"\x00any\r\nthing"[..]));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(one.positions(&[conversation("a")]).await.unwrap(), [None]);
    assert!(environment.log().backlog().await.unwrap().iter().all(|backlog| backlog.entries == 0));
}

async fn announcements_reach_whom_they_are_for<E: Environment>() {
    let environment = E::new(Limits::default()).await;
    let (one, other) = (environment.broker().await, environment.broker().await);
    let (mut one_ear, mut other_ear) = (Ear::of(&*one, "one").await, Ear::of(&*other, "other").await);
    let node = Audience::Node(NodeId::parse("other").unwrap());
    assert_eq!(one.announce(&node, Bytes::from_static(b"you")).await.unwrap(), 1);
    assert_eq!(one.announce(&Audience::Everyone, Bytes::from_static(b"all")).await.unwrap(), 2);
    let nobody = Audience::Node(NodeId::parse("nobody").unwrap());
    assert_eq!(one.announce(&nobody, Bytes::new()).await.unwrap(), 0);
    let text = |inbound: Inbound| match inbound {
        Inbound::Announcement(bytes) => bytes,
        other => panic!("{other:?}"),
    };
    assert_eq!(text(one_ear.next().await), "all");
    assert_eq!(text(other_ear.next().await), "you");
    assert_eq!(text(other_ear.next().await), "all");
    one.close().await;
    // The server notices that in its own time.
    eventually(async || {
        let told = other.announce(&Audience::Everyone, Bytes::new()).await.unwrap();
        (told == 1).then_some(())
    })
    .await;
    assert!(one_ear.is_silent());
}

async fn stored_notices_reach_every_node<E: Environment>() {
    let environment = E::new(Limits::default()).await;
    let brokers = [environment.broker().await, environment.broker().await];
    let mut ears = [Ear::of(&*brokers[0], "one").await, Ear::of(&*brokers[1], "other").await];
    let at = |epoch, ms, n| LogPosition { epoch: Epoch(epoch), entry: EntryId { ms, n } };
    let notices = [(Partition(0), at(0, 5, 0)), (Partition(3), at(2, 1_790_000_000_000, 17))];
    environment.log().notify_stored(&notices).await.unwrap();
    environment.log().notify_stored(&[]).await.unwrap();
    for ear in &mut ears {
        let mut heard = Vec::new();
        for _ in notices {
            match ear.next().await {
                Inbound::Stored(which, upto) => heard.push((which, upto)),
                other => panic!("{other:?}"),
            }
        }
        // Partitions on different servers tell in any order.
        heard.sort_unstable_by_key(|&(partition, _)| partition);
        assert_eq!(heard, notices);
    }
}

async fn writers_at_once_make_one_chain<E: Environment>() {
    const WRITERS: usize = 8;
    const EACH: usize = 100;
    let environment = E::new(Limits { hot_messages: 2 * WRITERS * EACH, ..Limits::default() }).await;
    let reader = environment.broker().await;
    let mut ear = Ear::of(&*reader, "one").await;
    open(&*reader, 0).await;
    reader.subscribe(&[conversation("a")]).await.unwrap();
    ear.find(is_subscribed("a")).await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let broker = environment.broker().await;
        writers.spawn(async move {
            let mut last = Seq(0);
            for n in 0..EACH {
                let accepted = accept(&*broker, named("a", &format!("{writer}-{n}"))).await;
                assert!(accepted.seq > last);
                last = accepted.seq;
            }
        });
    }
    writers.join_all().await;
    let tail = reader.recent(&conversation("a"), Seq(0), WRITERS * EACH).await.unwrap();
    assert!(tail.complete);
    assert_eq!(tail.messages.len(), WRITERS * EACH);
    for (n, message) in (1..).zip(&tail.messages) {
        assert_eq!((message.seq, message.prev), (Seq(n), Seq(n - 1)));
        assert_eq!(*message_of(&ear.next().await).unwrap(), *message);
    }
}

/// Waits until the broker has found its way back, and the partition is closed to it.
async fn needs_epoch(broker: &dyn Broker, publish: &Publish) {
    eventually(async || match broker.publish(publish).await {
        Ok(Publication::NeedsEpoch) => Some(()),
        Ok(other) => panic!("{other:?}"),
        Err(_) => None,
    })
    .await;
}

#[tokio::test]
async fn after_a_crash_of_redis_the_partition_is_closed_until_it_has_a_new_epoch() {
    let mut environment = OnRedis::new(Limits::default()).await;
    let broker = environment.broker().await;
    open(&*broker, 0).await;
    let before = accept(&*broker, named("a", "1")).await;
    environment.server.kill9();
    assert!(broker.publish(&named("a", "2")).await.is_err());
    environment.server.restart().await.unwrap();
    // The data are the same as before, to the last message; that nobody can know.
    needs_epoch(&*broker, &named("a", "1")).await;
    assert_eq!(broker.epoch(partition("a")).await.unwrap(), None);
    open(&*broker, 1).await;
    assert_eq!(accept(&*broker, named("a", "1")).await, Accepted { duplicate: true, ..before });
    let after = accept(&*broker, named("a", "2")).await;
    assert_eq!((after.seq.0, after.prev), (Epoch(1).base().0 + 1, before.seq));
}

#[tokio::test]
async fn after_a_flush_the_partition_is_closed_and_numbers_never_return() {
    let environment = OnRedis::new(Limits::default()).await;
    let broker = environment.broker().await;
    open(&*broker, 0).await;
    accept(&*broker, unnamed("a")).await;
    let () = ::redis::cmd("FLUSHALL").query_async(&mut environment.raw().await).await.unwrap();
    needs_epoch(&*broker, &unnamed("a")).await;
    open(&*broker, 1).await;
    assert_eq!(accept(&*broker, unnamed("a")).await.seq.0, Epoch(1).base().0 + 1);
}

#[tokio::test]
async fn a_primary_that_was_a_replica_meanwhile_needs_a_new_epoch() {
    let environment = OnRedis::new(Limits::default()).await;
    let (replica, mut there) = replica_of(&environment).await;
    let mut here = environment.raw().await;
    let broker = environment.broker().await;
    open(&*broker, 0).await;
    let kept = accept(&*broker, named("a", "1")).await;
    eventually(async || (top_of("a", &mut there).await == Some(kept.seq)).then_some(())).await;
    let follow = |port: &str| ::redis::cmd("REPLICAOF").arg(&["127.0.0.1", port]).to_owned();
    let lead = || ::redis::cmd("REPLICAOF").arg(&["NO", "ONE"]).to_owned();
    // The replica misses the second message, leads for a while in which nothing is published, and hands the lead back.
    let () = lead().query_async(&mut there).await.unwrap();
    let lost = accept(&*broker, named("a", "2")).await;
    let () = follow(&replica.server.port().to_string()).query_async(&mut here).await.unwrap();
    assert!(RedisBroker::connect(environment.config.clone()).await.is_err());
    eventually(async || (top_of("a", &mut here).await == Some(kept.seq)).then_some(())).await;
    let () = lead().query_async(&mut here).await.unwrap();
    // The one that was attached all the time, and one that comes new.
    needs_epoch(&*environment.broker().await, &named("a", "3")).await;
    eventually(async || broker.epoch(partition("a")).await.is_ok_and(|epoch| epoch.is_none()).then_some(()))
        .await;
    eventually(async || broker.seed(partition("a"), Epoch(1)).await.ok()).await;
    let next = accept(&*broker, named("a", "3")).await;
    assert!(next.seq > lost.seq && next.prev == kept.seq);
}

/// A second server that follows the first, and a connection to it.
async fn replica_of(environment: &OnRedis) -> (OnRedis, ::redis::aio::MultiplexedConnection) {
    let address = environment.server.address().replace(':', " ");
    let replica = OnRedis::with_lines(Limits::default(), &[&format!("replicaof {address}")]).await;
    let mut connection = replica.raw().await;
    eventually(async || {
        let info: String =
            ::redis::cmd("INFO").arg("replication").query_async(&mut connection).await.unwrap();
        info.contains("master_link_status:up").then_some(())
    })
    .await;
    (replica, connection)
}

/// The last seq of a conversation, as a server has it.
async fn top_of(name: &str, server: &mut ::redis::aio::MultiplexedConnection) -> Option<Seq> {
    let tag = shared::broker::redis::tag(PARTITIONS, partition(name));
    let key = format!("{{{tag}}}m:{name}");
    ::redis::cmd("HGET").arg(key).arg("s").query_async::<Option<u64>>(server).await.unwrap().map(Seq)
}

#[tokio::test]
async fn the_subscriber_comes_back_after_a_crash_of_redis() {
    let mut environment = OnRedis::new(Limits::default()).await;
    let broker = environment.broker().await;
    let mut ear = Ear::of(&*broker, "one").await;
    broker.subscribe(&[conversation("a")]).await.unwrap();
    ear.find(is_subscribed("a")).await;
    environment.server.kill9();
    assert!(matches!(ear.next().await, Inbound::Disconnected));
    assert!(broker.subscribe(&[conversation("a")]).await.is_err());
    environment.server.restart().await.unwrap();
    assert!(matches!(ear.next().await, Inbound::Connected));
    broker.subscribe(&[conversation("a")]).await.unwrap();
    assert!(matches!(ear.next().await, Inbound::Subscribed(_)));
    eventually(async || broker.signal(&conversation("a"), Bytes::from_static(b"J")).await.ok()).await;
    assert!(matches!(ear.next().await, Inbound::Record(..)));
}

/// Probes early and often.
fn impatient(environment: &OnRedis, proxy: &TcpProxy) -> RedisConfig {
    RedisConfig {
        url: format!("redis://{}/", proxy.addr()),
        probe_after: Duration::from_millis(200),
        probe_timeout: Duration::from_millis(500),
        ..environment.config.clone()
    }
}

#[tokio::test]
async fn a_subscriber_connection_that_has_gone_silent_is_noticed() {
    let environment = OnRedis::new(Limits::default()).await;
    let proxy = TcpProxy::start(environment.server.address()).await.unwrap();
    let broker = RedisBroker::connect(impatient(&environment, &proxy)).await.unwrap();
    let mut ear = Ear::of(&broker, "one").await;
    // The first stall holds back whatever subscribes, the one that tries again too; commands pass.
    proxy.stall_connections_that_sent(b"SSUBSCRIBE");
    assert!(matches!(ear.next().await, Inbound::Disconnected));
    assert_eq!(broker.epoch(Partition(0)).await.unwrap(), None);
    assert!(broker.subscribe(&[conversation("a")]).await.is_err());
    proxy.resume();
    assert!(matches!(ear.next().await, Inbound::Connected));
}

#[tokio::test]
async fn an_idle_subscriber_connection_that_is_alive_is_kept() {
    let environment = OnRedis::new(Limits::default()).await;
    let proxy = TcpProxy::start(environment.server.address()).await.unwrap();
    let config = RedisConfig { probe_timeout: Duration::from_secs(5), ..impatient(&environment, &proxy) };
    let idle = config.probe_timeout + config.probe_after * 5;
    let broker = RedisBroker::connect(config).await.unwrap();
    let mut ear = Ear::of(&broker, "one").await;
    tokio::time::sleep(idle).await;
    assert!(ear.is_silent());
}

#[tokio::test]
async fn a_command_connection_that_is_cut_or_silent_is_replaced() {
    let environment = OnRedis::new(Limits::default()).await;
    let proxy = TcpProxy::start(environment.server.address()).await.unwrap();
    let config = RedisConfig { response_timeout: Duration::from_secs(4), ..impatient(&environment, &proxy) };
    let broker = RedisBroker::connect(config).await.unwrap();
    open(&broker, 0).await;
    let first = accept(&broker, unnamed("a")).await;
    proxy.cut_all();
    // Over a new connection to the same run the partition is still open.
    let publish = unnamed("a");
    let second = eventually(async || broker.publish(&publish).await.ok()).await;
    assert!(matches!(second, Publication::Accepted(Accepted { prev, .. }) if prev == first.seq));
    proxy.stall_all();
    assert!(matches!(broker.publish(&unnamed("a")).await, Err(BrokerError::Unavailable(_))));
    proxy.cut_all();
    proxy.resume();
    eventually(async || broker.epoch(partition("a")).await.ok()).await;
}

#[tokio::test]
async fn without_its_replicas_a_publish_is_not_acknowledged() {
    let environment = OnRedis::new(Limits::default()).await;
    let config = RedisConfig { wait_replicas: 1, ..environment.config.clone() };
    let broker = RedisBroker::connect(config).await.unwrap();
    open(&broker, 0).await;
    let publish = seeded(named("a", "1"), 0);
    assert!(matches!(broker.publish(&publish).await, Err(BrokerError::Unavailable(_))));
    // Nor is the retry, which finds the message: it is no better secured than before.
    assert!(matches!(broker.publish(&publish).await, Err(BrokerError::Unavailable(_))));
    let (_replica, _) = replica_of(&environment).await;
    // With its first replica the server has a new replication id, so the partition has to be opened anew.
    eventually(async || broker.epoch(partition("a")).await.is_ok_and(|epoch| epoch.is_none()).then_some(()))
        .await;
    open(&broker, 1).await;
    let accepted = eventually(async || broker.publish(&publish).await.ok()).await;
    assert!(matches!(accepted, Publication::Accepted(Accepted { duplicate: true, .. })), "{accepted:?}");
}
