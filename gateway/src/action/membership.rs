//! Membership as the store said it a short while ago.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use shared::{
    domain::{ConversationId, UserId},
    store::{Role, Store, StoreError},
};
use tokio::time::Instant;

/// How long an answer of the store is believed, when no announcement comes before.
const BELIEF: Duration = Duration::from_secs(5);
/// Most answers that are kept.
const ANSWERS_MAX: usize = 100_000;

/// Tells every node that a conversation's members have changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersChanged {
    /// The conversation.
    pub conversation: ConversationId,
    /// What its membership has become; older answers are wrong.
    pub version: u64,
}

#[derive(Default)]
struct Cache {
    roles: HashMap<(ConversationId, UserId), (Option<Role>, Instant)>,
    /// Versions below which an answer that is still on its way must not be kept.
    floors: HashMap<ConversationId, (u64, Instant)>,
}

/// Who may be where, for a while.
#[derive(Default)]
pub struct MembershipCache {
    cache: Mutex<Cache>,
}

impl MembershipCache {
    /// The role of `user` in a conversation that has a row.
    ///
    /// # Errors
    /// When the store has to be asked and does not answer.
    pub async fn role(
        &self,
        store: &dyn Store,
        conversation: &ConversationId,
        user: &UserId,
    ) -> Result<Option<Role>, StoreError> {
        let key = (conversation.clone(), user.clone());
        if let Some((role, since)) = self.cache.lock().roles.get(&key)
            && since.elapsed() < BELIEF
        {
            return Ok(*role);
        }
        let asked = Instant::now();
        let membership = store.membership(conversation, user).await?;
        let mut cache = self.cache.lock();
        if cache.floors.get(conversation).is_none_or(|(floor, _)| membership.version >= *floor) {
            cache.make_room();
            cache.roles.insert(key, (membership.role, asked));
        }
        Ok(membership.role)
    }

    /// Forgets what was believed before a change.
    pub fn changed(&self, change: &MembersChanged) {
        let mut cache = self.cache.lock();
        cache.roles.retain(|(conversation, _), _| *conversation != change.conversation);
        cache.make_room();
        cache.floors.insert(change.conversation.clone(), (change.version, Instant::now()));
    }

    /// Forgets everything: announcements may have been missed.
    pub fn clear(&self) {
        *self.cache.lock() = Cache::default();
    }
}

impl Cache {
    fn make_room(&mut self) {
        if self.roles.len() + self.floors.len() < ANSWERS_MAX {
            return;
        }
        self.roles.retain(|_, (_, since)| since.elapsed() < BELIEF);
        self.floors.retain(|_, (_, since)| since.elapsed() < BELIEF);
        if self.roles.len() >= ANSWERS_MAX / 2 {
            self.roles.clear();
        }
    }
}
