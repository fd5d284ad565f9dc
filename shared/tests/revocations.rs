//! One suite for both implementations of revocations, and what only Redis can do to one.
#![expect(clippy::unwrap_used, reason = "a failure is what a test is for")]

mod support_ports;

use std::time::Duration;

use deploy::{TcpProxy, eventually};
use shared::{
    broker::{EntryId, redis::RedisConfig, sequence::Limits},
    domain::UserId,
    revocations::{
        READ_ENTRIES_MAX, Revocation, Revocations, Revoked, memory::MemoryRevocations,
        redis::RedisRevocations,
    },
};
use support_ports::*;

suite!(
    what_is_revoked_is_read_in_order_and_from_where_one_was,
    many_are_read_in_pages,
    a_reader_waits_for_news,
    what_is_too_old_is_let_go_of
);

const LIFE: Duration = Duration::from_hours(1);
/// Longer than any test.
const LONG: Duration = Duration::from_mins(1);

trait Revoking: Environment {
    fn revocations(&self, life: Duration) -> Box<dyn Revocations>;
}

impl Revoking for InMemory {
    fn revocations(&self, life: Duration) -> Box<dyn Revocations> {
        Box::new(MemoryRevocations::new(life))
    }
}

impl Revoking for OnRedis {
    fn revocations(&self, life: Duration) -> Box<dyn Revocations> {
        Box::new(RedisRevocations::new(&self.config, life).unwrap())
    }
}

impl Revoking for OnCluster {
    fn revocations(&self, life: Duration) -> Box<dyn Revocations> {
        Box::new(RedisRevocations::new(&self.config, life).unwrap())
    }
}

fn token(jti: impl Into<String>) -> Revocation {
    Revocation::Token(jti.into())
}

fn user(name: &str, before: u64) -> Revocation {
    Revocation::User(UserId::parse(name).unwrap(), before)
}

fn what(entries: &[Revoked]) -> Vec<Revocation> {
    entries.iter().map(|entry| entry.what.clone().unwrap()).collect()
}

async fn what_is_revoked_is_read_in_order_and_from_where_one_was<E: Revoking>() {
    let environment = E::new(Limits::default()).await;
    let port = environment.revocations(LIFE);
    let start = EntryId::default();
    assert!(port.read(start, Duration::ZERO).await.unwrap().is_empty());
    assert!(!port.has(EntryId { ms: 1, n: 0 }).await.unwrap());
    let all = [token("a b\"ä"), user("alice", 7), token("c"), user("alice", 9)];
    for revocation in &all {
        port.revoke(revocation).await.unwrap();
    }
    let read = port.read(start, Duration::ZERO).await.unwrap();
    assert_eq!(what(&read), all);
    assert!(read.is_sorted_by_key(|entry| entry.id));
    assert_eq!(what(&port.read(read[1].id, LONG).await.unwrap()), all[2..]);
    assert!(port.read(read[3].id, Duration::from_millis(1)).await.unwrap().is_empty());
    assert!(port.has(read[3].id).await.unwrap());
}

async fn many_are_read_in_pages<E: Revoking>() {
    let environment = E::new(Limits::default()).await;
    let port = environment.revocations(LIFE);
    let all: Vec<Revocation> = (0..READ_ENTRIES_MAX + 10).map(|n| token(n.to_string())).collect();
    for revocation in &all {
        port.revoke(revocation).await.unwrap();
    }
    let first = port.read(EntryId::default(), LONG).await.unwrap();
    let second = port.read(first.last().unwrap().id, LONG).await.unwrap();
    assert_eq!((first.len(), second.len()), (READ_ENTRIES_MAX, 10));
    assert_eq!([what(&first), what(&second)].concat(), all);
}

async fn a_reader_waits_for_news<E: Revoking>() {
    let environment = E::new(Limits::default()).await;
    let port = environment.revocations(LIFE);
    let mut last = EntryId::default();
    for round in 0..20 {
        let name = token(round.to_string());
        let (read, revoked) = tokio::join!(port.read(last, LONG), port.revoke(&name));
        revoked.unwrap();
        let read = read.unwrap();
        assert_eq!(what(&read), [name]);
        last = read[0].id;
    }
}

async fn what_is_too_old_is_let_go_of<E: Revoking>() {
    let environment = E::new(Limits::default()).await;
    let port = environment.revocations(Duration::ZERO);
    // Redis lets go of whole blocks of entries alone, so it takes more of them than one block has.
    let mut revoked = 0;
    eventually(async || {
        port.revoke(&token(format!("t{revoked}"))).await.unwrap();
        revoked += 1;
        let kept = port.read(EntryId::default(), Duration::ZERO).await.unwrap();
        let is_newest_kept =
            kept.last().is_some_and(|last| last.what == Some(token(format!("t{}", revoked - 1))));
        assert!(is_newest_kept);
        (kept.len() < revoked).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_reader_behind_a_stalled_connection_notices_and_misses_nothing() {
    let environment = OnRedis::new(Limits::default()).await;
    let proxy = TcpProxy::start(environment.server.address()).await.unwrap();
    let config = RedisConfig { url: format!("redis://{}/", proxy.addr()), ..environment.config.clone() };
    let (cut_off, other) = (RedisRevocations::new(&config, LIFE).unwrap(), environment.revocations(LIFE));
    other.revoke(&token("before")).await.unwrap();
    let last = cut_off.read(EntryId::default(), LONG).await.unwrap()[0].id;
    // Only the reader's own connection is silent: what it waits for is never answered on that one.
    proxy.stall_connections_that_sent(b"XREAD");
    other.revoke(&token("a")).await.unwrap();
    cut_off.read(last, Duration::from_millis(10)).await.unwrap_err();
    proxy.resume();
    assert_eq!(what(&cut_off.read(last, LONG).await.unwrap()), [token("a")]);
    proxy.refuse(true);
    proxy.cut_all();
    cut_off.read(last, LONG).await.unwrap_err();
    other.revoke(&user("alice", 1)).await.unwrap();
    cut_off.read(last, LONG).await.unwrap_err();
    proxy.refuse(false);
    assert_eq!(what(&cut_off.read(last, LONG).await.unwrap()), [token("a"), user("alice", 1)]);
}

#[tokio::test]
async fn what_another_version_wrote_does_not_stop_a_reader() {
    let environment = OnRedis::new(Limits::default()).await;
    let port = environment.revocations(LIFE);
    let mut raw = environment.raw().await;
    for fields in
        [vec!["device", "x"], vec!["user", "a b", "before", "7"], vec!["user", "alice", "before", "x"]]
    {
        let mut add = redis::cmd("XADD");
        let _: String =
            add.arg("starling:revocations").arg("*").arg(fields).query_async(&mut raw).await.unwrap();
    }
    port.revoke(&token("a")).await.unwrap();
    let read = port.read(EntryId::default(), Duration::ZERO).await.unwrap();
    let read: Vec<Option<Revocation>> = read.into_iter().map(|entry| entry.what).collect();
    assert_eq!(read, [None, None, None, Some(token("a"))]);
}

#[tokio::test]
async fn a_file_keeps_them_for_the_next_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("revocations.jsonl");
    let start = EntryId::default();
    let all = [token("a b\"ä\n"), user("alice", 7), token("c")];
    let port = MemoryRevocations::open(&path, LIFE).unwrap();
    for revocation in &all {
        port.revoke(revocation).await.unwrap();
    }
    let read = port.read(start, Duration::ZERO).await.unwrap();
    drop(port);
    // As a process leaves it that is killed in the middle of a line.
    let whole = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{whole}{{\"ms\":1")).unwrap();
    let port = MemoryRevocations::open(&path, LIFE).unwrap();
    assert_eq!(port.read(start, Duration::ZERO).await.unwrap(), read);
    port.revoke(&token("d")).await.unwrap();
    drop(port);
    let port = MemoryRevocations::open(&path, LIFE).unwrap();
    let again = port.read(read[2].id, Duration::ZERO).await.unwrap();
    assert_eq!(what(&again), [token("d")]);
    drop(port);
    let expired = MemoryRevocations::open(&path, Duration::ZERO).unwrap();
    assert!(expired.read(start, Duration::ZERO).await.unwrap().is_empty());
    std::fs::write(&path, "no line\n").unwrap();
    assert!(MemoryRevocations::open(&path, LIFE).is_err());
}
