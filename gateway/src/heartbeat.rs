//! Pings every client, and ends those that do not answer or whose token's time is over: one wheel for the whole node
//! instead of timers for each socket.
//!
//! May use: hub's clients, clock. Deliberately absent: sockets, and what a ping looks like, which the dialect knows.

use std::{
    collections::BTreeMap,
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
    /// Clients whose token and its grace end before they are pinged next, by the second after which they are closed.
    ending: Mutex<BTreeMap<u64, Vec<Weak<Client>>>>,
    metrics: Arc<Metrics>,
}

impl Heartbeat {
    /// A wheel without clients.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let slots = (0..PING_SECONDS).map(|_| Mutex::default()).collect();
        Self { slots, next: AtomicUsize::new(0), ending: Mutex::default(), metrics }
    }

    /// Watches over a client until it is dropped.
    pub fn watch(&self, client: &Arc<Client>) {
        // Taking turns spreads the pings of a reconnect storm evenly.
        let slot = self.next.fetch_add(1, Ordering::Relaxed) % PING_SECONDS;
        self.slots[slot].lock().push(Arc::downgrade(client));
        self.expect(client);
    }

    /// Notes the end of a client's token, if it comes before the next ping: there it would be seen anyway.
    pub fn expect(&self, client: &Arc<Client>) {
        let end = client.expires().saturating_add(TOKEN_GRACE_SECONDS);
        if end <= now() + PING_SECONDS as u64 {
            self.ending.lock().entry(end).or_default().push(Arc::downgrade(client));
        }
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
            self.expire(now());
        }
    }

    fn ping(&self, slot: usize) {
        for client in self.living(slot) {
            self.expect(&client);
            client.ping();
        }
    }

    /// Closes those whose token and its grace are over in the second `now`. Who has shown a new one was noted again for it.
    fn expire(&self, now: u64) {
        let over = {
            let mut ending = self.ending.lock();
            let later = ending.split_off(&now);
            std::mem::replace(&mut *ending, later)
        };
        for client in over.into_values().flatten().filter_map(|client| client.upgrade()) {
            let end = client.expires().saturating_add(TOKEN_GRACE_SECONDS);
            if end < now && !client.outbox.is_closed() {
                self.end(&client, Disconnect::Expired);
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

/// The present second since 1970.
fn now() -> u64 {
    clock::now_ms() / 1_000
}

#[cfg(test)]
mod tests {
    use shared::auth::Claims;

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
        let (heartbeat, start) = (heartbeat(), now());
        let (expired, _to_expired) = client(1, start);
        let (renewed, _to_renewed) = client(2, start);
        heartbeat.watch(&expired);
        heartbeat.watch(&renewed);
        heartbeat.expire(start + TOKEN_GRACE_SECONDS);
        assert!(!expired.outbox.is_closed(), "this is the last second of the grace");
        let token = |expires| Arc::new(Claims::of(renewed.info.user.clone(), expires));
        renewed.renew(token(start + 1));
        heartbeat.expect(&renewed);
        heartbeat.expire(start + TOKEN_GRACE_SECONDS + 1);
        assert_eq!(expired.outbox.closed().await, Disconnect::Expired);
        assert!(!renewed.outbox.is_closed());
        renewed.renew(token(FOREVER));
        heartbeat.expire(start + TOKEN_GRACE_SECONDS + 2);
        assert!(!renewed.outbox.is_closed());
    }

    #[tokio::test]
    async fn the_end_of_a_token_is_noted_at_the_ping_before_it() {
        let heartbeat = heartbeat();
        let far = now() + PING_SECONDS as u64;
        let (patient, _to_patient) = client(1, far);
        heartbeat.watch(&patient);
        let end = far + TOKEN_GRACE_SECONDS + 1;
        heartbeat.expire(end);
        assert!(!patient.outbox.is_closed(), "it is noted too early");
        patient.renew(Arc::new(Claims::of(patient.info.user.clone(), now() - TOKEN_GRACE_SECONDS)));
        turn(&heartbeat, Heartbeat::ping);
        heartbeat.expire(end);
        assert_eq!(patient.outbox.closed().await, Disconnect::Expired);
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
