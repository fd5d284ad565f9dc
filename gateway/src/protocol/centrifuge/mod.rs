//! The Centrifuge JSON protocol, version 2: a pure codec between its bytes and Starling's vocabulary.
//!
//! May use: the domain, `dialect`, serde. Deliberately absent: sockets, tasks, clocks, and the order of commands
//! (that `connect` comes first, that a pong was asked for), which is the session's to judge.
#![doc = ""]
#![doc = include_str!("README.md")]

mod chat;
mod decode;
mod dialects;
mod encode;
mod handshake;
mod packet;
#[cfg(test)]
mod tests;

pub use decode::{COMMANDS_PER_FRAME_MAX, HISTORY_MESSAGES_MAX, RESUME_MAX, TOKEN_BYTES_MAX, decode};
pub use dialects::{FRAME_BYTES_MAX, HTTP_STREAM, SSE, SSE_OPENING, WEBSOCKET};
pub use encode::{
    PING_SECONDS, StreamSession, Unsubscribe, disconnect_push, error_code, push, reply, stored_push,
    unsubscribe_push,
};
pub use handshake::{Emulation, check_query, choose_subprotocol};
pub use packet::Tag;
