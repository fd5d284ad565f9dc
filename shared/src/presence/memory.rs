//! The presence of standalone mode.

use std::collections::HashMap;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{PRESENCE_TTL_SECONDS, Presence, PresenceEntry, PresenceStats};
use crate::{
    broker::BrokerError,
    clock::now_ms,
    domain::{ClientInfo, ConnectionId, ConversationId},
};

/// The connections of one conversation, each with the time at which it expires, in milliseconds since 1970.
type Room = HashMap<ConnectionId, (u64, ClientInfo)>;

/// Who is where in one process.
pub struct MemoryPresence {
    rooms: Mutex<HashMap<ConversationId, Room>>,
    ttl_ms: u64,
}

impl Default for MemoryPresence {
    fn default() -> Self {
        Self::with_ttl_ms(PRESENCE_TTL_SECONDS * 1000)
    }
}

impl MemoryPresence {
    /// One whose entries live this long, in milliseconds.
    pub fn with_ttl_ms(ttl_ms: u64) -> Self {
        Self { rooms: Mutex::default(), ttl_ms }
    }

    /// Looks at a conversation after what has expired there is gone. The cost is the number of its connections.
    fn with_room<T>(&self, conversation: &ConversationId, look: impl FnOnce(&mut Room) -> T) -> T {
        let mut rooms = self.rooms.lock();
        let room = rooms.entry(conversation.clone()).or_default();
        let now = now_ms();
        room.retain(|_, (expiry, _)| *expiry > now);
        let seen = look(room);
        if room.is_empty() {
            rooms.remove(conversation);
        }
        seen
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[async_trait]
impl Presence for MemoryPresence {
    async fn enter(&self, entries: &[PresenceEntry]) -> Result<Vec<u32>, BrokerError> {
        let expiry = now_ms() + self.ttl_ms;
        {
            let mut rooms = self.rooms.lock();
            for (conversation, who) in entries {
                let room = rooms.entry(conversation.clone()).or_default();
                room.insert(who.client, (expiry, who.clone()));
            }
        }
        let mut counts: HashMap<&ConversationId, u32> = HashMap::new();
        let mut counted = |conversation| {
            *counts
                .entry(conversation)
                .or_insert_with(|| self.with_room(conversation, |room| count(room.len())))
        };
        Ok(entries.iter().map(|(conversation, _)| counted(conversation)).collect())
    }

    async fn leave(&self, conversation: &ConversationId, client: ConnectionId) -> Result<u32, BrokerError> {
        Ok(self.with_room(conversation, |room| {
            room.remove(&client);
            count(room.len())
        }))
    }

    async fn list(
        &self,
        conversation: &ConversationId,
        limit: usize,
    ) -> Result<Vec<ClientInfo>, BrokerError> {
        let who = |room: &mut Room| room.values().take(limit).map(|(_, who)| who.clone()).collect();
        Ok(self.with_room(conversation, who))
    }

    async fn stats(&self, conversation: &ConversationId) -> Result<PresenceStats, BrokerError> {
        Ok(self.with_room(conversation, |room| {
            let users: std::collections::HashSet<_> = room.values().map(|(_, who)| &who.user).collect();
            PresenceStats { clients: count(room.len()), users: count(users.len()) }
        }))
    }
}
