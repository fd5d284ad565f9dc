//! One wheel for the deadlines of all connections: each stands in the slot of the tick at which it is looked after next.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::{EngineConfig, Socket};

/// Ticks for which an answer to a ping is waited for: the precision of all deadlines.
const TICKS_PER_TIMEOUT: u32 = 20;
const TICK_MAX: Duration = Duration::from_secs(1);
const TICK_MIN: Duration = Duration::from_millis(10);

/// The wheel.
pub(super) struct Wheel {
    started: Instant,
    tick: Duration,
    slots: Vec<Mutex<Vec<Weak<Socket>>>>,
    /// The tick whose slot was looked at last.
    turned: AtomicU64,
}

impl Wheel {
    pub(super) fn new(config: &EngineConfig) -> Self {
        let tick = (config.ping_timeout / TICKS_PER_TIMEOUT).clamp(TICK_MIN, TICK_MAX);
        let longest = config.ping_interval + config.ping_timeout + config.connect_time_max;
        let slots = longest.as_millis() / tick.as_millis() + 2;
        let slots = (0..slots).map(|_| Mutex::default()).collect();
        Self { started: Instant::now(), tick, slots, turned: AtomicU64::new(0) }
    }

    /// Notes a connection for the first tick at or after `due`.
    pub(super) fn put(&self, socket: &Arc<Socket>, due: Instant) {
        let after = due.saturating_duration_since(self.started).as_nanos();
        let tick = u64::try_from(after.div_ceil(self.tick.as_nanos())).unwrap_or(u64::MAX);
        let furthest = self.turned.load(Ordering::Relaxed) + self.slots.len() as u64 - 1;
        let tick = tick.clamp(self.turned.load(Ordering::Relaxed) + 1, furthest);
        self.slot(tick).lock().push(Arc::downgrade(socket));
    }

    /// Turns for ever. `look` says when to look at a connection again, if at all.
    pub(super) async fn run(&self, look: impl Fn(Arc<Socket>) -> Option<Instant>) {
        let mut ticks = interval_at(self.started, self.tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let now = ticks.tick().await.max(Instant::now());
            let end = now.saturating_duration_since(self.started).as_nanos() / self.tick.as_nanos();
            let end = u64::try_from(end).unwrap_or(u64::MAX);
            while self.turned.load(Ordering::Relaxed) < end {
                let tick = self.turned.fetch_add(1, Ordering::Relaxed) + 1;
                let due = std::mem::take(&mut *self.slot(tick).lock());
                for socket in due.iter().filter_map(Weak::upgrade) {
                    if let Some(next) = look(Arc::clone(&socket)) {
                        self.put(&socket, next);
                    }
                }
            }
        }
    }

    fn slot(&self, tick: u64) -> &Mutex<Vec<Weak<Socket>>> {
        let at = usize::try_from(tick % self.slots.len() as u64).expect("it is below a length");
        &self.slots[at]
    }
}
