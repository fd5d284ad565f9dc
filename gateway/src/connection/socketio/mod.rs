//! Socket.IO on an Engine.IO connection: who is in which namespace, and what may be said there when.
//!
//! What a namespace means is a [`Server`]'s to say: the chat in production, an echo for conformance suites.

mod chat;
mod connect;
mod recovery;
mod service;

use async_trait::async_trait;
use bytes::Bytes;
use shared::domain::Disconnect;

pub use chat::ChatServer;
pub use service::{Service, SocketIoSettings};

use super::engineio::{Application, Message};
use crate::protocol::socketio::{Arguments, Decoder, Kind, Packet};

/// Namespaces that one connection may be in.
pub const NAMESPACES_MAX: usize = 16;

/// Lets clients into namespaces.
#[async_trait]
pub trait Server: Send {
    /// Lets a client into a namespace, or not, and tells it so. `auth` is the JSON object that it shows. `None` when it is
    /// not in; it may try again.
    async fn connect(&mut self, namespace: &str, auth: Option<&Bytes>) -> Option<Box<dyn Peer>>;
}

/// One client in one namespace. Dropped when it leaves.
#[async_trait]
pub trait Peer: Send {
    /// Something happened; `id` wants an acknowledgement.
    ///
    /// # Errors
    /// The reason for which the whole connection is to end.
    async fn event(
        &mut self,
        id: Option<u64>,
        name: Option<&str>,
        arguments: Arguments,
    ) -> Result<(), Disconnect>;

    /// The client leaves the namespace by itself, and not because its connection has ended.
    async fn leave(&mut self) {}
}

/// One client's Socket.IO.
pub struct SocketIo<S> {
    server: S,
    decoder: Decoder,
    /// By namespace.
    peers: Vec<(Box<str>, Box<dyn Peer>)>,
    is_settled: bool,
}

impl<S: Server> SocketIo<S> {
    /// A client that is in no namespace.
    pub fn new(server: S) -> Self {
        Self { server, decoder: Decoder::default(), peers: Vec::new(), is_settled: false }
    }

    fn place(&self, namespace: &str) -> Option<usize> {
        self.peers.iter().position(|(known, _)| **known == *namespace)
    }

    async fn packet(&mut self, packet: Packet, is_early: bool) -> Result<(), Disconnect> {
        let Packet { namespace, kind } = packet;
        if let Kind::Connect(auth) = kind {
            if self.place(&namespace).is_some() {
                // The stock client asks twice where an app calls `connect` before it is connected; one answer does.
                return if is_early { Ok(()) } else { Err(Disconnect::BadRequest) };
            }
            if self.peers.len() == NAMESPACES_MAX {
                return Err(Disconnect::BadRequest);
            }
            if let Some(peer) = self.server.connect(&namespace, auth.as_ref()).await {
                self.is_settled = true;
                self.peers.push((namespace.into(), peer));
            }
            return Ok(());
        }
        if kind == Kind::Disconnect {
            let at = self.place(&namespace).ok_or(Disconnect::BadRequest)?;
            let (_, mut peer) = self.peers.remove(at);
            peer.leave().await;
            return Ok(());
        }
        let at = self.place(&namespace).ok_or(Disconnect::BadRequest)?;
        let (_, peer) = &mut self.peers[at];
        match kind {
            Kind::Event { id, name, arguments } => peer.event(id, name.as_deref(), arguments).await,
            // Nothing that this server says asks for an answer, and one that nobody waits for is let pass.
            Kind::Ack { .. } | Kind::Connect(_) | Kind::Disconnect => Ok(()),
        }
    }
}

#[async_trait]
impl<S: Server> Application for SocketIo<S> {
    async fn message(&mut self, message: Message, is_early: bool) -> Result<(), Disconnect> {
        let packet = match message {
            Message::Text(text) => self.decoder.text(&text),
            Message::Binary(bytes) => self.decoder.binary(bytes),
        };
        match packet {
            Ok(Some(packet)) => self.packet(packet, is_early).await,
            Ok(None) => Ok(()),
            Err(violation) => {
                tracing::debug!(%violation, "a client has broken the protocol");
                Err(Disconnect::BadRequest)
            }
        }
    }

    fn is_settled(&self) -> bool {
        self.is_settled
    }
}
