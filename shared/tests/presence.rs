//! One suite for both implementations of presence.

#![expect(clippy::unwrap_used, reason = "a failure is what a test is for")]

mod support_ports;

use std::collections::HashSet;

use deploy::eventually;
use shared::{
    broker::sequence::Limits,
    domain::{Body, ClientInfo, ConnectionId, UserId},
    presence::{Presence, PresenceEntry, PresenceStats, memory::MemoryPresence, redis::RedisPresence},
};
use support_ports::*;
use uuid::Uuid;

suite!(
    who_enters_is_there_until_it_leaves,
    users_are_counted_once,
    many_enter_at_once,
    who_is_not_refreshed_vanishes
);

trait Present: Environment {
    fn presence(&self, ttl_ms: Option<u64>) -> Box<dyn Presence>;
}

impl Present for InMemory {
    fn presence(&self, ttl_ms: Option<u64>) -> Box<dyn Presence> {
        Box::new(ttl_ms.map_or_else(MemoryPresence::default, MemoryPresence::with_ttl_ms))
    }
}

impl Present for OnRedis {
    fn presence(&self, ttl_ms: Option<u64>) -> Box<dyn Presence> {
        Box::new(match ttl_ms {
            Some(ttl_ms) => RedisPresence::with_ttl_ms(&self.config, ttl_ms).unwrap(),
            None => RedisPresence::new(&self.config).unwrap(),
        })
    }
}

impl Present for OnCluster {
    fn presence(&self, ttl_ms: Option<u64>) -> Box<dyn Presence> {
        Box::new(match ttl_ms {
            Some(ttl_ms) => RedisPresence::with_ttl_ms(&self.config, ttl_ms).unwrap(),
            None => RedisPresence::new(&self.config).unwrap(),
        })
    }
}

fn client(user: &str, number: u128) -> ClientInfo {
    ClientInfo {
        user: UserId::parse(user).unwrap(),
        client: ConnectionId(Uuid::from_u128(number)),
        info: (number % 2 == 1).then(|| Body::from_json(format!("{{\"n\": {number}, \"text\": \"a\\nb\"}}"))),
    }
}

fn entry(to: &str, user: &str, number: u128) -> PresenceEntry {
    (conversation(to), client(user, number))
}

fn stats(clients: u32, users: u32) -> PresenceStats {
    PresenceStats { clients, users }
}

async fn who_enters_is_there_until_it_leaves<E: Present>() {
    let environment = E::new(Limits::default()).await;
    let presence = environment.presence(None);
    let a = conversation("a");
    assert_eq!(presence.stats(&a).await.unwrap(), stats(0, 0));
    assert!(presence.list(&a, 10).await.unwrap().is_empty());
    assert_eq!(presence.leave(&a, ConnectionId(Uuid::from_u128(1))).await.unwrap(), 0);
    assert_eq!(presence.enter(&[entry("a", "alice", 1)]).await.unwrap(), [1]);
    let entries = [entry("a", "bob", 2), entry("b", "bob", 2), entry("a", "alice", 1)];
    assert_eq!(presence.enter(&entries).await.unwrap(), [2, 1, 2]);
    assert!(presence.enter(&[]).await.unwrap().is_empty());
    let mut listed = presence.list(&a, 10).await.unwrap();
    listed.sort_by_key(|who| who.client);
    assert_eq!(listed, [client("alice", 1), client("bob", 2)]);
    assert_eq!(presence.list(&a, 1).await.unwrap().len(), 1);
    assert_eq!(presence.leave(&a, ConnectionId(Uuid::from_u128(1))).await.unwrap(), 1);
    assert_eq!(presence.leave(&a, ConnectionId(Uuid::from_u128(1))).await.unwrap(), 1);
    assert_eq!(presence.list(&a, 10).await.unwrap(), [client("bob", 2)]);
    assert_eq!(presence.stats(&conversation("b")).await.unwrap(), stats(1, 1));
}

async fn users_are_counted_once<E: Present>() {
    let environment = E::new(Limits::default()).await;
    let presence = environment.presence(None);
    let a = conversation("a");
    let entries = [entry("a", "alice", 1), entry("a", "alice", 2), entry("a", "bob", 3)];
    for _ in 0..2 {
        presence.enter(&entries).await.unwrap();
        assert_eq!(presence.stats(&a).await.unwrap(), stats(3, 2));
    }
    presence.leave(&a, ConnectionId(Uuid::from_u128(1))).await.unwrap();
    assert_eq!(presence.stats(&a).await.unwrap(), stats(2, 2));
    presence.leave(&a, ConnectionId(Uuid::from_u128(2))).await.unwrap();
    assert_eq!(presence.stats(&a).await.unwrap(), stats(1, 1));
}

async fn many_enter_at_once<E: Present>() {
    let environment = E::new(Limits::default()).await;
    let presence = environment.presence(None);
    let rooms = (0..1500).map(|n| entry(&format!("room{n}"), "alice", n));
    let clients = (0..1500).map(|n| entry("a", &format!("user{}", n % 700), n));
    let entries: Vec<_> = rooms.chain(clients).collect();
    let counts = presence.enter(&entries).await.unwrap();
    assert_eq!((counts.len(), counts[0], counts[1499], counts[1500], counts[2999]), (3000, 1, 1, 1500, 1500));
    assert_eq!(presence.stats(&conversation("a")).await.unwrap(), stats(1500, 700));
    let listed = presence.list(&conversation("a"), 10_000).await.unwrap();
    assert_eq!(listed.iter().map(|who| who.client).collect::<HashSet<_>>().len(), 1500);
}

async fn who_is_not_refreshed_vanishes<E: Present>() {
    let environment = E::new(Limits::default()).await;
    let presence = environment.presence(Some(1_000));
    let entries: Vec<_> = (0..1500).map(|n| entry("a", "alice", n)).collect();
    presence.enter(&entries).await.unwrap();
    // One is refreshed over and over, so only the others vanish.
    eventually(async || {
        let there = presence.enter(&[entry("a", "bob", 7_000)]).await.unwrap();
        let counted = presence.stats(&conversation("a")).await.unwrap();
        let listed = presence.list(&conversation("a"), 10).await.unwrap();
        (there == [1] && counted == stats(1, 1) && listed == [client("bob", 7_000)]).then_some(())
    })
    .await;
    eventually(async || presence.list(&conversation("a"), 10).await.unwrap().is_empty().then_some(())).await;
    assert_eq!(presence.stats(&conversation("a")).await.unwrap(), stats(0, 0));
}
