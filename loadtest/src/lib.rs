//! Drives Starling with real clients and judges what they receive.
//!
//! [`client`] speaks the Centrifuge JSON protocol over WebSocket; [`session`] goes on through failures as a good
//! application would; [`check`] judges; [`verify`] puts the three together. [`raw`] breaks the rules of WebSocket on purpose. The room knows the wire and nothing of the
//! gateway's inside, so that a mistake there cannot repeat itself here. Deliberately absent: any use of `shared`.

pub mod check;
pub mod client;
pub mod http;
pub mod raw;
pub mod session;
pub mod token;
pub mod verify;
pub mod wire;
