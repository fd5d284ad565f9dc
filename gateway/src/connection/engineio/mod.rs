//! Engine.IO connections of this node: who is there, by polling or on a WebSocket, and from one to the other.
//!
//! A connection that polls has no task: a request that brings messages has them done by a task that ends with them, and one that
//! fetches waits at the outbox. Pings, their answers and the time to say who one is are watched by one wheel for all.

mod polling;
mod socket;
mod websocket;
mod wheel;

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use shared::domain::{Disconnect, NodeId};
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use polling::Posting;
pub use socket::Socket;

use self::wheel::Wheel;
use crate::{
    frame::{FrameLimits, encode},
    outbox::{Class, Farewell, Outbox, OutboxContext},
    protocol::engineio::{EngineError, Opening, Transport, sid_of, split_sid},
};

/// Seconds within which a change to a WebSocket must be completed.
const UPGRADE_SECONDS_MAX: u64 = 10;
/// For how long a connection that has ended is kept for the request that fetches its last words.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// One message of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Text; it is UTF-8.
    Text(Bytes),
    /// Bytes.
    Binary(Bytes),
}

/// What stands behind a connection. Dropped when it ends.
#[async_trait]
pub trait Application: Send {
    /// Does what a message asks, one after the other. One `is_early` that was sent before the client could know what became
    /// of the one before it.
    ///
    /// # Errors
    /// The reason for which the connection is to end.
    async fn message(&mut self, message: Message, is_early: bool) -> Result<(), Disconnect>;

    /// Whether the client has said who it is.
    fn is_settled(&self) -> bool;
}

/// Makes what stands behind a new connection, which is spoken to by this outbox.
pub type Make = Box<dyn FnOnce(&Arc<Outbox>) -> Box<dyn Application> + Send>;

/// How connections are kept.
#[derive(Debug, Clone, Copy)]
pub struct EngineConfig {
    /// Time between two pings.
    pub ping_interval: Duration,
    /// Time for the answer.
    pub ping_timeout: Duration,
    /// Bytes of one payload, and of one message.
    pub payload_bytes_max: usize,
    /// Time for the body of a request.
    pub body_time_max: Duration,
    /// Time to say who one is.
    pub connect_time_max: Duration,
    /// The last bytes for a client, in frames.
    pub farewell: Farewell,
}

/// The Engine.IO connections of this node.
pub struct Engine {
    config: EngineConfig,
    node: NodeId,
    outboxes: Arc<OutboxContext>,
    tracker: TaskTracker,
    sockets: Mutex<HashMap<Arc<str>, Arc<Socket>>>,
    wheel: Wheel,
}

impl Engine {
    /// Nobody is here yet. `node` is what session ids say.
    pub fn new(
        config: EngineConfig,
        node: NodeId,
        outboxes: Arc<OutboxContext>,
        tracker: TaskTracker,
    ) -> Arc<Self> {
        let wheel = Wheel::new(&config);
        Arc::new(Self { config, node, outboxes, tracker, sockets: Mutex::default(), wheel })
    }

    /// How connections are kept.
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// Counts the tasks of connections.
    pub fn tracker(&self) -> &TaskTracker {
        &self.tracker
    }

    /// The node that holds a connection; `None` when it is this one.
    ///
    /// # Errors
    /// When the id names no node.
    pub fn owner_of(&self, sid: &str) -> Result<Option<NodeId>, EngineError> {
        let owner = split_sid(sid).ok_or(EngineError::SessionUnknown)?;
        Ok((owner != self.node).then_some(owner))
    }

    /// Pings all clients and ends those that are silent, until `closing`; then ends all.
    pub async fn run(self: &Arc<Self>, closing: &CancellationToken) {
        tokio::select! {
            () = self.wheel.run(|socket| self.turn(&socket)) => {}
            () = closing.cancelled() => {}
        }
        let sockets: Vec<_> = self.sockets.lock().values().cloned().collect();
        for socket in sockets {
            socket.outbox.close(Disconnect::Shutdown);
            socket.end();
        }
    }

    /// What one WebSocket message may cost.
    pub fn frames(&self) -> FrameLimits {
        FrameLimits { message_bytes_max: self.config.payload_bytes_max, ..FrameLimits::default() }
    }

    /// Puts a new connection on the list and on the wheel; what it begins with is in its outbox.
    fn open(self: &Arc<Self>, transport: Transport, make: Make) -> Arc<Socket> {
        // From the system, as the key of a session must be.
        let sid: Arc<str> = sid_of(rand::random(), &self.node).into();
        let outbox = Outbox::fetched(&self.outboxes, self.config.farewell);
        let opening = Opening {
            sid: &sid,
            may_upgrade: transport == Transport::Polling,
            ping_interval: self.config.ping_interval,
            ping_timeout: self.config.ping_timeout,
            payload_bytes_max: self.config.payload_bytes_max,
        };
        outbox.send(encode::text(&opening.packet()), Class::Durable);
        let application = make(&outbox);
        let socket = Arc::new(Socket::new(sid, transport, outbox, application, &self.config));
        self.sockets.lock().insert(Arc::clone(&socket.sid), Arc::clone(&socket));
        self.wheel.put(&socket, socket.due(&self.config));
        socket
    }

    fn find(&self, sid: &str) -> Result<Arc<Socket>, EngineError> {
        self.sockets.lock().get(sid).cloned().ok_or(EngineError::SessionUnknown)
    }

    /// Looks after a connection whose time has come. Returns when to look again.
    fn turn(self: &Arc<Self>, socket: &Arc<Socket>) -> Option<Instant> {
        let now = Instant::now();
        if let Some(ended) = socket.ended() {
            let keep = ended + LAST_WORDS;
            if now >= keep {
                self.forget(socket);
                return None;
            }
            return Some(keep);
        }
        if socket.outbox.is_closed() {
            // The server has ended it. A request may still come for the last words.
            socket.end();
            return Some(now + LAST_WORDS);
        }
        match socket.beat(&self.config, now) {
            Ok(next) => Some(next),
            Err(reason) => {
                self.end(socket, reason);
                None
            }
        }
    }

    /// Ends a connection at once: what waits is not said any more, and a request that fetches gets a close packet.
    fn end(&self, socket: &Arc<Socket>, reason: Disconnect) {
        self.forget(socket);
        socket.hang_up(reason, self.config.farewell);
        socket.end();
    }

    fn forget(&self, socket: &Socket) {
        self.sockets.lock().remove(&socket.sid);
    }
}
