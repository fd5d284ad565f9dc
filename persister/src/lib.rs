//! The persister: drains the log into the store, and tells the gateways what is stored.
//!
//! May use: the ports of `shared`. Deliberately absent: clients, members, and what a message means. The same
//! [`run`] is the whole of the `persister` binary ([`app`]) and a task inside a standalone gateway.
//!
//! The order of one batch is what makes a kill at any point harmless: read, commit rows and cursor in one
//! transaction, notify, trim. Whatever was not trimmed is read again, and the store knows what it has.

pub mod app;
mod assignment;
mod backoff;
mod batch;
pub mod config;
mod consumer;
pub mod failpoint;
pub mod metrics;

pub use backoff::Backoff;
pub use consumer::{Parts, PersisterConfig, STOP_SECONDS_MAX, run};
