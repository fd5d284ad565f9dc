//! What all outboxes of a process share.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

/// Bytes that may wait for one client, each chunk counted with what it costs to keep.
pub const OUTBOX_BYTES_MAX: usize = 1024 * 1024;
/// Seconds that a blocked socket gets for what waits and the farewell once the outbox is closed.
pub const FAREWELL_SECONDS_MAX: u64 = 5;
/// Seconds that a blocked socket may take no byte before the connection ends.
pub const WRITE_SECONDS_MAX: u64 = 10;

/// How far a client may fall behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxLimits {
    /// Bytes that may wait for one client.
    pub bytes_max: usize,
    /// Time that a blocked socket gets once the outbox is closed.
    pub farewell_time_max: Duration,
    /// Time that a blocked socket may take no byte.
    pub write_time_max: Duration,
}

impl Default for OutboxLimits {
    fn default() -> Self {
        Self {
            bytes_max: OUTBOX_BYTES_MAX,
            farewell_time_max: Duration::from_secs(FAREWELL_SECONDS_MAX),
            write_time_max: Duration::from_secs(WRITE_SECONDS_MAX),
        }
    }
}

/// The handles of the outboxes' metrics, over all clients of the process.
#[derive(Debug, Clone)]
pub struct OutboxMetrics {
    /// `starling_outbox_bytes`: bytes that wait in queues.
    pub bytes: Gauge,
    /// `starling_outbox_ephemeral_dropped_total`: ephemeral chunks dropped for want of room.
    pub ephemeral_dropped: Counter,
    /// `starling_outbox_closed_slow_total`: clients disconnected because they did not keep up.
    pub closed_slow: Counter,
}

impl OutboxMetrics {
    /// Registers the metrics with the recorder in place; call it after the recorder is installed.
    pub fn register() -> Self {
        metrics::describe_gauge!(
            "starling_outbox_bytes",
            metrics::Unit::Bytes,
            "Bytes that wait for blocked clients"
        );
        metrics::describe_counter!(
            "starling_outbox_ephemeral_dropped_total",
            "Ephemeral chunks dropped because a client did not keep up"
        );
        metrics::describe_counter!(
            "starling_outbox_closed_slow_total",
            "Clients disconnected because they did not keep up"
        );
        Self {
            bytes: metrics::gauge!("starling_outbox_bytes"),
            ephemeral_dropped: metrics::counter!("starling_outbox_ephemeral_dropped_total"),
            closed_slow: metrics::counter!("starling_outbox_closed_slow_total"),
        }
    }
}

/// What all outboxes of a process share: limits, metrics, and where their writer tasks run.
#[derive(Debug)]
pub struct OutboxContext {
    pub(super) limits: OutboxLimits,
    pub(super) metrics: OutboxMetrics,
    pub(super) tracker: TaskTracker,
    pub(super) runtime: Handle,
}

impl OutboxContext {
    /// Writer tasks will run on the current runtime and be counted by `tracker`.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(limits: OutboxLimits, metrics: OutboxMetrics, tracker: TaskTracker) -> Arc<Self> {
        Arc::new(Self { limits, metrics, tracker, runtime: Handle::current() })
    }
}
