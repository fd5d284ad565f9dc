//! One suite for both implementations of connections.

#![expect(clippy::unwrap_used, reason = "a failure is what a test is for")]

mod support_ports;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use deploy::eventually;
use shared::{
    broker::sequence::Limits,
    connections::{
        Connections, Gone, RETURN_MS, TAKEN_MS, memory::MemoryConnections, redis::RedisConnections,
    },
    domain::{ConnectionId, ConnectionRecord, NodeId, UserId},
};
use support_ports::*;
use uuid::Uuid;

suite!(
    a_user_is_online_while_there_is_a_connection,
    a_quick_return_is_no_news,
    who_is_gone_is_taken_by_one,
    who_comes_back_while_the_others_are_told_is_told_again,
    who_dies_after_taking_is_followed_by_another,
    who_is_not_refreshed_is_gone,
    many_users_enter_at_once,
    after_a_loss_a_refresh_enters_everybody_again
);

trait Connected: Environment {
    fn connections(&self, ttl_ms: u64) -> Box<dyn Connections>;
    /// Loses all data.
    async fn lose(&self, connections: &mut Box<dyn Connections>);
}

impl Connected for InMemory {
    fn connections(&self, ttl_ms: u64) -> Box<dyn Connections> {
        Box::new(MemoryConnections::with_ttl_ms(ttl_ms))
    }
    async fn lose(&self, connections: &mut Box<dyn Connections>) {
        *connections = self.connections(LONG_MS);
    }
}

impl Connected for OnRedis {
    fn connections(&self, ttl_ms: u64) -> Box<dyn Connections> {
        Box::new(RedisConnections::with_ttl_ms(&self.config, ttl_ms).unwrap())
    }
    async fn lose(&self, _: &mut Box<dyn Connections>) {
        redis::cmd("FLUSHALL").exec_async(&mut self.raw().await).await.unwrap();
    }
}

impl Connected for OnCluster {
    fn connections(&self, ttl_ms: u64) -> Box<dyn Connections> {
        Box::new(RedisConnections::with_ttl_ms(&self.config, ttl_ms).unwrap())
    }
    async fn lose(&self, _: &mut Box<dyn Connections>) {
        self.flush().await;
    }
}

/// Longer than a test.
const LONG_MS: u64 = 600_000;

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn id(number: u128) -> ConnectionId {
    ConnectionId(Uuid::from_u128(number))
}

fn record(name: &str, number: u128) -> ConnectionRecord {
    ConnectionRecord {
        client: id(number),
        user: user(name),
        node: NodeId::parse("n1").unwrap(),
        address: "2001:db8::1".to_owned(),
        user_agent: "a \"browser\"\n".to_owned(),
        protocol: "centrifuge/websocket".into(),
        since: 1_790_000_000_000,
    }
}

fn entry(name: &str, number: u128) -> Arc<ConnectionRecord> {
    Arc::new(record(name, number))
}

async fn state(connections: &dyn Connections, name: &str) -> (bool, bool) {
    let state = connections.states(&[user(name)]).await.unwrap()[0];
    (state.connected, state.known)
}

async fn taken(connections: &dyn Connections, early_ms: u64) -> Vec<UserId> {
    let mut users: Vec<UserId> =
        connections.take_gone(early_ms).await.unwrap().into_iter().map(|gone| gone.user).collect();
    users.sort();
    users
}

async fn a_user_is_online_while_there_is_a_connection<E: Connected>() {
    let environment = E::new(Limits::default()).await;
    let connections = environment.connections(LONG_MS);
    assert_eq!(state(&*connections, "alice").await, (false, false));
    assert!(connections.list(&user("alice"), 10).await.unwrap().is_empty());
    assert_eq!(connections.enter(&[entry("alice", 1)]).await.unwrap(), [user("alice")]);
    assert!(connections.enter(&[entry("alice", 1), entry("alice", 2)]).await.unwrap().is_empty());
    let mut listed = connections.list(&user("alice"), 10).await.unwrap();
    listed.sort_by_key(|record| record.client);
    assert_eq!(listed, [record("alice", 1), record("alice", 2)]);
    assert_eq!(connections.list(&user("alice"), 1).await.unwrap().len(), 1);
    connections.leave(&user("alice"), id(1)).await.unwrap();
    connections.leave(&user("alice"), id(1)).await.unwrap();
    assert_eq!(state(&*connections, "alice").await, (true, true));
    connections.leave(&user("alice"), id(2)).await.unwrap();
    assert_eq!(state(&*connections, "alice").await, (false, true), "gone, and nobody was told yet");
    let both = connections.states(&[user("bob"), user("alice")]).await.unwrap();
    assert_eq!(both[0], shared::connections::UserState::default());
    assert!(both[1].last_seen.is_some());
}

async fn a_quick_return_is_no_news<E: Connected>() {
    let environment = E::new(Limits::default()).await;
    let connections = environment.connections(LONG_MS);
    connections.enter(&[entry("alice", 1)]).await.unwrap();
    connections.leave(&user("alice"), id(1)).await.unwrap();
    assert!(connections.enter(&[entry("alice", 2)]).await.unwrap().is_empty());
    // Nor is the time over that began with the first leave.
    assert!(taken(&*connections, RETURN_MS).await.is_empty());
    assert_eq!(state(&*connections, "alice").await, (true, true));
}

async fn who_is_gone_is_taken_by_one<E: Connected>() {
    let environment = E::new(Limits::default()).await;
    let connections = environment.connections(LONG_MS);
    connections.enter(&[entry("alice", 1), entry("bob", 2), entry("carol", 3)]).await.unwrap();
    connections.leave(&user("alice"), id(1)).await.unwrap();
    connections.leave(&user("bob"), id(2)).await.unwrap();
    assert_eq!(taken(&*connections, RETURN_MS).await, [user("alice"), user("bob")]);
    assert!(taken(&*connections, RETURN_MS).await.is_empty(), "somebody has taken them");
    assert_eq!(state(&*connections, "alice").await, (false, false));
    assert!(connections.confirm_gone(&[user("alice"), user("bob")]).await.unwrap().is_empty());
    assert!(taken(&*connections, TAKEN_MS + RETURN_MS).await.is_empty());
    assert_eq!(connections.enter(&[entry("alice", 4)]).await.unwrap(), [user("alice")], "that is news");
}

async fn who_comes_back_while_the_others_are_told_is_told_again<E: Connected>() {
    let environment = E::new(Limits::default()).await;
    let connections = environment.connections(LONG_MS);
    connections.enter(&[entry("alice", 1)]).await.unwrap();
    connections.leave(&user("alice"), id(1)).await.unwrap();
    assert_eq!(taken(&*connections, RETURN_MS).await, [user("alice")]);
    assert_eq!(connections.enter(&[entry("alice", 2)]).await.unwrap(), [user("alice")]);
    assert_eq!(connections.confirm_gone(&[user("alice")]).await.unwrap(), [user("alice")]);
    assert_eq!(state(&*connections, "alice").await, (true, true));
}

async fn who_dies_after_taking_is_followed_by_another<E: Connected>() {
    let environment = E::new(Limits::default()).await;
    let connections = environment.connections(LONG_MS);
    connections.enter(&[entry("alice", 1)]).await.unwrap();
    connections.leave(&user("alice"), id(1)).await.unwrap();
    let first: Vec<Gone> = connections.take_gone(RETURN_MS).await.unwrap();
    assert_eq!(connections.take_gone(TAKEN_MS).await.unwrap(), first, "with the same time");
}

async fn who_is_not_refreshed_is_gone<E: Connected>() {
    const TTL: Duration = Duration::from_secs(1);
    let environment = E::new(Limits::default()).await;
    let connections = environment.connections(1_000);
    // A machine that stood still for as long as an entry lives has refreshed nobody, and begins anew.
    eventually(async || {
        connections.enter(&[entry("alice", 1), entry("alice", 2)]).await.unwrap();
        // One user is refreshed over and over, so only the other one vanishes.
        let mut is_refreshed = true;
        let gone = eventually(async || {
            let began = Instant::now();
            connections.enter(&[entry("bob", 3)]).await.unwrap();
            let gone = taken(&*connections, 0).await;
            is_refreshed &= began.elapsed() < TTL;
            (!gone.is_empty()).then_some(gone)
        })
        .await;
        if is_refreshed {
            assert_eq!(gone, [user("alice")]);
        }
        is_refreshed.then_some(())
    })
    .await;
    assert_eq!(state(&*connections, "alice").await, (false, false));
    assert!(connections.list(&user("alice"), 10).await.unwrap().is_empty());
    eventually(async || (taken(&*connections, 0).await == [user("bob")]).then_some(())).await;
}

async fn many_users_enter_at_once<E: Connected>() {
    let environment = E::new(Limits::default()).await;
    let connections = environment.connections(LONG_MS);
    let records: Vec<_> = (0..1200).map(|n| entry(&format!("user-{n}"), n)).collect();
    assert_eq!(connections.enter(&records).await.unwrap().len(), 1200);
    assert!(connections.enter(&records).await.unwrap().is_empty());
    let users: Vec<UserId> = records.iter().map(|record| record.user.clone()).collect();
    assert!(connections.states(&users).await.unwrap().iter().all(|state| state.connected && state.known));
    for record in &records {
        connections.leave(&record.user, record.client).await.unwrap();
    }
    let mut gone = 0;
    eventually(async || {
        gone += connections.take_gone(RETURN_MS).await.unwrap().len();
        (gone == 1200).then_some(())
    })
    .await;
    assert!(connections.confirm_gone(&users).await.unwrap().is_empty());
    assert!(connections.states(&users).await.unwrap().iter().all(|state| !state.known));
}

async fn after_a_loss_a_refresh_enters_everybody_again<E: Connected>() {
    let environment = E::new(Limits::default()).await;
    let mut connections = environment.connections(LONG_MS);
    connections.enter(&[entry("alice", 1), entry("bob", 2)]).await.unwrap();
    environment.lose(&mut connections).await;
    assert_eq!(state(&*connections, "alice").await, (false, false));
    assert_eq!(connections.enter(&[entry("alice", 1)]).await.unwrap(), [user("alice")]);
    assert_eq!(state(&*connections, "alice").await, (true, true));
}
