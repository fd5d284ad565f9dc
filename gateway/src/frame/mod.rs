//! WebSocket frames as bytes: what may come in, and how what goes out is spelled.
//!
//! Everything here is pure: it is given bytes and answers with bytes or a verdict. It may use `bytes` and the types of
//! `fastwebsockets`. Deliberately absent: sockets, tasks, clocks, and any knowledge of the protocols spoken in the payloads.
//!
//! - [`guard`] follows an inbound stream and refuses what `fastwebsockets` 0.10 would let through.
//! - [`assembly`] puts fragments together, bounded, and checks text while it arrives.
//! - [`close`] reads the payload of a close frame.
//! - [`encode`] writes server frames once, for any number of sockets.

pub mod assembly;
pub mod close;
pub mod encode;
mod error;
pub mod guard;
#[cfg(test)]
pub(crate) mod sample;

pub use error::FrameError;
pub use guard::{FrameGuard, FrameLimits};
