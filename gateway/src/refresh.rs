//! When this node says again what is here: all of it in each third of the time for which it is believed, a part at a time.
//!
//! Deliberately absent: what is refreshed, and how.

use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

/// How often everything is refreshed while it may live once.
const REFRESHES_PER_LIFE: u32 = 3;
/// Most of one part: while Redis enters that many, others wait.
const PART_MAX: usize = 128;

/// The rounds in which everything is refreshed. The parts of a round are spread over half of the time until the next one, so
/// that a node with many connections does not make Redis busy at once.
pub struct Refresh<K> {
    period: Duration,
    rounds: Interval,
    due: Vec<K>,
    pause: Duration,
}

impl<K> Refresh<K> {
    /// For what lives `life` without it.
    pub fn new(life: Duration) -> Self {
        let period = life / REFRESHES_PER_LIFE;
        let mut rounds = interval(period);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { period, rounds, due: Vec::new(), pause: Duration::ZERO }
    }

    /// Waits until some are to be refreshed, and returns them. `here` lists all, at the beginning of a round; by the time that
    /// they are due, some may be gone.
    pub async fn part(&mut self, here: impl Fn() -> Vec<K>) -> Vec<K> {
        if !self.due.is_empty() {
            sleep(self.pause).await;
        }
        while self.due.is_empty() {
            self.rounds.tick().await;
            self.due = here();
            let parts = self.due.len().div_ceil(PART_MAX).max(1);
            self.pause = self.period / 2 / u32::try_from(parts).unwrap_or(u32::MAX);
        }
        self.due.split_off(self.due.len().saturating_sub(PART_MAX))
    }

    /// Leaves the rest for the next round.
    pub fn give_up(&mut self) {
        self.due.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const COUNT: usize = 1_000;

    #[tokio::test]
    async fn everything_is_refreshed_again_and_again_and_never_much_at_once() {
        let life = Duration::from_millis(600);
        let mut refresh = Refresh::new(life);
        let (mut all, mut last) = (Vec::new(), None);
        while all.len() < 2 * COUNT {
            let some = refresh.part(|| (0..COUNT).collect()).await;
            assert!(some.len() <= PART_MAX);
            // Each of the eight parts is followed by its share of half the time, or by the rest of all the time.
            let now = Instant::now();
            let is_first = all.len().is_multiple_of(COUNT);
            let pause = last.replace(now).map(|last| now - last).filter(|_| !is_first);
            assert!(pause.is_none_or(|pause| pause >= life / REFRESHES_PER_LIFE / 2 / 8), "{pause:?}");
            all.extend(some);
        }
        all.sort_unstable();
        assert!(all.into_iter().eq((0..COUNT).flat_map(|n| [n, n])));
    }

    #[tokio::test]
    async fn what_is_given_up_comes_in_the_next_round() {
        let mut refresh = Refresh::new(Duration::from_millis(30));
        let first = refresh.part(|| (0..COUNT).collect()).await;
        refresh.give_up();
        assert_eq!(refresh.part(|| (0..COUNT).collect()).await, first);
    }
}
