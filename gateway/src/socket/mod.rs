//! Sockets: accepting them, turning HTTP into WebSocket, reading what clients send, and passing a request on to another node.
//!
//! After the upgrade, or the head of a response that lasts, the raw TCP stream is taken out of the HTTP server and split: one
//! half is read here ([`Reader`], [`Rest`]), the [`Outbox`](crate::outbox::Outbox) has the other. May use: frame, outbox (in
//! [`echo`] alone), the clock, tokio, hyper, axum.
//! Deliberately absent: what the bytes mean, who the client is, and TLS, which ends at the load balancer.

pub mod accept;
pub mod echo;
mod forward;
mod progress;
mod reader;
mod stream;
pub mod upgrade;

pub use accept::{AcceptLimits, listen, serve};
pub use forward::{forward, is_forwarded};
pub use reader::{Incoming, LINGER_BYTES_MAX, LINGER_SECONDS_MAX, Reader};
pub use stream::{Rest, StreamHandle, detach};
pub use upgrade::{RawSocket, UpgradeHandle, UpgradeRefusal, upgrade};
