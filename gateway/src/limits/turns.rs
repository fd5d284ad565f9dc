//! Turns for those who come, so that those who are here are served in between.
//!
//! When thousands come back at once, each of them alone is soon done, but whatever else is to be done would wait behind all of
//! them. So only a few of them are ready to run at any moment; the others stand in a line of their own. Nothing is held while
//! somebody waits for the network: a slow client keeps nobody out. And while the node is late with everything, nobody has a
//! turn for a moment: they need not only this process, but Redis, the store and the clients' own machines too.

use std::{future::poll_fn, mem::replace, pin::pin, sync::Arc, task::Poll, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::Semaphore,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};

/// How often it is looked whether the node is late.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// How late a timer is on a node that is late.
const LATE: Duration = Duration::from_millis(5);
/// How long nobody has a turn then. Turns go on for at least as long before the next rest, so that those who come are kept
/// waiting for twice the time at most, however late the node is, and whatever makes it so.
const REST: Duration = Duration::from_millis(10);

/// Name of the metric that counts rests.
const RESTS: &str = "starling_rests_total";

/// Turns for those who come; who asks first goes first. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Turns(Arc<Line>);

#[derive(Debug)]
struct Line {
    turns: Semaphore,
    /// When the last rest ends.
    rested: Mutex<Instant>,
}

impl Default for Turns {
    /// As many as half of the cores: the other half is left to everything else, however many come.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self::new((cores / 2).max(1))
    }
}

impl Turns {
    /// So many are ready to run at the same time.
    fn new(turns: usize) -> Self {
        Self(Arc::new(Line { turns: Semaphore::new(turns), rested: Mutex::new(Instant::now()) }))
    }

    /// Does `work` in turns: each step that it can take without waiting is one.
    ///
    /// Not to be used within itself: who has a turn would wait for another.
    pub async fn of<F: Future>(&self, work: F) -> F::Output {
        self.of_coming(|| true, work).await
    }

    /// As [`Turns::of`], for as long as `is_coming` says so; the rest is done without.
    pub async fn of_coming<F: Future>(&self, is_coming: impl Fn() -> bool, work: F) -> F::Output {
        let mut work = pin!(work);
        while is_coming() {
            let turn = self.0.turns.acquire().await.expect("it is never closed");
            let rested = *self.0.rested.lock();
            if Instant::now() < rested {
                sleep_until(rested).await;
            }
            let step = poll_fn(|context| Poll::Ready(work.as_mut().poll(context))).await;
            drop(turn);
            if let Poll::Ready(output) = step {
                return output;
            }
            let mut has_waited = false;
            poll_fn(|_| if replace(&mut has_waited, true) { Poll::Ready(()) } else { Poll::Pending }).await;
        }
        work.await
    }

    /// Gives nobody a turn for a moment whenever the node is late, for ever.
    pub async fn rest_when_late(&self) {
        metrics::describe_counter!(
            RESTS,
            "How often those who come had no turn for 10 ms, since the node was late"
        );
        let rests = metrics::counter!(RESTS);
        let mut look = interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = look.tick().await;
            if due.elapsed() < LATE {
                continue;
            }
            *self.0.rested.lock() = Instant::now() + REST;
            rests.increment(1);
            sleep(2 * REST).await;
            look.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;
    use tokio::sync::Notify;

    use super::*;

    const TURNS: usize = 8;

    #[tokio::test]
    async fn all_get_their_turn_and_one_who_waits_keeps_nobody_out() {
        let (turns, done, slow) = (Turns::new(TURNS), AtomicUsize::new(0), Notify::new());
        let work = (0..10 * TURNS).map(|n| {
            let (done, slow) = (&done, &slow);
            turns.of(async move {
                if n < 2 * TURNS {
                    slow.notified().await;
                }
                tokio::task::yield_now().await;
                if done.fetch_add(1, Ordering::Relaxed) + 1 == 8 * TURNS {
                    slow.notify_waiters();
                }
            })
        });
        join_all(work).await;
        assert_eq!(done.into_inner(), 10 * TURNS);
        assert_eq!(turns.0.turns.available_permits(), TURNS);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_has_a_turn_while_the_node_is_late_and_all_have_one_afterwards() {
        let turns = Turns::new(1);
        let watching = tokio::spawn({
            let turns = turns.clone();
            async move { turns.rest_when_late().await }
        });
        tokio::time::sleep(LOOK_INTERVAL * 3 / 2).await;
        // The timer that is due meanwhile fires late.
        tokio::time::advance(LOOK_INTERVAL + LATE).await;
        while *turns.0.rested.lock() <= Instant::now() {
            tokio::task::yield_now().await;
        }
        let (began, rested) = (Instant::now(), *turns.0.rested.lock());
        assert!(rested <= began + REST);
        for _ in 0..3 {
            turns.of(async { assert!(Instant::now() >= rested) }).await;
        }
        // Time stands still where nobody waits, so the node is on time from now on.
        tokio::time::sleep(10 * REST).await;
        assert_eq!(*turns.0.rested.lock(), rested);
        watching.abort();
    }

    #[tokio::test]
    async fn who_has_come_needs_no_turn() {
        let (turns, steps) = (Turns::new(TURNS), AtomicUsize::new(0));
        let taken = turns.0.turns.acquire_many(u32::try_from(TURNS).unwrap() - 1).await.unwrap();
        let is_coming = || steps.load(Ordering::Relaxed) == 0;
        let work = turns.of_coming(is_coming, async {
            steps.store(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            turns.0.turns.close();
            steps.fetch_add(1, Ordering::Relaxed);
        });
        work.await;
        drop(taken);
        assert_eq!(steps.load(Ordering::Relaxed), 2);
    }
}
