//! The HTTP API, and what it does to clients: whole nodes in this process, spoken to over their ports.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod alike;
mod chat;
mod conversations;
mod headers;
mod live;
mod node;
mod removal;
mod revocations;
mod server;
mod tokens;
