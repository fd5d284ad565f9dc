//! What the delivery line knows of a wire format: how a conversation's events become bytes for a socket.
//!
//! May use: bytes and the domain. Deliberately absent: every protocol. A protocol hands out `&'static Dialect` values,
//! and whoever delivers compares them by number, so that one encoding is shared by all members that speak the same.

use std::fmt;

use bytes::Bytes;
use shared::domain::{ConversationId, Disconnect, Event, Stored};

/// Most dialects that one process can hold; arrays indexed by [`Dialect::index`] have this length.
pub const DIALECTS_MAX: usize = 12;

/// One wire format: a protocol together with the way its bytes are framed.
pub struct Dialect {
    /// The name in logs and metrics.
    pub name: &'static str,
    /// Which one it is: unique, below [`DIALECTS_MAX`].
    pub index: usize,
    /// Encodes everything that was waiting for a conversation, in order, ready for the socket.
    ///
    /// Empty when none of the events is shown to clients; then nothing is written.
    pub batch: &'static (dyn Fn(&ConversationId, &[Event]) -> Bytes + Sync),
    /// Frames what is for one connection alone: encoded replies and pushes, separated by newlines. Empty gives empty.
    pub frame: fn(&[u8]) -> Bytes,
    /// The last bytes of a connection that the server ends; empty when there is nobody to read them.
    pub farewell: fn(Disconnect) -> Bytes,
    /// Tells a sender that its messages are stored.
    pub stored: fn(&Stored) -> Bytes,
    /// Tells a member that it is one no longer, and should come back at once to catch up. Empty where clients do not know
    /// how: their whole connection has to come back.
    pub resubscribe: fn(&ConversationId) -> Bytes,
    /// Tells a member that it is one no longer, for good.
    pub removed: &'static (dyn Fn(&ConversationId) -> Bytes + Sync),
    /// Asks the client for a sign of life; empty where the transport does.
    pub ping: fn() -> Bytes,
}

impl PartialEq for Dialect {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index
    }
}

impl Eq for Dialect {}

impl fmt::Debug for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}
