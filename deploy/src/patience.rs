//! Waiting for what comes by itself.

use std::time::Duration;

/// Longest wait for something that must happen. Far above what anything takes, also on a machine that has much else to do; only a
/// failure waits for it.
pub const PATIENCE: Duration = Duration::from_mins(3);
/// Pause between two looks at whether something has happened.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Tries until it comes out as wanted.
///
/// # Panics
/// When it has not after [`PATIENCE`].
pub async fn eventually<T>(mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let tries = async {
        loop {
            if let Some(done) = attempt().await {
                return done;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    };
    tokio::time::timeout(PATIENCE, tries).await.expect("it comes out as wanted in the end")
}
