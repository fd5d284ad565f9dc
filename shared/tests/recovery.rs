//! One suite for both implementations of sessions that can be taken up again.

#![expect(clippy::unwrap_used, reason = "a failure is what a test is for")]

mod support_ports;

use std::{sync::Arc, time::Duration};

use deploy::eventually;
use shared::{
    broker::sequence::Limits,
    domain::{ConversationId, Seq, UserId},
    recovery::{Kept, Recovery, memory::MemoryRecovery, redis::RedisRecovery},
};
use support_ports::*;
use uuid::Uuid;

suite!(a_session_is_found_by_its_user_alone, what_is_kept_last_counts, it_is_kept_for_its_time);

const LONG: Duration = Duration::from_hours(1);

trait Recovering: Environment {
    /// One that two nodes would have.
    fn recovery(&self) -> Arc<dyn Recovery>;
}

impl Recovering for InMemory {
    fn recovery(&self) -> Arc<dyn Recovery> {
        Arc::new(MemoryRecovery::default())
    }
}

impl Recovering for OnRedis {
    fn recovery(&self) -> Arc<dyn Recovery> {
        Arc::new(RedisRecovery::new(&self.config).unwrap())
    }
}

impl Recovering for OnCluster {
    fn recovery(&self) -> Arc<dyn Recovery> {
        Arc::new(RedisRecovery::new(&self.config).unwrap())
    }
}

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn session(seq: u64) -> Kept {
    let rooms = [(ConversationId::parse("conv_a_b").unwrap(), Seq(seq))].into();
    Kept { holder: Uuid::from_u128(7), name: "sid".to_owned(), time: 5, rooms }
}

async fn a_session_is_found_by_its_user_alone<E: Recovering>() {
    let environment = E::new(Limits::default()).await;
    let recovery = environment.recovery();
    recovery.keep(&user("a"), "secret", &session(1), LONG).await.unwrap();
    assert_eq!(recovery.find(&user("a"), "secret").await.unwrap(), Some(session(1)));
    assert_eq!(recovery.find(&user("b"), "secret").await.unwrap(), None);
    assert_eq!(recovery.find(&user("a"), "other").await.unwrap(), None);
    recovery.forget(&user("a"), "secret").await.unwrap();
    assert_eq!(recovery.find(&user("a"), "secret").await.unwrap(), None);
}

async fn what_is_kept_last_counts<E: Recovering>() {
    let environment = E::new(Limits::default()).await;
    let recovery = environment.recovery();
    recovery.keep(&user("a"), "secret", &session(1), LONG).await.unwrap();
    recovery.keep(&user("a"), "secret", &session(2), LONG).await.unwrap();
    assert_eq!(recovery.find(&user("a"), "secret").await.unwrap(), Some(session(2)));
}

async fn it_is_kept_for_its_time<E: Recovering>() {
    let environment = E::new(Limits::default()).await;
    let recovery = environment.recovery();
    recovery.keep(&user("a"), "secret", &session(1), Duration::from_secs(1)).await.unwrap();
    eventually(async || recovery.find(&user("a"), "secret").await.unwrap().is_none().then_some(())).await;
}
