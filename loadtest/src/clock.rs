//! The wall clock, by which workers in several processes measure the same delay.

use std::time::{Duration, SystemTime};

/// Microseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the one place of this crate that reads the clock")]
pub fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
