//! Holds the client connections of Starling.

pub mod dialect;
pub mod protocol;
