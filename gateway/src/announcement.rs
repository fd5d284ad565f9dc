//! What nodes tell each other: at most once, so nothing here may be relied on to arrive.
//!
//! May use: domain, the changes that actions announce. Deliberately absent: sending, and what is done about it.

use std::net::SocketAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shared::domain::NodeId;
use uuid::Uuid;

use crate::action::{MembersChanged, SendAway};

/// One announcement from a node to another or to all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Announcement {
    /// Older answers about a conversation's members are wrong.
    MembersChanged(MembersChanged),
    /// A user's connections are to end.
    SendAway(SendAway),
    /// A session is taken up by another connection: whoever had it before is gone and does not know it yet.
    TakenUp {
        /// The session's secret.
        secret: String,
        /// Whose it is now.
        holder: Uuid,
    },
    /// Asks the addressed node where it is reached.
    WhereAreYou {
        /// Who wants to know.
        asked_by: NodeId,
    },
    /// Answers that.
    Here {
        /// Who answers.
        node: NodeId,
        /// Where other nodes reach it.
        address: SocketAddr,
    },
    /// Commands for an HTTP session that the addressed node holds.
    Emulation {
        /// The session's secret.
        session: String,
        /// Newline-separated commands.
        data: String,
    },
}

impl Announcement {
    /// As it travels.
    pub fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("an announcement is plain data").into()
    }

    /// Reads [`Announcement::encode`] back; `None` for one that this version does not know.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}
