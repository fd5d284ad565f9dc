//! What all Socket.IO connections of a node share.

use std::{collections::HashMap, sync::Arc, time::Duration};

use shared::recovery::Recovery;
use uuid::Uuid;

use super::recovery::Holders;
use crate::{
    connection::{
        AUTHENTICATE_SECONDS_MAX, Lines,
        engineio::{Engine, EngineConfig},
    },
    dialect::Dialect,
    frame::FrameLimits,
    protocol::socketio::{CHAT_NAMESPACES_MAX, Spelling, Voice, farewell},
};

/// Seconds between two pings of a client.
const PING_SECONDS: u64 = 25;
/// Seconds within which a ping must be answered.
const PONG_SECONDS_MAX: u64 = 20;

/// How a deployment speaks Socket.IO.
#[derive(Debug, Clone)]
pub struct SocketIoSettings {
    /// The namespaces of the chat, at most [`CHAT_NAMESPACES_MAX`].
    pub namespaces: Vec<String>,
    /// What events are called.
    pub spelling: Spelling,
    /// Whether clients can have missed events restored.
    pub recovers: bool,
    /// Whether an event that is not known and names a conversation is relayed to its members.
    pub relays: bool,
    /// Whether a token may stand in the URL, where logs show it.
    pub query_token: bool,
}

impl Default for SocketIoSettings {
    fn default() -> Self {
        Self {
            namespaces: vec!["/".to_owned()],
            spelling: Spelling::default(),
            recovers: true,
            relays: false,
            query_token: false,
        }
    }
}

/// What all Socket.IO connections of a node share.
pub struct Service {
    /// The connections.
    pub engine: Arc<Engine>,
    /// How it speaks.
    pub settings: SocketIoSettings,
    pub(super) lines: Lines,
    pub(super) recovery: Arc<dyn Recovery>,
    pub(super) holders: Arc<Holders>,
    voices: HashMap<String, (&'static Voice, &'static Dialect)>,
}

impl Service {
    /// Nobody is here yet. To be made once for a process: what it says is kept for ever.
    pub fn new(
        lines: &Lines,
        recovery: Arc<dyn Recovery>,
        frames: FrameLimits,
        settings: SocketIoSettings,
    ) -> Arc<Self> {
        let config = EngineConfig {
            ping_interval: Duration::from_secs(PING_SECONDS),
            ping_timeout: Duration::from_secs(PONG_SECONDS_MAX),
            payload_bytes_max: frames.message_bytes_max,
            body_time_max: lines.node.limiter.body_time_max(),
            connect_time_max: Duration::from_secs(AUTHENTICATE_SECONDS_MAX),
            farewell,
        };
        let (node, outboxes) = (lines.node.id.clone(), Arc::clone(&lines.outboxes));
        let engine = Engine::new(config, node, outboxes, lines.tracker.clone());
        let namespaces = settings.namespaces.iter().take(CHAT_NAMESPACES_MAX).enumerate();
        let voices = namespaces.map(|(at, namespace)| {
            let (namespace, spelling) = (namespace.clone(), settings.spelling.clone());
            let name = namespace.clone();
            (name, Voice { namespace, spelling, recovers: settings.recovers }.lasting(at))
        });
        let voices = voices.collect();
        Arc::new(Self { engine, lines: lines.clone(), recovery, holders: Arc::default(), voices, settings })
    }

    /// Runs what watches over connections, until the node takes no more.
    pub async fn run(&self) {
        self.engine.run(&self.lines.closing).await;
    }

    /// Another connection has taken a session up.
    pub fn taken_up(&self, secret: &str, holder: Uuid) {
        self.holders.taken_up(secret, holder);
    }

    pub(super) fn voice(&self, namespace: &str) -> Option<(&'static Voice, &'static Dialect)> {
        self.voices.get(namespace).copied()
    }
}
