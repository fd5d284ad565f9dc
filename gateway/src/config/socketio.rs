//! The table `[socketio]` of the file, and its flags.

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::{
    connection::socketio::SocketIoSettings,
    protocol::socketio::{CHAT_NAMESPACES_MAX, Spelling},
};

/// Every setting of Socket.IO, each optional: a file and the flags both give some of them.
#[derive(clap::Args, Deserialize, Debug, Clone, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SocketIoFlags {
    /// Names of Socket.IO events, comma-separated, each `event=name`, such as `new_message=receive_message`.
    #[arg(
        long = "socketio-events",
        env = "STARLING_SOCKETIO_EVENTS",
        value_delimiter = ',',
        value_name = "NAMES"
    )]
    events: Option<Vec<String>>,
    /// Namespaces of the chat for Socket.IO clients, comma-separated, at most four [default: /].
    #[arg(
        long = "socketio-namespaces",
        env = "STARLING_SOCKETIO_NAMESPACES",
        value_delimiter = ',',
        value_name = "NAMES"
    )]
    namespaces: Option<Vec<String>>,
    /// Whether Socket.IO clients that come back get what they missed, and an argument more with every message [default:
    /// true].
    #[arg(long = "socketio-recovery", env = "STARLING_SOCKETIO_RECOVERY", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    recovery: Option<bool>,
    /// Whether Socket.IO events that are not known are relayed to the members of the conversation that they name [default:
    /// false].
    #[arg(long = "socketio-relay", env = "STARLING_SOCKETIO_RELAY", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    relay: Option<bool>,
    /// Whether Socket.IO clients may show their token in the URL, where logs have it [default: false].
    #[arg(long = "socketio-query-token", env = "STARLING_SOCKETIO_QUERY_TOKEN", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    query_token: Option<bool>,
}

impl SocketIoFlags {
    /// Takes each setting of `self` where it is given, else that of `file`.
    pub fn or(self, file: Self) -> Self {
        Self {
            events: self.events.or(file.events),
            namespaces: self.namespaces.or(file.namespaces),
            recovery: self.recovery.or(file.recovery),
            relay: self.relay.or(file.relay),
            query_token: self.query_token.or(file.query_token),
        }
    }

    /// How Socket.IO is spoken.
    pub fn check(self) -> anyhow::Result<SocketIoSettings> {
        let given = SocketIoSettings::default();
        let namespaces = self.namespaces.unwrap_or(given.namespaces);
        if namespaces.is_empty() || namespaces.len() > CHAT_NAMESPACES_MAX {
            bail!("socketio.namespaces must be 1 to {CHAT_NAMESPACES_MAX}");
        }
        let is_bad = |name: &&String| !name.starts_with('/') || name.contains([',', '"']);
        if let Some(bad) = namespaces.iter().find(is_bad) {
            bail!("`{bad}` in socketio.namespaces does not begin with a slash");
        }
        Ok(SocketIoSettings {
            namespaces,
            spelling: Spelling::new(&self.events.unwrap_or_default()).context("socketio.events")?,
            recovers: self.recovery.unwrap_or(given.recovers),
            relays: self.relay.unwrap_or(given.relays),
            query_token: self.query_token.unwrap_or(given.query_token),
        })
    }
}
