//! The rates of standalone mode.

use std::{collections::HashMap, time::Instant};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{Bucket, Rate, RateLimits, Subject, Taken};
use crate::broker::BrokerError;

/// Accounts above which those that are even are forgotten.
const SUBJECTS_MAX: usize = 100_000;

/// Rates within one process.
#[derive(Debug)]
pub struct MemoryRateLimits {
    started: Instant,
    buckets: Mutex<HashMap<Subject, Bucket>>,
}

impl Default for MemoryRateLimits {
    fn default() -> Self {
        Self { started: Instant::now(), buckets: Mutex::default() }
    }
}

impl MemoryRateLimits {
    /// As [`RateLimits::take`], at once.
    pub fn take_now(&self, subject: &Subject, rate: Rate, want: u32) -> Taken {
        let now_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut buckets = self.buckets.lock();
        if let Some(bucket) = buckets.get_mut(subject) {
            return bucket.take(rate, want, now_us);
        }
        if buckets.len() >= SUBJECTS_MAX {
            buckets.retain(|_, bucket| !bucket.is_even(now_us));
            if buckets.len() >= SUBJECTS_MAX {
                // So many at once are no single subject's flood; forgetting them bounds the memory.
                buckets.clear();
            }
        }
        buckets.entry(subject.clone()).or_default().take(rate, want, now_us)
    }
}

#[async_trait]
impl RateLimits for MemoryRateLimits {
    async fn take(&self, subject: &Subject, rate: Rate, want: u32) -> Result<Taken, BrokerError> {
        Ok(self.take_now(subject, rate, want))
    }
}
