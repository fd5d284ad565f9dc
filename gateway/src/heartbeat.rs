//! Pings every client, and ends those that do not answer or whose token's time is over: one wheel for the whole node
//! instead of timers for each socket.
//!
//! May use: hub's clients, clock. Deliberately absent: sockets, and what a ping looks like, which the dialect knows.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use shared::{clock, domain::Disconnect};

use crate::{
    hub::Client,
    limits::{self, Limit},
    metrics::Metrics,
};

/// Seconds between two pings of a client; the same number is told to it on connect.
pub const PING_SECONDS: usize = 25;
/// Seconds within which a ping must be answered.
pub const PONG_SECONDS_MAX: usize = 10;
/// Seconds after the expiry of a token within which a new one may still be shown.
pub const TOKEN_GRACE_SECONDS: u64 = 25;

/// All clients of this node, spread over the seconds between two pings.
pub struct Heartbeat {
    slots: Vec<Mutex<Vec<Weak<Client>>>>,
    next: AtomicUsize,
    metrics: Arc<Metrics>,
}

impl Heartbeat {
    /// A wheel without clients.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let slots = (0..PING_SECONDS).map(|_| Mutex::default()).collect();
        Self { slots, next: AtomicUsize::new(0), metrics }
    }

    /// Watches over a client until it is dropped.
    pub fn watch(&self, client: &Arc<Client>) {
        // Taking turns spreads the pings of a reconnect storm evenly.
        let slot = self.next.fetch_add(1, Ordering::Relaxed) % PING_SECONDS;
        self.slots[slot].lock().push(Arc::downgrade(client));
    }

    /// Every client that is connected now.
    pub fn clients(&self) -> Vec<Arc<Client>> {
        self.slots
            .iter()
            .flat_map(|slot| slot.lock().iter().filter_map(Weak::upgrade).collect::<Vec<_>>())
            .collect()
    }

    /// Turns the wheel, for ever.
    pub async fn run(&self) {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for second in 0.. {
            tick.tick().await;
            self.ping(second % PING_SECONDS);
            self.check((second + PING_SECONDS - PONG_SECONDS_MAX) % PING_SECONDS);
        }
    }

    fn ping(&self, slot: usize) {
        let now = clock::now_ms() / 1_000;
        for client in self.living(slot) {
            if now > client.expires().saturating_add(TOKEN_GRACE_SECONDS) {
                self.end(&client, Disconnect::Expired);
            } else {
                client.ping();
            }
        }
    }

    fn check(&self, slot: usize) {
        for client in self.living(slot) {
            if client.awaits_pong() {
                limits::refused(Limit::IdleSeconds);
                self.end(&client, Disconnect::NoPong);
            }
        }
    }

    fn end(&self, client: &Client, reason: Disconnect) {
        self.metrics.disconnects.increment(1);
        client.close(reason);
    }

    fn living(&self, slot: usize) -> Vec<Arc<Client>> {
        let mut slot = self.slots[slot].lock();
        let mut living = Vec::with_capacity(slot.len());
        slot.retain(|client| client.upgrade().inspect(|client| living.push(Arc::clone(client))).is_some());
        living
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{client, heard};

    const FOREVER: u64 = u64::MAX;

    fn heartbeat() -> Heartbeat {
        Heartbeat::new(Arc::new(Metrics::register()))
    }

    fn turn(heartbeat: &Heartbeat, what: fn(&Heartbeat, usize)) {
        (0..PING_SECONDS).for_each(|slot| what(heartbeat, slot));
    }

    #[tokio::test]
    async fn who_does_not_answer_a_ping_is_closed() {
        let heartbeat = heartbeat();
        let (silent, mut to_silent) = client(1, FOREVER);
        let (alive, mut to_alive) = client(2, FOREVER);
        heartbeat.watch(&silent);
        heartbeat.watch(&alive);
        turn(&heartbeat, Heartbeat::check);
        assert_eq!((heard(&mut to_silent), silent.outbox.is_closed()), (String::new(), false));
        turn(&heartbeat, Heartbeat::ping);
        assert_eq!((heard(&mut to_silent), heard(&mut to_alive)), ("{}\n".to_owned(), "{}\n".to_owned()));
        assert!(alive.pong());
        assert!(!alive.pong(), "one answer for one ping");
        turn(&heartbeat, Heartbeat::check);
        assert_eq!(silent.outbox.closed().await, Disconnect::NoPong);
        assert!(!alive.outbox.is_closed());
    }

    #[tokio::test]
    async fn a_token_may_be_renewed_for_a_while_after_its_time() {
        let heartbeat = heartbeat();
        let now = clock::now_ms() / 1_000;
        let (late, _to_late) = client(1, now);
        let (expired, _to_expired) = client(2, now - TOKEN_GRACE_SECONDS - 1);
        let (renewed, _to_renewed) = client(3, 0);
        renewed.renew(FOREVER);
        for client in [&late, &expired, &renewed] {
            heartbeat.watch(client);
        }
        turn(&heartbeat, Heartbeat::ping);
        assert_eq!(expired.outbox.closed().await, Disconnect::Expired);
        assert!(!late.outbox.is_closed() && !renewed.outbox.is_closed());
    }

    #[tokio::test]
    async fn clients_are_spread_over_the_seconds_and_forgotten_when_they_are_gone() {
        let heartbeat = heartbeat();
        let clients: Vec<_> = (0..2 * PING_SECONDS).map(|n| client(n as u128, FOREVER)).collect();
        for (client, _) in &clients {
            heartbeat.watch(client);
        }
        assert!(heartbeat.slots.iter().all(|slot| slot.lock().len() == 2));
        assert_eq!(heartbeat.clients().len(), clients.len());
        drop(clients);
        turn(&heartbeat, Heartbeat::ping);
        assert!(heartbeat.slots.iter().all(|slot| slot.lock().is_empty()));
    }
}
