//! One suite for both implementations of rates.

#![expect(clippy::unwrap_used, reason = "a failure is what a test is for")]

mod support_ports;

use deploy::eventually;
use shared::{
    broker::sequence::Limits,
    domain::UserId,
    rate::{Rate, RateLimits, Subject, Taken, memory::MemoryRateLimits, redis::RedisRateLimits},
};
use support_ports::*;

suite!(a_burst_is_granted_and_no_more, subjects_do_not_share, it_is_paid_back, many_at_once_get_one_burst);

/// So slow that nothing is paid back while a test looks.
const SLOW: Rate = Rate::new(1, 100);

trait Rated: Environment {
    /// One more node's.
    fn rates(&self) -> Box<dyn RateLimits>;
}

/// Nodes of one process are one.
static SHARED: std::sync::OnceLock<std::sync::Arc<MemoryRateLimits>> = std::sync::OnceLock::new();

struct Same(std::sync::Arc<MemoryRateLimits>);

#[async_trait::async_trait]
impl RateLimits for Same {
    async fn take(
        &self,
        subject: &Subject,
        rate: Rate,
        want: u32,
    ) -> Result<Taken, shared::broker::BrokerError> {
        self.0.take(subject, rate, want).await
    }
}

impl Rated for InMemory {
    fn rates(&self) -> Box<dyn RateLimits> {
        Box::new(Same(SHARED.get_or_init(Default::default).clone()))
    }
}

impl Rated for OnRedis {
    fn rates(&self) -> Box<dyn RateLimits> {
        Box::new(RedisRateLimits::new(&self.config).unwrap())
    }
}

impl Rated for OnCluster {
    fn rates(&self) -> Box<dyn RateLimits> {
        Box::new(RedisRateLimits::new(&self.config).unwrap())
    }
}

/// A user that no other test has, also where all tests share one process's memory.
fn user(name: &str) -> Subject {
    Subject::User(UserId::parse(&format!("{name}-{}", uuid::Uuid::new_v4().simple())).unwrap())
}

async fn a_burst_is_granted_and_no_more<E: Rated>() {
    let environment = E::new(Limits::default()).await;
    let (one, other, alice) = (environment.rates(), environment.rates(), user("alice"));
    assert_eq!(one.take(&alice, SLOW, 1).await.unwrap(), Taken::Granted(1));
    assert_eq!(other.take(&alice, SLOW, 60).await.unwrap(), Taken::Granted(60), "another node knows");
    let Taken::Granted(rest) = one.take(&alice, SLOW, 1_000).await.unwrap() else { panic!("39 are left") };
    assert!((39..100).contains(&rest), "{rest} more than the burst");
    // On a machine so slow that one is paid back meanwhile, it takes one more look.
    eventually(async || {
        matches!(other.take(&alice, SLOW, 1).await.unwrap(), Taken::Refused(_)).then_some(())
    })
    .await;
}

async fn subjects_do_not_share<E: Rated>() {
    let environment = E::new(Limits::default()).await;
    let (rates, alice, bob) = (environment.rates(), user("alice"), user("bob"));
    let Subject::User(id) = &alice else { unreachable!() };
    let room = Subject::Conversation(conversation(id.as_str()));
    for subject in [&alice, &bob, &room] {
        assert_eq!(rates.take(subject, SLOW, 100).await.unwrap(), Taken::Granted(100), "{subject:?}");
    }
}

async fn it_is_paid_back<E: Rated>() {
    let environment = E::new(Limits::default()).await;
    let (rates, alice, rate) = (environment.rates(), user("alice"), Rate::new(100, 2));
    assert_eq!(rates.take(&alice, rate, 2).await.unwrap(), Taken::Granted(2));
    eventually(async || (rates.take(&alice, rate, 1).await.unwrap() == Taken::Granted(1)).then_some(()))
        .await;
}

async fn many_at_once_get_one_burst<E: Rated>() {
    let environment = E::new(Limits::default()).await;
    let (rates, alice) = (std::sync::Arc::<dyn RateLimits>::from(environment.rates()), user("alice"));
    let started = tokio::time::Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..300 {
        let (rates, alice) = (rates.clone(), alice.clone());
        tasks.spawn(async move { rates.take(&alice, SLOW, 1).await.unwrap() });
    }
    let taken = tasks.join_all().await;
    let granted = taken.iter().filter(|taken| matches!(taken, Taken::Granted(_))).count() as u64;
    let paid_back = started.elapsed().as_secs() + 1;
    assert!((100..=100 + paid_back).contains(&granted), "{granted}");
}
