//! Whole systems, end to end: real processes, real clients, and faults.
//!
//! One program for all of it, so that [`support`] can keep count of how many systems run at once. Each test that breaks
//! something has a system of its own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ack_stored;
mod api;
mod catchup;
mod clients;
mod door;
mod faults;
mod hostile;
mod limits;
mod load;
mod presence;
mod redis_cluster;
mod shutdown;
mod socketio;
mod stall;
mod standalone;
mod start;
mod storm;
mod support;
mod tokens;
