//! What each protocol says and hears, as texts: one file for each. Pure.
//!
//! Deliberately absent: sockets, and anything that a load tester does not need of a protocol.

mod centrifuge;
mod phoenix;
mod socketio;
mod transport;

pub use transport::{Asked, Transport};

use serde::{Deserialize, Serialize};

use crate::tally::Note;

/// How often a client shows that it is there, where the protocol has it begin, in seconds.
pub const HEARTBEAT_SECONDS: u64 = 25;

/// A protocol that the tester speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// Centrifuge JSON over WebSocket.
    #[default]
    Centrifuge,
    /// Socket.IO 5 over WebSocket: `join_conversation`, `send_message`, `new_message`, each answered by an ack.
    Socketio,
    /// Phoenix channels, version 2, as Supabase Realtime has them: `broadcast` with `ack` and `self`. Nothing is recovered.
    Phoenix,
}

/// One thing that a server said.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard<'a> {
    /// The server waits for the next text of the greeting.
    Opened {
        /// Names the connection in the requests that go up beside it.
        session: &'a str,
    },
    /// The client is known.
    Greeted {
        /// Names the session: in the requests that go up beside it, or when it is taken up again; empty where neither can be.
        session: &'a str,
        /// The node that holds it.
        node: &'a str,
    },
    /// The client is in a room now.
    Joined {
        /// Of the request.
        id: u64,
        /// Names the stream whose offsets these are.
        epoch: &'a str,
        /// The end of the room, or where it was asked from.
        offset: u64,
        /// Whether what was missed has come, if it was asked for.
        missed: Missed,
    },
    /// A page of the history is over.
    Page {
        /// Of the request.
        id: u64,
    },
    /// Where a session stands that may be taken up again.
    Offset(&'a str),
    /// A request was done.
    Done {
        /// Of the request.
        id: u64,
    },
    /// A request was refused.
    Refused {
        /// Of the request.
        id: u64,
        /// The protocol's code, or what the server said.
        code: String,
    },
    /// A message was delivered.
    Message {
        /// The room that the server says it is of; empty where the protocol does not say.
        room: &'a str,
        /// What the message says about itself.
        note: Note,
        /// Its place in the room's order; 0 where the protocol has none.
        place: u64,
    },
    /// The server asks whether the client is there.
    Ping,
    /// The server has ended the subscription of this room.
    Unsubscribed(&'a str),
    /// Somebody came, left, types, has read: anything beside messages.
    Event,
    /// A body came otherwise than it was sent.
    Damaged,
    /// The server ends the connection, and says why by a code.
    Closed(u16),
}

/// What becomes of what a client missed in a room that it comes back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missed {
    /// It has come with the answer.
    Brought,
    /// It is too much for that; the history has it.
    Limited,
    /// The server keeps nothing.
    Gone,
}

/// Where a client was in a room that it comes back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Names the stream whose offsets these are.
    pub epoch: String,
    /// The last place that it has.
    pub offset: u64,
}

/// What a client tells beside messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// It types.
    Typing,
    /// It has read up to this place.
    Read(u64),
}

/// What a session says of itself when it begins or is taken up again.
#[derive(Debug, Clone, Copy, Default)]
pub struct Session<'a> {
    /// The user's token; empty for a server that asks for none.
    pub token: &'a str,
    /// The secret of the session to take up again, if there is one.
    pub id: &'a str,
    /// Where it stood.
    pub offset: &'a str,
}

impl Dialect {
    /// The path of the request that opens a WebSocket.
    pub fn path(self, token: &str) -> String {
        match self {
            Self::Centrifuge => "/connection/websocket".to_owned(),
            Self::Socketio => "/socket.io/?EIO=4&transport=websocket".to_owned(),
            Self::Phoenix => phoenix::path(token),
        }
    }

    /// What the client says first, if it is the one who begins.
    pub fn hello(self, token: &str) -> Option<String> {
        match self {
            Self::Centrifuge => Some(centrifuge::connect(token)),
            Self::Socketio | Self::Phoenix => None,
        }
    }

    /// Whether a connection that is open is also known, without another word.
    pub fn is_greeted_by_opening(self) -> bool {
        self == Self::Phoenix
    }

    /// What the client says once the server has begun.
    pub fn greeting(self, session: Session<'_>) -> String {
        match self {
            Self::Socketio => socketio::connect(session),
            Self::Centrifuge | Self::Phoenix => String::new(),
        }
    }

    /// Joins a room; with a place, asks for everything after it.
    pub fn join(self, id: u64, room: &str, from: Option<&Place>, token: &str) -> String {
        match self {
            Self::Centrifuge => centrifuge::subscribe(id, room, from),
            Self::Socketio => socketio::join(id, room, from),
            Self::Phoenix => phoenix::join(id, room, token),
        }
    }

    /// Asks for the messages after a place; `None` where the protocol has no such request, and HTTP has to do.
    pub fn history(self, id: u64, room: &str, from: &Place) -> Option<String> {
        (self == Self::Centrifuge).then(|| centrifuge::history(id, room, from))
    }

    /// Sends a message under a name of the client's.
    pub fn send(self, id: u64, room: &str, client_id: &str, body: &str) -> String {
        match self {
            Self::Centrifuge => centrifuge::send(id, room, client_id, body),
            Self::Socketio => socketio::send(id, room, client_id, body),
            Self::Phoenix => phoenix::send(id, room, body),
        }
    }

    /// Sends a message to a server that has nothing of Starling's own.
    pub fn send_plainly(self, id: u64, room: &str, client_id: &str, body: &str) -> String {
        match self {
            Self::Centrifuge => centrifuge::publish(id, room, body),
            Self::Socketio | Self::Phoenix => self.send(id, room, client_id, body),
        }
    }

    /// Tells something beside messages.
    pub fn signal(self, id: u64, room: &str, signal: Signal) -> String {
        match self {
            Self::Centrifuge => centrifuge::signal(id, room, signal),
            Self::Socketio => socketio::signal(room, signal),
            Self::Phoenix => phoenix::signal(id, room, signal),
        }
    }

    /// The answer to a ping.
    pub fn pong(self) -> &'static str {
        match self {
            Self::Centrifuge => "{}",
            Self::Socketio => "3",
            Self::Phoenix => "",
        }
    }

    /// What the client says every [`HEARTBEAT_SECONDS`], if the protocol has it speak and not the server.
    pub fn heartbeat(self, id: u64) -> Option<String> {
        (self == Self::Phoenix).then(|| phoenix::heartbeat(id))
    }

    /// Calls `hear` for each thing that one text of the server says.
    ///
    /// # Errors
    /// When the protocol has no such text.
    pub fn listen<'a>(self, text: &'a [u8], hear: &mut dyn FnMut(Heard<'a>)) -> Result<(), Malformed> {
        match self {
            Self::Centrifuge => centrifuge::listen(text, hear),
            Self::Socketio => socketio::listen(text, hear),
            Self::Phoenix => phoenix::listen(text, hear),
        }
    }
}

/// The server said something that the protocol does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not understood: {0}")]
pub struct Malformed(String);

impl Malformed {
    fn new(text: &[u8]) -> Self {
        Self(String::from_utf8_lossy(&text[..text.len().min(200)]).into_owned())
    }
}
