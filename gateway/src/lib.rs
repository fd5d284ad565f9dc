//! Holds the client connections of Starling. ARCHITECTURE.md lists the rooms and who may use whom.

pub mod frame;
pub mod outbox;
pub mod socket;
