use async_trait::async_trait;
use shared::{broker::BrokerError, rate::memory::MemoryRateLimits};

use super::*;

fn limiter(change: impl FnOnce(&mut Settings)) -> Limiter {
    let mut settings = Settings::default();
    change(&mut settings);
    Limiter::new(settings, Arc::new(MemoryRateLimits::default()))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn turned(admitted: Result<Admitted, Turned>) -> Option<Limit> {
    admitted.err().and_then(|turned| turned.limit)
}

#[test]
fn one_address_has_its_share() {
    let limiter = limiter(|settings| settings.connections_per_address_max = 1);
    let first = limiter.admit(ip("2001:db8::1")).unwrap();
    assert_eq!(turned(limiter.admit(ip("2001:db8::2"))), Some(Limit::ConnectionsPerAddress));
    let _other = limiter.admit(ip("192.0.2.1")).unwrap();
    drop(first);
    limiter.admit(ip("2001:db8::2")).unwrap();
}

#[test]
fn a_node_has_its_share() {
    let limiter = limiter(|settings| settings.connections_max = 1);
    let _first = limiter.admit(ip("192.0.2.1")).unwrap();
    assert_eq!(turned(limiter.admit(ip("192.0.2.2"))), Some(Limit::Connections));
    assert_eq!(Limit::Connections.answer(), Answer::Http(503));
}

#[test]
fn who_has_said_who_it_is_is_not_pending() {
    let limiter = limiter(|settings| settings.handshakes_pending_max = 1);
    let mut first = limiter.admit(ip("192.0.2.1")).unwrap();
    assert_eq!(turned(limiter.admit(ip("192.0.2.2"))), Some(Limit::HandshakesPending));
    first.authenticated();
    let _second = limiter.admit(ip("192.0.2.2")).unwrap();
    drop(first);
    assert_eq!(turned(limiter.admit(ip("192.0.2.1"))), Some(Limit::HandshakesPending));
    let limiter = super::tests::limiter(|settings| settings.handshakes_pending_per_address_max = 1);
    let _first = limiter.admit(ip("192.0.2.1")).unwrap();
    assert_eq!(turned(limiter.admit(ip("192.0.2.1"))), Some(Limit::HandshakesPendingPerAddress));
    let _other = limiter.admit(ip("192.0.2.2")).unwrap();
}

#[tokio::test]
async fn handshakes_have_a_rate() {
    let limiter = limiter(|settings| {
        (settings.handshakes_per_second, settings.handshakes_burst) = (1, 2);
    });
    let refused = (0..1_000).find_map(|_| limiter.admit(ip("192.0.2.1")).err()).unwrap();
    assert_eq!(refused.limit, Some(Limit::HandshakesPerSecond));
    assert!((1..=RETRY_SECONDS_MAX).contains(&refused.retry_seconds));
    while limiter.admit(ip("192.0.2.1")).is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    limiter.drain();
    assert_eq!(limiter.admit(ip("192.0.2.1")).unwrap_err(), Turned { limit: None, retry_seconds: 1 });
}

#[test]
fn a_refused_handshake_takes_no_place() {
    let limiter = limiter(|settings| {
        (settings.handshakes_per_second, settings.connections_max) = (1, 1);
    });
    let refused = (0..100_000).find_map(|_| turned(limiter.admit(ip("192.0.2.1"))));
    assert_eq!(refused, Some(Limit::HandshakesPerSecond));
    assert!(limiter.node.take(&()).is_some() && limiter.addresses.is_empty(), "nothing is held");
}

#[test]
fn one_user_has_its_share() {
    let limiter = limiter(|settings| settings.connections_per_user_max = 1);
    let seat = limiter.seat(&user("alice")).unwrap();
    assert_eq!(limiter.seat(&user("alice")).unwrap_err(), Refusal::LimitExceeded);
    let _bob = limiter.seat(&user("bob")).unwrap();
    drop(seat);
    limiter.seat(&user("alice")).unwrap();
}

#[tokio::test]
async fn resumes_wait_in_line_and_the_line_has_an_end() {
    let limiter = Arc::new(limiter(|settings| {
        (settings.resumes_concurrent_max, settings.resumes_pending_max) = (1, 2);
    }));
    let first = limiter.turn_to_resume().await.unwrap();
    let mut turns = Vec::new();
    for number in 0..2 {
        let limiter = Arc::clone(&limiter);
        turns.push(tokio::spawn(async move { limiter.turn_to_resume().await.map(|_| number) }));
        tokio::task::yield_now().await;
    }
    assert_eq!(limiter.turn_to_resume().await.map(drop), Err(Refusal::RateLimited));
    assert!(turns.iter().all(|turn| !turn.is_finished()));
    drop(first);
    for (number, turn) in turns.into_iter().enumerate() {
        assert_eq!(turn.await.unwrap(), Ok(number));
    }
}

#[tokio::test]
async fn nobody_is_let_in_while_the_line_is_long() {
    let limiter = Arc::new(limiter(|settings| {
        (settings.connects_concurrent_max, settings.connects_pending_max) = (1, 1);
    }));
    let first = limiter.turn_to_connect().await;
    let waiting = tokio::spawn({
        let limiter = Arc::clone(&limiter);
        async move { drop(limiter.turn_to_connect().await) }
    });
    while turned(limiter.admit(ip("192.0.2.1"))) != Some(Limit::ConnectsPending) {
        tokio::task::yield_now().await;
    }
    drop(first);
    waiting.await.unwrap();
    limiter.admit(ip("192.0.2.1")).unwrap();
}

#[tokio::test]
async fn publishes_have_a_rate_of_the_user_and_of_the_conversation() {
    let limiter = limiter(|settings| {
        settings.publishes_per_user = Rate::new(1, 3);
        settings.publishes_per_conversation = Rate::new(1, 2);
    });
    let room = ConversationId::parse("room").unwrap();
    for _ in 0..3 {
        limiter.publish_by(&user("alice")).await.unwrap();
    }
    while limiter.publish_by(&user("alice")).await.is_ok() {}
    limiter.publish_by(&user("bob")).await.unwrap();
    for _ in 0..2 {
        limiter.publish_to(&room).await.unwrap();
    }
    while limiter.publish_to(&room).await.is_ok() {}
    limiter.publish_to(&ConversationId::parse("other").unwrap()).await.unwrap();
}

/// Counts how often it is asked.
#[derive(Default)]
struct Asked {
    rates: MemoryRateLimits,
    count: Mutex<u32>,
}

#[async_trait]
impl RateLimits for Asked {
    async fn take(&self, subject: &Subject, rate: Rate, want: u32) -> Result<Taken, BrokerError> {
        *self.count.lock() += 1;
        self.rates.take(subject, rate, want).await
    }
}

#[tokio::test]
async fn two_nodes_share_one_account_and_ask_seldom() {
    let asked = Arc::new(Asked::default());
    let settings = Settings { publishes_per_user: Rate::new(1, 1_000), ..Settings::default() };
    let nodes = [0, 1].map(|_| Limiter::new(settings.clone(), Arc::clone(&asked) as Arc<dyn RateLimits>));
    let began = std::time::Instant::now();
    let mut granted = 0;
    for attempt in 0..1_500 {
        granted += u64::from(nodes[attempt % 2].publish_by(&user("alice")).await.is_ok());
    }
    // Each node holds what it has been given and has not used: less than a hundredth of a burst.
    let paid_back = began.elapsed().as_secs() + 1;
    assert!((980..=1_010 + paid_back).contains(&granted), "{granted}");
    assert!(*asked.count.lock() < 700, "one of ten asks, until there is nothing left");
}

/// Never answers.
struct Silent;

#[async_trait]
impl RateLimits for Silent {
    async fn take(&self, _: &Subject, _: Rate, _: u32) -> Result<Taken, BrokerError> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn without_redis_the_account_of_the_node_counts() {
    let settings = Settings { publishes_per_user: Rate::new(1, 50), ..Settings::default() };
    let limiter = Limiter::new(settings, Arc::new(Silent));
    for _ in 0..50 {
        limiter.publish_by(&user("alice")).await.unwrap();
    }
    while limiter.publish_by(&user("alice")).await.is_ok() {}
}

#[tokio::test]
async fn requests_and_who_is_added_are_counted() {
    let limiter = limiter(|settings| {
        (settings.requests_per_user, settings.publishes_per_user) = (Rate::new(1, 2), Rate::new(1, 50));
    });
    let (alice, bob) = (user("alice"), user("bob"));
    while limiter.request_by(&alice).is_ok() {}
    assert_eq!(limiter.request_by(&bob), Ok(()), "each has its own");
    assert_eq!(limiter.publish_many_by(&alice, 40).await, Ok(()));
    assert_eq!(limiter.publish_many_by(&alice, 40).await, Err(Refusal::RateLimited));
}

#[test]
fn names_are_unique_and_answers_are_codes() {
    let mut names: Vec<&str> = Limit::ALL.iter().map(|limit| limit.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Limit::ALL.len());
    for limit in Limit::ALL {
        if let Answer::Refusal(code) = limit.answer() {
            assert!(Refusal::ALL.iter().any(|refusal| refusal.code() == code), "{code}");
        }
    }
}
