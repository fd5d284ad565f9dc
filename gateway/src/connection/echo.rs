//! What stands behind a connection in the echo programs, which the official conformance suites are run against.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use shared::domain::Disconnect;
use uuid::Uuid;

use super::{
    engineio::{Application, Message},
    socketio::{Peer, Server},
};
use crate::{
    frame::encode,
    outbox::{Class, Outbox},
    protocol::socketio::{self, Arguments},
};

/// Namespaces that the Socket.IO echo has.
const NAMESPACES: [&str; 2] = ["/", "/custom"];

/// The last bytes of an echo's connection: a close frame.
pub fn farewell(why: Disconnect) -> Bytes {
    encode::close(why.code(), why.reason())
}

/// Sends back every message of Engine.IO.
pub struct EngineIoEcho {
    outbox: Arc<Outbox>,
}

impl EngineIoEcho {
    /// Answers by this outbox.
    pub fn new(outbox: &Arc<Outbox>) -> Self {
        Self { outbox: Arc::clone(outbox) }
    }
}

#[async_trait]
impl Application for EngineIoEcho {
    async fn message(&mut self, message: Message, _is_early: bool) -> Result<(), Disconnect> {
        let frame = match message {
            Message::Text(text) => encode::text(&[b"4", &text[..]].concat()),
            Message::Binary(bytes) => encode::binary(&bytes),
        };
        self.outbox.send(frame, Class::Durable);
        Ok(())
    }

    fn is_settled(&self) -> bool {
        true
    }
}

/// Tells a client what it has shown on joining (`auth`), and sends back its messages: `message` as `message-back`,
/// `message-with-ack` as the acknowledgement.
pub struct SocketIoEcho {
    outbox: Arc<Outbox>,
}

impl SocketIoEcho {
    /// Answers by this outbox.
    pub fn new(outbox: &Arc<Outbox>) -> Self {
        Self { outbox: Arc::clone(outbox) }
    }
}

#[async_trait]
impl Server for SocketIoEcho {
    async fn connect(&mut self, namespace: &str, auth: Option<&Bytes>) -> Option<Box<dyn Peer>> {
        if !NAMESPACES.contains(&namespace) {
            self.outbox.send(socketio::connect_error(namespace, "Invalid namespace", None), Class::Durable);
            return None;
        }
        let sid = Uuid::new_v4().simple().to_string();
        self.outbox.send(socketio::connected(namespace, &sid, None), Class::Durable);
        let auth = auth.map_or(&b"{}"[..], |auth| &auth[..]);
        self.outbox.send(socketio::event(namespace, &[b"[\"auth\",", auth, b"]"], &[]), Class::Durable);
        Some(Box::new(EchoPeer { outbox: Arc::clone(&self.outbox), namespace: namespace.to_owned() }))
    }
}

struct EchoPeer {
    outbox: Arc<Outbox>,
    namespace: String,
}

#[async_trait]
impl Peer for EchoPeer {
    async fn event(
        &mut self,
        id: Option<u64>,
        name: Option<&str>,
        arguments: Arguments,
    ) -> Result<(), Disconnect> {
        if self.namespace != "/" {
            return Ok(());
        }
        let elements = arguments.elements();
        let rest: Vec<&str> = elements.iter().skip(1).map(|element| element.get()).collect();
        let (rest, attachments) = (rest.join(","), &arguments.attachments);
        match (name, id) {
            (Some("message"), _) => {
                let comma = if rest.is_empty() { "" } else { "," };
                let json = [&b"[\"message-back\""[..], comma.as_bytes(), rest.as_bytes(), b"]"];
                self.outbox.send(socketio::event("/", &json, attachments), Class::Durable);
            }
            (Some("message-with-ack"), Some(id)) => {
                let json = [&b"["[..], rest.as_bytes(), b"]"];
                self.outbox.send(socketio::ack("/", id, &json, attachments), Class::Durable);
            }
            _ => {}
        }
        Ok(())
    }
}
