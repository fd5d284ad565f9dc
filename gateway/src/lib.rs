//! Holds the client connections of Starling. ARCHITECTURE.md lists the rooms and who may use whom.

pub mod action;
pub mod announcement;
pub mod api_key;
pub mod app;
pub mod config;
pub mod connection;
pub mod dialect;
pub mod ephemeral;
pub mod feed;
pub mod frame;
pub mod heartbeat;
pub mod http;
pub mod hub;
pub mod limits;
pub mod metrics;
pub mod online;
pub mod outbox;
pub mod peers;
pub mod pending;
pub mod protocol;
pub mod refresh;
pub mod revocation;
pub mod roster;
pub mod session;
pub mod socket;
pub mod typing;
pub mod unread;
pub mod view;

#[cfg(test)]
mod tests;
