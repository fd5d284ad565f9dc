//! What the persister counts.

use std::{convert::Infallible, time::Duration};

use metrics::{counter, gauge, histogram};
use shared::{clock, log::Log};

/// How often the log is asked how full it is.
const BACKLOG_INTERVAL: Duration = Duration::from_secs(3);

const ROWS: &str = "starling_persister_rows_total";
const BATCH: &str = "starling_persister_batch_seconds";
const AGE: &str = "starling_persister_age_seconds";
const LAG: &str = "starling_persister_lag_seconds";
const BACKLOG: &str = "starling_log_backlog_entries";
const OWNED: &str = "starling_persister_partitions_owned";
const DEAD_LETTERS: &str = "starling_dead_letters_total";
const COLLISIONS: &str = "starling_collisions_total";
const VOIDED: &str = "starling_voided_total";
const STORE_ERRORS: &str = "starling_persister_store_errors_total";
const LOG_ERRORS: &str = "starling_persister_log_errors_total";

/// Says what is counted, and starts what is counted at zero so that a rate can be taken of the first event.
pub fn describe() {
    metrics::describe_counter!(ROWS, "Messages that were stored");
    metrics::describe_histogram!(BATCH, "Time from a batch's read to its trim, in seconds");
    metrics::describe_histogram!(AGE, "Age of a batch's oldest entry when the batch was done, in seconds");
    metrics::describe_gauge!(LAG, "Age of the oldest entry of the whole log that is not stored, in seconds");
    metrics::describe_gauge!(BACKLOG, "Entries of the whole log that are not stored");
    metrics::describe_gauge!(OWNED, "Partitions that this persister owns");
    metrics::describe_counter!(DEAD_LETTERS, "Log entries that can never be stored and were put aside");
    metrics::describe_counter!(COLLISIONS, "Messages whose seq belonged to another; should always be 0");
    metrics::describe_counter!(VOIDED, "Places in a conversation that hold no message");
    metrics::describe_counter!(STORE_ERRORS, "Sessions with the store that ended in an error");
    metrics::describe_counter!(LOG_ERRORS, "Sessions with the log that ended in an error");
    for name in [ROWS, DEAD_LETTERS, COLLISIONS, VOIDED, STORE_ERRORS, LOG_ERRORS] {
        counter!(name).absolute(0);
    }
}

/// Keeps the gauges of the backlog up to date. Runs for ever.
pub(crate) async fn watch_backlog(log: &dyn Log) -> Infallible {
    let mut interval = tokio::time::interval(BACKLOG_INTERVAL);
    loop {
        interval.tick().await;
        // A log that does not answer leaves the gauges as they were; the consumer says what is wrong.
        if let Ok(backlogs) = log.backlog().await {
            let entries: u64 = backlogs.iter().map(|backlog| backlog.entries).sum();
            gauge!(BACKLOG).set(float(entries));
            let oldest = backlogs.iter().filter_map(|backlog| backlog.oldest_ms).min();
            gauge!(LAG).set(oldest.map_or(0.0, age_seconds));
        }
    }
}

/// A batch is done: so many new rows, in this time, with an oldest entry of this time (milliseconds since 1970).
pub(crate) fn batch(rows: u64, took: Duration, oldest_ms: Option<u64>) {
    counter!(ROWS).increment(rows);
    histogram!(BATCH).record(took);
    if let Some(oldest_ms) = oldest_ms {
        histogram!(AGE).record(age_seconds(oldest_ms));
    }
}

/// What one session owns, as its part of the gauge.
#[derive(Default)]
pub(crate) struct Owned(usize);

impl Owned {
    pub fn set(&mut self, partitions: usize) {
        let count = |partitions| float(u64::try_from(partitions).unwrap_or(u64::MAX));
        gauge!(OWNED).increment(count(partitions) - count(self.0));
        self.0 = partitions;
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.set(0);
    }
}

pub(crate) fn dead_letter() {
    counter!(DEAD_LETTERS).increment(1);
}

pub(crate) fn collision() {
    counter!(COLLISIONS).increment(1);
}

pub(crate) fn voided(places: usize) {
    counter!(VOIDED).increment(u64::try_from(places).unwrap_or(u64::MAX));
}

pub(crate) fn store_error() {
    counter!(STORE_ERRORS).increment(1);
}

pub(crate) fn log_error() {
    counter!(LOG_ERRORS).increment(1);
}

/// Redis stamped the entry by its own clock; a clock that is ahead of this one counts as no age.
fn age_seconds(since_ms: u64) -> f64 {
    Duration::from_millis(clock::now_ms().saturating_sub(since_ms)).as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and what it shows is far below 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}
