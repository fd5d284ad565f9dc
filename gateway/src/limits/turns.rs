//! Turns for those who come, so that those who are here are served in between.
//!
//! When thousands come back at once, each of them alone is soon done, but whatever else is to be done would wait behind all of
//! them. So only a few of them are ready to run at any moment; the others stand in a line of their own. Nothing is held while
//! somebody waits for the network: a slow client keeps nobody out.

use std::{future::poll_fn, mem::replace, pin::pin, sync::Arc, task::Poll};

use tokio::sync::Semaphore;

/// Turns for those who come; who asks first goes first. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Turns(Arc<Semaphore>);

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
        Self(Arc::new(Semaphore::new(turns)))
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
            let turn = self.0.acquire().await.expect("it is never closed");
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
        assert_eq!(turns.0.available_permits(), TURNS);
    }

    #[tokio::test]
    async fn who_has_come_needs_no_turn() {
        let (turns, steps) = (Turns::new(TURNS), AtomicUsize::new(0));
        let taken = turns.0.acquire_many(u32::try_from(TURNS).unwrap() - 1).await.unwrap();
        let is_coming = || steps.load(Ordering::Relaxed) == 0;
        let work = turns.of_coming(is_coming, async {
            steps.store(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            turns.0.close();
            steps.fetch_add(1, Ordering::Relaxed);
        });
        work.await;
        drop(taken);
        assert_eq!(steps.load(Ordering::Relaxed), 2);
    }
}
