//! The numbers that a gateway tells of itself; those of limits and outboxes are with them. The doc comment of a field is its
//! help text.

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};

/// Declares the struct, registers each metric once, and gives it its doc comment as help.
macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $field:ident: $kind:ident = $name:literal,)*) => {
        /// Handles to the gateway's metrics.
        #[derive(Debug)]
        pub struct Metrics {
            $($(#[doc = $help])+ pub $field: metrics!(@type $kind),)*
        }

        impl Metrics {
            /// Registers every metric with the recorder that is installed.
            pub fn register() -> Self {
                $(metrics!(@describe $kind, $name, concat!($($help),+).trim_start());)*
                Self { $($field: metrics!(@handle $kind, $name),)* }
            }
        }
    };
    (@type counter) => { Counter };
    (@type gauge) => { Gauge };
    (@type histogram) => { Histogram };
    (@describe counter, $name:literal, $help:expr) => { describe_counter!($name, $help) };
    (@describe gauge, $name:literal, $help:expr) => { describe_gauge!($name, $help) };
    (@describe histogram, $name:literal, $help:expr) => { describe_histogram!($name, $help) };
    (@handle counter, $name:literal) => { counter!($name) };
    (@handle gauge, $name:literal) => { gauge!($name) };
    (@handle histogram, $name:literal) => { histogram!($name) };
}

metrics! {
    /// Client connections that are authenticated.
    connections: gauge = "starling_connections",
    /// Client connections that were authenticated since the start.
    connections_opened: counter = "starling_connections_opened_total",
    /// Memberships of connections in conversations.
    subscriptions: gauge = "starling_subscriptions",
    /// Conversations that this node follows.
    conversations: gauge = "starling_conversations",
    /// Messages that this node got accepted.
    publishes: counter = "starling_publishes_total",
    /// Publishes that were answered from an earlier try with the same id.
    publishes_repeated: counter = "starling_publishes_repeated_total",
    /// Publishes that were refused because the log is full.
    publishes_backlog_full: counter = "starling_publishes_backlog_full_total",
    /// Publishes whose outcome is unknown.
    publishes_unavailable: counter = "starling_publishes_unavailable_total",
    /// Events handed to sockets.
    deliveries: counter = "starling_deliveries_total",
    /// Seconds from a publish command to its acceptance by the log.
    accept_seconds: histogram = "starling_accept_seconds",
    /// Seconds from acceptance to the commit in the store, for messages that this node published.
    store_seconds: histogram = "starling_store_seconds",
    /// Seconds from acceptance by Redis' clock to the write to this node's sockets by its own clock.
    deliver_seconds: histogram = "starling_deliver_seconds",
    /// Accepted messages of this node that are not stored yet.
    pending: gauge = "starling_pending_messages",
    /// Accepted messages whose copy was let go before they were stored, because the limit in bytes was reached.
    pending_evicted: counter = "starling_pending_evicted_total",
    /// Gaps that this node set out to repair.
    repairs: counter = "starling_repairs_total",
    /// Gaps that could not be repaired; members were sent away to catch up by themselves.
    repairs_failed: counter = "starling_repairs_failed_total",
    /// Conversations in which the position check found something missing.
    positions_behind: counter = "starling_positions_behind_total",
    /// Records that arrived again and were not delivered again.
    repeats_dropped: counter = "starling_repeats_dropped_total",
    /// Records that were dropped because a shard's queue was full; the gap is repaired later.
    records_dropped: counter = "starling_records_dropped_total",
    /// Records that no known version could have written.
    records_unreadable: counter = "starling_records_unreadable_total",
    /// Resumes that got everything they had missed.
    catchups_complete: counter = "starling_catchups_complete_total",
    /// Resumes that had missed more than the limit.
    catchups_limited: counter = "starling_catchups_limited_total",
    /// Events that are kept nowhere and were told.
    events: counter = "starling_ephemeral_events_total",
    /// Events that are kept nowhere and were not told, since Redis did not answer or there were too many.
    events_dropped: counter = "starling_ephemeral_events_dropped_total",
    /// Requests that were refused.
    refusals: counter = "starling_refusals_total",
    /// Revocations of tokens that this node has read.
    revocations: counter = "starling_revocations_total",
    /// Connections that the server ended.
    disconnects: counter = "starling_disconnects_total",
}
