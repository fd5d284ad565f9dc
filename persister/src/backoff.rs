//! How long to wait before the next try.

use std::time::Duration;

/// Wait after the first failure.
const WAIT_MIN: Duration = Duration::from_millis(100);
/// Longest wait, however many failures there were.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Doubles the wait from failure to failure, and spreads it so that many processes do not come back in step.
#[derive(Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Counts a failure; returns how long to wait now: between half and the whole of the present step.
    pub fn pause(&mut self) -> Duration {
        let step = WAIT_MIN.saturating_mul(2_u32.saturating_pow(self.failures)).min(WAIT_MAX);
        self.failures = self.failures.saturating_add(1);
        step.mul_f64(rand::random_range(0.5..=1.0)).max(WAIT_MIN)
    }

    /// Something has worked: the next failure is a first one.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_start_over() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.pause(), WAIT_MIN);
        let waits: Vec<Duration> = (0..100).map(|_| backoff.pause()).collect();
        assert!(waits.iter().all(|wait| (WAIT_MIN..=WAIT_MAX).contains(wait)), "{waits:?}");
        assert!(waits[50] >= WAIT_MAX / 2);
        backoff.reset();
        assert_eq!(backoff.pause(), WAIT_MIN);
    }
}
