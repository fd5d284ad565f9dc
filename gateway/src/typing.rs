//! Who types on this node: tells the others, and tells them too when somebody has vanished in the middle of a word.
//!
//! May use: domain, ephemeral. Deliberately absent: whether somebody may, which the action asks, and sessions.
//! One sweep for the whole node, never a timer for each who types. Other nodes know nothing of it: when this one dies,
//! clients drop who does not go on for [`TYPING_SECONDS_MAX`] by themselves.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use shared::domain::{ConnectionId, ConversationId, Event, Typing, UserId};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::ephemeral::Ephemeral;

/// How long somebody types who does not say so again, in seconds. Clients say it every 2 to 4 seconds.
pub const TYPING_SECONDS_MAX: u64 = 6;
/// How long the others are not told again that somebody goes on.
const TELL_AGAIN: Duration = Duration::from_secs(2);
/// How often those who have vanished are looked for.
const SWEEP: Duration = Duration::from_secs(1);
/// Most users who type at once on this node, once for each conversation; above it nobody is told of more.
const TYPISTS_MAX: usize = 100_000;

#[derive(Debug)]
struct Typist {
    /// The connection that said so last; none where it was an HTTP request.
    client: Option<ConnectionId>,
    said: Instant,
    told: Instant,
}

/// Who types on this node.
pub struct Typists {
    here: Mutex<HashMap<(ConversationId, UserId), Typist>>,
    ephemeral: Arc<Ephemeral>,
    tracker: TaskTracker,
}

impl Typists {
    /// Nobody types. Tasks that tell the others are counted by `tracker`.
    pub fn new(ephemeral: Arc<Ephemeral>, tracker: TaskTracker) -> Self {
        Self { here: Mutex::default(), ephemeral, tracker }
    }

    /// Somebody types, or goes on.
    pub async fn start(&self, conversation: &ConversationId, user: &UserId, client: Option<ConnectionId>) {
        let now = Instant::now();
        let is_news = {
            let mut here = self.here.lock();
            let is_full = here.len() >= TYPISTS_MAX;
            match here.entry((conversation.clone(), user.clone())) {
                Entry::Occupied(mut known) => {
                    let known = known.get_mut();
                    let is_news = known.told + TELL_AGAIN <= now;
                    let told = if is_news { now } else { known.told };
                    *known = Typist { client, said: now, told };
                    is_news
                }
                Entry::Vacant(_) if is_full => {
                    self.ephemeral.drop_one();
                    false
                }
                Entry::Vacant(place) => {
                    place.insert(Typist { client, said: now, told: now });
                    true
                }
            }
        };
        if is_news {
            tell(&self.ephemeral, conversation, user, true).await;
        }
    }

    /// Somebody has sent what was typed. Costs next to nothing while nobody types.
    pub async fn sent(&self, conversation: &ConversationId, user: &UserId) {
        let is_quiet = self.here.lock().is_empty();
        if !is_quiet {
            self.stop(conversation, user).await;
        }
    }

    /// Somebody has stopped.
    pub async fn stop(&self, conversation: &ConversationId, user: &UserId) {
        if self.here.lock().remove(&(conversation.clone(), user.clone())).is_some() {
            tell(&self.ephemeral, conversation, user, false).await;
        }
    }

    /// A connection has left the conversation, or ended: it does not type there any more. Does not wait for Redis.
    pub fn left(&self, conversation: &ConversationId, user: &UserId, client: ConnectionId) {
        let key = (conversation.clone(), user.clone());
        let is_last = match self.here.lock().entry(key) {
            Entry::Occupied(typist) if typist.get().client == Some(client) => {
                typist.remove();
                true
            }
            _ => false,
        };
        if is_last {
            let ephemeral = Arc::clone(&self.ephemeral);
            let (conversation, user) = (conversation.clone(), user.clone());
            self.tracker.spawn(async move { tell(&ephemeral, &conversation, &user, false).await });
        }
    }

    /// Tells of those who have vanished, for ever.
    pub async fn run(&self) {
        let mut tick = tokio::time::interval(SWEEP);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let silent = |typist: &Typist| typist.said.elapsed() >= Duration::from_secs(TYPING_SECONDS_MAX);
            let vanished: Vec<_> =
                self.here.lock().extract_if(|_, typist| silent(typist)).map(|(key, _)| key).collect();
            for (conversation, user) in vanished {
                tell(&self.ephemeral, &conversation, &user, false).await;
            }
        }
    }
}

async fn tell(ephemeral: &Ephemeral, conversation: &ConversationId, user: &UserId, typing: bool) {
    ephemeral.tell(conversation, &Event::Typing(Typing { user: user.clone(), typing })).await;
}
