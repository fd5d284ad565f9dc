//! Engine.IO 4: a pure codec between its bytes and packets, for both of its transports.
//!
//! May use: `frame`, base64, serde. Deliberately absent: sockets, tasks, clocks, HTTP types, and what a message means.
//! What goes out is always encoded as WebSocket frames, so that it can be shared by all recipients; a client that still
//! polls gets the same frames rewritten as a payload ([`payload_of`]).
#![doc = ""]
#![doc = include_str!("README.md")]

mod handshake;
mod packet;
mod payload;

pub use handshake::{EngineError, Opening, Query, SID_RANDOM_CHARACTERS, Transport, sid_of, split_sid};
pub use packet::{CLOSE, Malformed, NOOP, PING, PROBE_ANSWER, Packet, packet_of_frame};
pub use payload::{SEPARATOR, packets_of, payload_of};
