//! Who is on this node: the clients, and the room that the members of one conversation share.
//!
//! May use: domain, auth's claims, outbox, dialect. Deliberately absent: protocols, sessions, ports, tasks, and locks beside
//! the one on what a client's token says. A room is owned by the shard of the feed that its conversation belongs to, and
//! everything here is an ordinary method call on it.

mod client;
mod held;
mod room;

pub use client::{Client, Subscription, Turn};
pub use room::{Member, Opening, Room};
