//! Socket.IO 5: a pure codec between Engine.IO's messages and packets of namespaces.
//!
//! May use: the domain, `dialect`, `frame`, serde. Deliberately absent: sockets, tasks, clocks, which namespaces there are, and the order of
//! packets (that CONNECT comes first), which the connection judges. The JSON of an event is never parsed and printed again:
//! it is checked and carried as it is.
#![doc = ""]
#![doc = include_str!("README.md")]

mod binary;
mod decode;
mod encode;
mod request;
mod spelling;
mod voice;

pub use decode::{ATTACHMENTS_MAX, Arguments, Decoder, JSON_DEPTH_MAX, Kind, Packet, Violation};
pub use encode::{Head, PacketType, ack, connect_error, connected, event, packet};
pub use request::{Credentials, Offset, Request, conversation_of, read};
pub use spelling::{Spelling, SpellingError};
pub use voice::{CHAT_NAMESPACES_MAX, Voice, farewell};
