//! Membership as the store said it a short while ago.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use shared::{
    domain::{ConversationId, UserId},
    store::{Membership, Standing, Store, StoreError},
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
    /// Who was a member and is none any more.
    #[serde(default)]
    pub gone: Vec<UserId>,
}

impl MembersChanged {
    /// A change by which nobody goes.
    pub fn new(conversation: ConversationId, version: u64) -> Self {
        Self { conversation, version, gone: Vec::new() }
    }
}

#[derive(Default)]
struct Cache {
    standings: HashMap<ConversationId, HashMap<UserId, (Option<Standing>, Instant)>>,
    /// How many of them there are.
    count: usize,
    /// Versions below which an answer that is still on its way must not be kept.
    floors: HashMap<ConversationId, (u64, Instant)>,
}

/// Who may be where, for a while.
#[derive(Default)]
pub struct MembershipCache {
    cache: Mutex<Cache>,
}

impl MembershipCache {
    /// What `user` is in a conversation that has a row; `None` for a stranger.
    ///
    /// # Errors
    /// When the store has to be asked and does not answer.
    pub async fn standing(
        &self,
        store: &dyn Store,
        conversation: &ConversationId,
        user: &UserId,
    ) -> Result<Option<Standing>, StoreError> {
        if let Some((standing, since)) = self.cache.lock().get(conversation, user)
            && since.elapsed() < BELIEF
        {
            return Ok(standing.clone());
        }
        let asked = Instant::now();
        let membership = store.membership(conversation, user).await?;
        self.believe((conversation.clone(), user.clone()), &membership, asked);
        Ok(membership.standing)
    }

    /// Keeps an answer, unless a change was announced since that it does not know of.
    fn believe(&self, (conversation, user): (ConversationId, UserId), answer: &Membership, asked: Instant) {
        let mut cache = self.cache.lock();
        if cache.floors.get(&conversation).is_none_or(|(floor, _)| answer.version >= *floor) {
            cache.make_room();
            let standing = (answer.standing.clone(), asked);
            let is_new = cache.standings.entry(conversation).or_default().insert(user, standing).is_none();
            cache.count += usize::from(is_new);
        }
    }

    /// Forgets what was believed before a change.
    pub fn changed(&self, change: &MembersChanged) {
        let mut cache = self.cache.lock();
        let forgotten = cache.standings.remove(&change.conversation).map_or(0, |users| users.len());
        cache.count -= forgotten;
        cache.make_room();
        // Announcements may overtake each other.
        let (floor, since) = cache.floors.entry(change.conversation.clone()).or_insert((0, Instant::now()));
        (*floor, *since) = (change.version.max(*floor), Instant::now());
    }

    /// Forgets everything: announcements may have been missed.
    pub fn clear(&self) {
        *self.cache.lock() = Cache::default();
    }
}

impl Cache {
    fn get(&self, conversation: &ConversationId, user: &UserId) -> Option<&(Option<Standing>, Instant)> {
        self.standings.get(conversation)?.get(user)
    }

    fn make_room(&mut self) {
        if self.count + self.floors.len() < ANSWERS_MAX {
            return;
        }
        self.standings.retain(|_, users| {
            users.retain(|_, (_, since)| since.elapsed() < BELIEF);
            !users.is_empty()
        });
        self.count = self.standings.values().map(HashMap::len).sum();
        self.floors.retain(|_, (_, since)| since.elapsed() < BELIEF);
        if self.count >= ANSWERS_MAX / 2 {
            self.standings.clear();
            self.count = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::{
        domain::Role,
        store::{Conversation, Conversations, sqlite::SqliteStore},
    };

    use super::*;
    use crate::tests::{conversation, who};

    struct Rig {
        cache: MembershipCache,
        store: SqliteStore,
        owner: UserId,
        id: ConversationId,
        _directory: tempfile::TempDir,
    }

    impl Rig {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let store = SqliteStore::open(&directory.path().join("starling.db")).unwrap();
            let (owner, id) = (who(1).user, conversation("team"));
            Self { cache: MembershipCache::default(), store, owner, id, _directory: directory }
        }

        async fn role(&self) -> Option<Role> {
            let standing = self.cache.standing(&self.store, &self.id, &self.owner).await.unwrap();
            standing.map(|standing| standing.role)
        }

        async fn create(&self) {
            let conversation = Conversation {
                id: self.id.clone(),
                kind: "group".to_owned(),
                name: None,
                members: vec![(self.owner.clone(), Role::OWNER)],
                created_ms: 1,
            };
            assert!(self.store.create_conversation(&conversation).await.unwrap());
        }

        fn change(&self, version: u64) {
            self.cache.changed(&MembersChanged::new(self.id.clone(), version));
        }
    }

    #[tokio::test]
    async fn an_answer_is_believed_until_a_change_is_announced() {
        let rig = Rig::new();
        assert_eq!(rig.role().await, None);
        rig.create().await;
        assert_eq!(rig.role().await, None, "it was asked a moment ago");
        rig.change(1);
        assert_eq!(rig.role().await, Some(Role::OWNER));
    }

    #[tokio::test]
    async fn everything_can_be_forgotten() {
        let rig = Rig::new();
        assert_eq!(rig.role().await, None);
        rig.create().await;
        rig.cache.clear();
        assert_eq!(rig.role().await, Some(Role::OWNER));
    }

    #[tokio::test]
    async fn an_answer_from_before_a_change_is_not_believed() {
        let rig = Rig::new();
        let asked = Instant::now();
        let answer = rig.store.membership(&rig.id, &rig.owner).await.unwrap();
        rig.change(1);
        // An older announcement that comes late does not undo the newer one.
        rig.change(0);
        rig.cache.believe((rig.id.clone(), rig.owner.clone()), &answer, asked);
        rig.create().await;
        assert_eq!(rig.role().await, Some(Role::OWNER));
    }
}
