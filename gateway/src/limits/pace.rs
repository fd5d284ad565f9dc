//! Rates that one node counts by itself: of what is told and forgotten, which is not worth a question to Redis.

use std::collections::HashMap;

use parking_lot::Mutex;
use shared::{
    domain::UserId,
    rate::{Bucket, Rate, Taken},
};
use tokio::time::Instant;

/// Users above which those who are even are forgotten.
const USERS_MAX: usize = 100_000;

/// How often each user does something on this node.
#[derive(Debug)]
pub(super) struct Pace {
    rate: Rate,
    started: Instant,
    users: Mutex<HashMap<UserId, Bucket>>,
}

impl Pace {
    pub fn new(rate: Rate) -> Self {
        Self { rate, started: Instant::now(), users: Mutex::default() }
    }

    /// Takes one; false when it is one too many.
    pub fn take(&self, user: &UserId) -> bool {
        let now_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut users = self.users.lock();
        if users.len() >= USERS_MAX && !users.contains_key(user) {
            users.retain(|_, bucket| !bucket.is_even(now_us));
            if users.len() >= USERS_MAX {
                users.clear();
            }
        }
        matches!(users.entry(user.clone()).or_default().take(self.rate, 1, now_us), Taken::Granted(_))
    }
}
