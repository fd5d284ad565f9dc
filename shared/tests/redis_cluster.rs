//! What only a Redis Cluster can suffer: slots that move, and servers that others do without.

#![expect(clippy::unwrap_used, reason = "a failure is what a test is for")]

mod support_ports;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use deploy::{PATIENCE, RedisCluster, RedisClusterOptions, RedisOptions, RedisServer, eventually};
use shared::{
    broker::{
        Accepted, Audience, Broker, EntryId, Inbound, Publication, Publish,
        redis::{RedisBroker, RedisConfig},
        sequence::Limits,
    },
    domain::{Body, ClientInfo, ConnectionId, Epoch, Partition, Seq, UserId},
    log::{Log, LogReader, redis::RedisLog},
    presence::{Presence, redis::RedisPresence},
    revocations::{Revocation, Revocations, redis::RedisRevocations},
};
use support_ports::*;
use uuid::Uuid;

const SHORT: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_mins(1);

struct Servers {
    cluster: RedisCluster,
    config: RedisConfig,
}

impl Servers {
    async fn start(replicas: usize) -> Self {
        let server = RedisOptions::without_disk();
        let options = RedisClusterOptions { replicas, server, ..RedisClusterOptions::default() };
        let cluster = RedisCluster::start(options).await.unwrap();
        let config = RedisConfig {
            partitions: PARTITIONS,
            limits: Limits { hot_messages: 10_000, ..Limits::default() },
            response_timeout: Duration::from_secs(4),
            ..RedisConfig::new(cluster.url())
        };
        Self { cluster, config }
    }

    async fn broker(&self) -> RedisBroker {
        RedisBroker::connect(self.config.clone()).await.unwrap()
    }

    async fn call<T: redis::FromRedisValue>(&self, server: usize, words: &[&str]) -> T {
        let client = redis::Client::open(self.cluster.servers()[server].url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await.unwrap()
    }

    async fn slot(&self, key: &str) -> u16 {
        self.call(0, &["CLUSTER", "KEYSLOT", key]).await
    }

    async fn slot_of(&self, partition: Partition) -> u16 {
        self.slot(&format!("{{{}}}", shared::broker::redis::tag(PARTITIONS, partition))).await
    }

    async fn owner(&self, partition: Partition) -> usize {
        self.cluster.owner(self.slot_of(partition).await).await.unwrap()
    }

    /// Moves a slot to the next of the three primaries.
    async fn move_on(&self, slot: u16) {
        let owner = self.cluster.owner(slot).await.unwrap();
        self.cluster.move_slot(slot, (owner + 1) % 3).await.unwrap();
    }
}

/// The name of a conversation in the partition.
fn name_in(which: Partition) -> String {
    (0..1_000).map(|n| format!("c{n}")).find(|name| partition(name) == which).unwrap()
}

/// Publishes until it is accepted, as whoever may ask the store does.
async fn publish(broker: &dyn Broker, publish: Publish, epochs: &AtomicU32) -> Accepted {
    let partition = Partition::of(&publish.conversation, PARTITIONS);
    let publish = Publish { checked: true, ..seeded(publish, 0) };
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        assert!(tokio::time::Instant::now() < deadline, "it is never accepted");
        match broker.publish(&publish).await {
            Ok(Publication::Accepted(accepted)) => return accepted,
            Ok(Publication::NeedsEpoch) => {
                let epoch = Epoch(epochs.fetch_add(1, Ordering::Relaxed));
                // Another one may have been faster.
                let _ = broker.seed(partition, epoch).await;
            }
            Ok(other) => panic!("{other:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Subscribes, as the feed does: whatever is not confirmed is asked for again. Returns what came until all was confirmed.
async fn subscribe(broker: &dyn Broker, ear: &mut Ear, names: &[&str]) {
    let all: Vec<_> = names.iter().map(|name| conversation(name)).collect();
    eventually(async || broker.subscribe(&all).await.ok()).await;
    let mut missing = all;
    while !missing.is_empty() {
        if let Inbound::Subscribed(confirmed) = ear.next().await {
            missing.retain(|wanted| *wanted != confirmed);
        }
    }
}

/// Waits until the node is told to ask for everything anew.
async fn reconnected(ear: &mut Ear) {
    ear.find(|inbound| matches!(inbound, Inbound::Disconnected).then_some(())).await;
    ear.find(|inbound| matches!(inbound, Inbound::Connected).then_some(())).await;
}

async fn heard_signal(broker: &dyn Broker, ear: &mut Ear, name: &str) {
    eventually(async || broker.signal(&conversation(name), Bytes::from_static(b"J")).await.ok()).await;
    ear.find(|inbound| matches!(inbound, Inbound::Record(to, _) if to.as_str() == name).then_some(())).await;
}

#[tokio::test]
async fn a_slot_takes_everything_along_when_it_moves() {
    let servers = Servers::start(0).await;
    let (one, other, epochs) = (servers.broker().await, servers.broker().await, AtomicU32::new(0));
    let (mut ear, mut other_ear) = (Ear::of(&one, "one").await, Ear::of(&other, "other").await);
    let (moved, stays) = (partition("a"), Partition((partition("a").0 + 2) % PARTITIONS));
    let still = name_in(stays);
    subscribe(&one, &mut ear, &["a", &still]).await;
    let first = publish(&one, named("a", "1"), &epochs).await;
    let before = publish(&one, named(&still, "1"), &epochs).await;
    let presence = RedisPresence::new(&servers.config).unwrap();
    let alice = ClientInfo {
        user: UserId::parse("alice").unwrap(),
        client: ConnectionId(Uuid::from_u128(1)),
        info: Some(Body::from_json("{}".to_owned())),
    };
    presence
        .enter(&[(conversation("a"), alice.clone()), (conversation(&still), alice.clone())])
        .await
        .unwrap();
    let log = RedisLog::new(servers.config.clone()).unwrap();
    let mut reader = log.reader().await.unwrap();
    reader.assign(&[moved]);
    assert_eq!(reader.read(10, PATIENCE).await.unwrap()[0].entries[0].position, first.position);

    servers.move_on(servers.slot_of(moved).await).await;
    reconnected(&mut ear).await;
    subscribe(&one, &mut ear, &["a", &still]).await;
    heard_signal(&other, &mut ear, "a").await;
    heard_signal(&other, &mut ear, &still).await;
    // The fence: another server has the data now, and who knows which.
    let again = named("a", "1");
    assert_eq!(one.publish(&again).await.unwrap(), Publication::NeedsEpoch);
    assert_eq!(publish(&one, again, &epochs).await, Accepted { duplicate: true, ..first });
    let second = publish(&other, named("a", "2"), &epochs).await;
    assert_eq!((second.prev, second.position.epoch > first.position.epoch), (first.seq, true));
    let next = publish(&other, named(&still, "2"), &epochs).await;
    assert_eq!((next.seq.0, next.position.epoch), (before.seq.0 + 1, before.position.epoch));
    assert_eq!(one.recent(&conversation("a"), Seq(0), 10).await.unwrap().messages.len(), 2);
    assert_eq!(
        one.positions(&[conversation("a"), conversation(&still)]).await.unwrap(),
        [Some(second.seq), Some(next.seq)]
    );
    assert_eq!(presence.list(&conversation("a"), 10).await.unwrap(), std::slice::from_ref(&alice));
    presence.enter(&[(conversation("a"), alice.clone()), (conversation(&still), alice)]).await.unwrap();
    log_goes_on(&log, &mut *reader, moved, &[first, second]).await;
    // Every node listens where the slot is now, and hears of each notice once.
    log.notify_stored(&[(moved, second.position)]).await.unwrap();
    for ear in [&mut ear, &mut other_ear] {
        ear.find(|inbound| {
            matches!(inbound, Inbound::Stored(which, upto) if (*which, *upto) == (moved, second.position))
                .then_some(())
        })
        .await;
    }
    assert_eq!(one.announce(&Audience::Everyone, Bytes::from_static(b"all")).await.unwrap(), 2);
}

/// The epoch has changed, so the reader reads the partition from its head, and trims what it has read.
async fn log_goes_on(log: &RedisLog, reader: &mut dyn LogReader, which: Partition, all: &[Accepted]) {
    let last = all.last().unwrap().position;
    let mut read = Vec::new();
    while !read.ends_with(&all.iter().map(|accepted| accepted.position).collect::<Vec<_>>()) {
        let batches = reader.read(10, PATIENCE).await.unwrap();
        read.extend(batches.iter().flat_map(|batch| batch.entries.iter().map(|entry| entry.position)));
    }
    eventually(async || reader.trim(&[(which, last)]).await.ok()).await;
    let backlog = log.backlog().await.unwrap();
    assert_eq!(backlog.iter().find(|backlog| backlog.partition == which).unwrap().entries, 0);
}

#[tokio::test]
async fn while_slots_move_every_publish_has_one_place() {
    const WRITERS: usize = 4;
    const EACH: usize = 150;
    let servers = Servers::start(0).await;
    let epochs = Arc::new(AtomicU32::new(0));
    let mut writers = tokio::task::JoinSet::new();
    let (progress, mut written) = tokio::sync::watch::channel(0_usize);
    let progress = Arc::new(progress);
    for writer in 0..WRITERS {
        let (broker, epochs, progress) = (servers.broker().await, Arc::clone(&epochs), Arc::clone(&progress));
        writers.spawn(async move {
            let mut last = Seq(0);
            for n in 0..EACH {
                let accepted = publish(&broker, named("a", &format!("{writer}-{n}")), &epochs).await;
                assert!(accepted.seq > last);
                last = accepted.seq;
                progress.send_modify(|written| *written += 1);
            }
        });
    }
    // There, on, and back to where it was.
    let slot = servers.slot_of(partition("a")).await;
    for quarter in 1..=3 {
        written.wait_for(|written| *written >= quarter * WRITERS * EACH / 4).await.unwrap();
        servers.move_on(slot).await;
    }
    writers.join_all().await;
    let broker = servers.broker().await;
    let tail = broker.recent(&conversation("a"), Seq(0), 10_000).await.unwrap();
    assert!(tail.complete);
    let mut ids: Vec<_> = tail.messages.iter().map(|message| message.id.0).collect();
    assert_eq!(ids.len(), WRITERS * EACH);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), WRITERS * EACH);
    assert!(tail.messages.is_sorted_by(|one, next| next.prev == one.seq && next.seq > one.seq));
}

#[tokio::test]
async fn revocations_are_read_wherever_their_slot_is() {
    let servers = Servers::start(0).await;
    let revocations = RedisRevocations::new(&servers.config, LONG).unwrap();
    let slot = servers.slot("starling:revocations").await;
    let mut last = EntryId::default();
    for round in 0..3 {
        let name = Revocation::Token(round.to_string());
        let moved = async {
            servers.move_on(slot).await;
            eventually(async || revocations.revoke(&name).await.ok()).await;
        };
        // Whoever waits for news waits at the new place.
        let read = async {
            eventually(async || revocations.read(last, LONG).await.ok().filter(|read| !read.is_empty())).await
        };
        let (read, ()) = tokio::join!(read, moved);
        assert_eq!(read[0].what, Some(name));
        last = read[0].id;
        assert!(revocations.has(last).await.unwrap());
    }
}

#[tokio::test]
async fn without_one_server_the_others_go_on() {
    let mut servers = Servers::start(0).await;
    let (one, epochs) = (servers.broker().await, AtomicU32::new(0));
    let mut ear = Ear::of(&one, "one").await;
    let dead = Partition(0);
    let victim = servers.owner(dead).await;
    let mut alive = Vec::new();
    for partition in Partition::all(PARTITIONS) {
        if servers.owner(partition).await != victim {
            alive.push(name_in(partition));
        }
    }
    let dead_name = name_in(dead);
    let before = publish(&one, named(&dead_name, "1"), &epochs).await;
    subscribe(&one, &mut ear, &[&dead_name, &alive[0], &alive[1]]).await;
    servers.cluster.server(victim).kill9();
    reconnected(&mut ear).await;
    assert!(one.subscribe(&[conversation(&dead_name)]).await.is_err());
    subscribe(&one, &mut ear, &[&alive[0], &alive[1]]).await;
    // One that comes new finds its way by those that are left.
    let new = servers.broker().await;
    let log = RedisLog::new(servers.config.clone()).unwrap();
    let mut reader = log.reader().await.unwrap();
    reader.assign(&Partition::all(PARTITIONS).collect::<Vec<_>>());
    for name in &alive {
        let accepted = publish(&new, named(name, "1"), &epochs).await;
        let asked = [conversation(&dead_name), conversation(name)];
        assert_eq!(one.positions(&asked).await.unwrap(), [None, Some(accepted.seq)]);
        eventually(async || {
            let read = reader.read(10, SHORT).await.unwrap();
            read.iter().any(|batch| batch.entries[0].position == accepted.position).then_some(())
        })
        .await;
    }
    heard_signal(&new, &mut ear, &alive[0]).await;
    let backlogs = log.backlog().await.unwrap();
    assert!(backlogs.len() == alive.len() && backlogs.iter().all(|backlog| backlog.partition != dead));
    eventually(async || {
        let told = new.announce(&Audience::Everyone, Bytes::from_static(b"all")).await;
        matches!(told, Ok(1)).then_some(())
    })
    .await;
    ear.find(|inbound| matches!(inbound, Inbound::Announcement(_)).then_some(())).await;
    assert!(one.publish(&named(&dead_name, "2")).await.is_err());

    servers.cluster.server(victim).restart().await.unwrap();
    reconnected(&mut ear).await;
    subscribe(&one, &mut ear, &[&dead_name]).await;
    let after = publish(&one, named(&dead_name, "2"), &epochs).await;
    assert_eq!((after.prev, after.position.epoch > before.position.epoch), (before.seq, true));
    ear.find(|inbound| matches!(inbound, Inbound::Record(to, _) if to.as_str() == dead_name).then_some(()))
        .await;
}

#[tokio::test]
async fn a_replica_that_leads_needs_a_new_epoch() {
    let mut servers = Servers::start(1).await;
    let (broker, epochs) = (servers.broker().await, AtomicU32::new(0));
    let mut ear = Ear::of(&broker, "one").await;
    subscribe(&broker, &mut ear, &["a"]).await;
    let first = publish(&broker, named("a", "1"), &epochs).await;
    let primary = servers.owner(partition("a")).await;
    // It takes over in an orderly way: nobody dies, and nobody's connection breaks.
    let () = servers.call(primary + 3, &["CLUSTER", "FAILOVER"]).await;
    reconnected(&mut ear).await;
    subscribe(&broker, &mut ear, &["a"]).await;
    let second = publish(&broker, named("a", "2"), &epochs).await;
    assert_eq!((second.prev, second.position.epoch > first.position.epoch), (first.seq, true));
    // And back, since it dies.
    servers.cluster.server(primary + 3).kill9();
    reconnected(&mut ear).await;
    let third = publish(&broker, named("a", "3"), &epochs).await;
    assert_eq!((third.prev, third.position.epoch > second.position.epoch), (second.seq, true));
    subscribe(&broker, &mut ear, &["a"]).await;
    heard_signal(&broker, &mut ear, "a").await;
}

#[tokio::test]
async fn several_addresses_are_for_a_cluster() {
    let (one, other) = (
        RedisServer::start(RedisOptions::default()).await.unwrap(),
        RedisServer::start(RedisOptions::default()).await.unwrap(),
    );
    let config = RedisConfig::new(format!("{},{}", one.url(), other.url()));
    let refused = RedisBroker::connect(config).await.err().unwrap().to_string();
    assert!(refused.contains("no Redis Cluster"), "{refused}");
}
