//! What every Starling process agrees on: the domain, the records kept in Redis, and the ports to Redis and Postgres.
//!
//! ARCHITECTURE.md lists the rooms and who may use whom; `tests/tidy.rs` reads that table and fails when it differs.

pub mod auth;
pub mod broker;
pub mod clock;
pub mod config;
pub mod connections;
pub mod domain;
pub mod gather;
pub mod log;
pub mod presence;
pub mod publisher;
pub mod rate;
pub mod record;
pub mod recovery;
pub mod revocations;
pub mod store;
pub mod telemetry;
