//! Drives Starling with real clients and judges what they receive.
//!
//! Two tools in one. `verify` asks whether anything is lost; the load scenarios ask how much and how fast.
//!
//! [`client`] speaks the Centrifuge JSON protocol over WebSocket; [`session`] goes on through failures as a good
//! application would; [`check`] judges; [`verify`] puts the three together. [`load`] drives many
//! light clients, each of which notes what it is given ([`tally`]), in any [`dialect`]; a [`scenario`] says what they do, and
//! [`report`] shows it. [`raw`] breaks the rules of WebSocket on purpose. The crate knows the wire and nothing of the
//! gateway's inside, so that a mistake there cannot repeat itself here. Deliberately absent: any use of `shared`.

pub mod check;
pub mod client;
pub mod clock;
pub mod dialect;
pub mod http;
pub mod load;
pub mod raw;
pub mod report;
pub mod scenario;
pub mod session;
pub mod tally;
pub mod token;
pub mod usage;
pub mod verify;
pub mod wire;
