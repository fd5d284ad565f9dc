//! Who is on this node: the clients, and the room that the members of one conversation share.
//!
//! May use: domain, outbox, dialect. Deliberately absent: protocols, sessions, ports, tasks and locks. A room is owned by
//! the shard of the feed that its conversation belongs to, and everything here is an ordinary method call on it.

mod client;
mod held;
mod room;

pub use client::{Client, Subscription, Turn};
pub use room::{Member, Opening, Room};
