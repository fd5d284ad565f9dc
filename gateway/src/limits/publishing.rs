//! The rate of publishes: an account on this node in front of the one that all nodes share.
//!
//! The shared account is charged for several at once, so that only one publish of many waits for Redis. What a subject
//! does not use of that is lost to it: one in a hundred of a burst on each node. While Redis does not answer, the account
//! of this node alone counts.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use parking_lot::Mutex;
use shared::rate::{Bucket, Rate, RateLimits, Subject, Taken};
use tokio::time::{Instant, timeout};

/// Accounts above which those that are even are forgotten.
const SUBJECTS_MAX: usize = 100_000;
/// Which part of a burst is charged to the shared account at once.
const LEASES_PER_BURST: u32 = 100;
/// Longest wait for the shared account.
const ASK_TIMEOUT: Duration = Duration::from_millis(250);
/// How long the shared account is left alone after it did not answer.
const ASK_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Account {
    bucket: Bucket,
    /// Charged to the shared account already.
    leased: u32,
}

/// Counts publishes.
pub(super) struct Publishing {
    rates: Arc<dyn RateLimits>,
    started: Instant,
    accounts: Mutex<HashMap<Subject, Account>>,
    /// Until when the shared account is not asked.
    silent_until: Mutex<Instant>,
}

impl Publishing {
    pub fn new(rates: Arc<dyn RateLimits>) -> Self {
        let started = Instant::now();
        Self { rates, started, accounts: Mutex::default(), silent_until: Mutex::new(started) }
    }

    /// Takes one; false when it is one too many.
    pub async fn take(&self, subject: Subject, rate: Rate) -> bool {
        match self.take_here(&subject, rate) {
            Here::Refused => return false,
            Here::Leased => return true,
            Here::Ask => {}
        }
        if Instant::now() < *self.silent_until.lock() {
            return true;
        }
        let want = (rate.burst() / LEASES_PER_BURST).max(1);
        match timeout(ASK_TIMEOUT, self.rates.take(&subject, rate, want)).await {
            Ok(Ok(Taken::Granted(granted))) => {
                if granted > 1 {
                    self.accounts.lock().entry(subject).or_default().leased += granted - 1;
                }
                true
            }
            Ok(Ok(Taken::Refused(_))) => false,
            Ok(Err(_)) | Err(_) => {
                *self.silent_until.lock() = Instant::now() + ASK_PAUSE;
                tracing::debug!("rates are counted on this node alone: Redis does not answer");
                true
            }
        }
    }

    fn take_here(&self, subject: &Subject, rate: Rate) -> Here {
        let now_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut accounts = self.accounts.lock();
        if accounts.len() >= SUBJECTS_MAX && !accounts.contains_key(subject) {
            accounts.retain(|_, account| !account.bucket.is_even(now_us));
            if accounts.len() >= SUBJECTS_MAX {
                // The shared accounts still count.
                accounts.clear();
            }
        }
        let account = accounts.entry(subject.clone()).or_default();
        match account.bucket.take(rate, 1, now_us) {
            Taken::Refused(_) => Here::Refused,
            Taken::Granted(_) if account.leased > 0 => {
                account.leased -= 1;
                Here::Leased
            }
            Taken::Granted(_) => Here::Ask,
        }
    }
}

enum Here {
    Refused,
    Leased,
    Ask,
}

impl fmt::Debug for Publishing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publishing").field("accounts", &self.accounts.lock().len()).finish_non_exhaustive()
    }
}
