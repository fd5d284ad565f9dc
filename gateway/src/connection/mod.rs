//! Carries frames between a client's wire and its session, in the client's protocol.
//!
//! May use: protocol, session, outbox, socket; the port recovery and the broker's announcements for Socket.IO sessions that are
//! taken up again. Deliberately absent: what a command does, and HTTP routes.

pub mod echo;
mod emulation;
pub mod engineio;
mod link;
pub mod socketio;
mod websocket;

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use emulation::{Emulations, Wire, converse_by_stream};
pub use websocket::converse;

pub use crate::session::Source;

use crate::{action::Node, heartbeat::Heartbeat, outbox::OutboxContext};

/// Seconds within which a client must have said who it is.
pub const AUTHENTICATE_SECONDS_MAX: u64 = 15;
/// Acknowledgements that one connection may be waiting for; above it the next command waits too.
pub const ACKNOWLEDGEMENTS_MAX: usize = 256;

/// What every connection of the process needs.
#[derive(Clone)]
pub struct Lines {
    /// The actions' handles.
    pub node: Arc<Node>,
    /// Watches over clients.
    pub heartbeat: Arc<Heartbeat>,
    /// Limits and metrics of outboxes.
    pub outboxes: Arc<OutboxContext>,
    /// Counts the tasks of connections.
    pub tracker: TaskTracker,
    /// Whoever has not said who it is by then never will.
    pub closing: CancellationToken,
}

/// Places for what is acknowledged later. Nothing until the first is needed: most connections need none.
#[derive(Default)]
struct Acknowledgements(Option<Arc<Semaphore>>);

impl Acknowledgements {
    /// Waits for a place.
    async fn place(&mut self) -> OwnedSemaphorePermit {
        let places = self.0.get_or_insert_with(|| Arc::new(Semaphore::new(ACKNOWLEDGEMENTS_MAX)));
        Arc::clone(places).acquire_owned().await.expect("it is never closed")
    }
}
