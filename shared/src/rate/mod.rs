//! The port to rates that hold for the whole cluster: how often somebody may do something, whichever node is asked.
//!
//! May use: domain; Redis in `redis.rs` alone. Deliberately absent: which rates there are, and what is answered to who is
//! over one. The rule is the generic cell rate algorithm: one number for each subject, the time until which it has used
//! up what it may. Two implementations, [`memory`] and [`redis`]; `tests/rate.rs` runs one suite against both.

pub mod memory;
pub mod redis;

use std::time::Duration;

use async_trait::async_trait;

use crate::{
    broker::BrokerError,
    domain::{ConversationId, UserId},
};

/// Highest rate, per second; intervals are whole microseconds.
pub const PER_SECOND_MAX: u32 = 100_000;

/// How often something may happen: so many a second in the long run, so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    per_second: u32,
    burst: u32,
}

impl Rate {
    /// At least 1 of each, and at most [`PER_SECOND_MAX`] a second.
    pub const fn new(per_second: u32, burst: u32) -> Self {
        let per_second = if per_second > PER_SECOND_MAX { PER_SECOND_MAX } else { per_second };
        Self {
            per_second: if per_second == 0 { 1 } else { per_second },
            burst: if burst == 0 { 1 } else { burst },
        }
    }

    /// How many may come at once.
    pub fn burst(self) -> u32 {
        self.burst
    }

    /// Microseconds after which one more may come.
    pub fn interval_us(self) -> u64 {
        u64::from(1_000_000 / self.per_second)
    }
}

/// Whose rate it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A user's, over all connections.
    User(UserId),
    /// A conversation's, over all members.
    Conversation(ConversationId),
}

/// What became of a request for some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// So many of those asked for, at least one.
    Granted(u32),
    /// None; the first one after this time.
    Refused(Duration),
}

/// One subject's account, without a clock of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bucket {
    /// When all that was taken is paid back, in microseconds of the caller's clock.
    paid_us: u64,
}

impl Bucket {
    /// Takes up to `want`.
    pub fn take(&mut self, rate: Rate, want: u32, now_us: u64) -> Taken {
        let interval = rate.interval_us();
        let paid = self.paid_us.max(now_us);
        let end = now_us + interval * u64::from(rate.burst);
        let room = end.saturating_sub(paid) / interval;
        let granted = want.min(u32::try_from(room).unwrap_or(u32::MAX));
        if granted == 0 {
            return Taken::Refused(Duration::from_micros(paid + interval - end));
        }
        self.paid_us = paid + interval * u64::from(granted);
        Taken::Granted(granted)
    }

    /// Whether all that was taken is paid back, so that the account can be forgotten.
    pub fn is_even(&self, now_us: u64) -> bool {
        self.paid_us <= now_us
    }
}

/// Rates that hold for all nodes together.
#[async_trait]
pub trait RateLimits: Send + Sync + 'static {
    /// Takes up to `want` (at least 1) from the subject's account. The same subject must always come with the same rate.
    ///
    /// # Errors
    /// When nobody can be asked; nothing was taken, as far as is known.
    async fn take(&self, subject: &Subject, rate: Rate, want: u32) -> Result<Taken, BrokerError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let rate = Rate::new(10, 5);
        let mut bucket = Bucket::default();
        assert_eq!(bucket.take(rate, 3, 1_000_000), Taken::Granted(3));
        assert_eq!(bucket.take(rate, 3, 1_000_000), Taken::Granted(2), "as many as there are");
        assert_eq!(bucket.take(rate, 1, 1_000_000), Taken::Refused(Duration::from_millis(100)));
        assert_eq!(bucket.take(rate, 1, 1_099_999), Taken::Refused(Duration::from_micros(1)));
        assert_eq!(bucket.take(rate, 9, 1_100_000), Taken::Granted(1));
        assert!(!bucket.is_even(1_599_999) && bucket.is_even(1_600_000));
        assert_eq!(bucket.take(rate, 9, 60_000_000), Taken::Granted(5), "no more than a burst is saved up");
    }

    #[test]
    fn every_rate_has_an_interval() {
        for per_second in [0, 1, 3, PER_SECOND_MAX, u32::MAX] {
            assert!(Rate::new(per_second, 0).interval_us() >= 1, "{per_second}");
        }
        assert_eq!(Rate::new(0, 0).burst(), 1);
    }
}
