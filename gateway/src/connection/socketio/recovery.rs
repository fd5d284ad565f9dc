//! Sessions that are taken up again: what is kept of each, and where a client is that comes back.
//!
//! Kept on joining and on every change of rooms, not only at the end, since an end may go unnoticed. Where a client is, its
//! last offset says: exactly for the conversation of that message, and by time for all others, from which a little more is
//! repeated rather than anything left out.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use shared::{
    broker::{Audience, Broker},
    clock,
    domain::{ConversationId, Disconnect, Message, Position, Seq, UserId},
    recovery::{Kept, Recovery},
};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::{announcement::Announcement, outbox::Outbox, protocol::socketio::Offset};

/// How long a session is kept whose node was not there to see it end.
const LIFE_CONNECTED: Duration = Duration::from_hours(24);
/// How long a session is kept after its end.
const LIFE_GONE: Duration = Duration::from_mins(2);
/// How much of what came before the last message that a client has is repeated in other conversations, in milliseconds:
/// what was repaired late may have come after it, and is found within 15 s.
const MARGIN_MS: u64 = 20_000;
/// Messages of a conversation that are looked at to find the place that belongs to a time.
pub const LOOK_BACK_MESSAGES: u32 = 100;

/// Who holds which session on this node.
#[derive(Default)]
pub struct Holders(Mutex<HashMap<String, (Uuid, Weak<Outbox>)>>);

impl Holders {
    /// A session has another holder now. Whoever had it here is cut off without a word: nobody listens there.
    pub fn taken_up(&self, secret: &str, holder: Uuid) {
        let former = {
            let mut holders = self.0.lock();
            match holders.get(secret) {
                Some((known, _)) if *known != holder => holders.remove(secret),
                _ => None,
            }
        };
        if let Some(outbox) = former.and_then(|(_, outbox)| outbox.upgrade()) {
            outbox.close(Disconnect::ConnectionClosed);
        }
    }
}

/// What keeps one client's session.
pub struct Keeper {
    recovery: Arc<dyn Recovery>,
    holders: Arc<Holders>,
    tasks: TaskTracker,
    user: UserId,
    /// The secret by which the client takes it up.
    pub secret: String,
    kept: Kept,
    is_over: bool,
}

/// A session that was found again, and where its client was last.
pub struct Found {
    /// What was kept.
    pub kept: Kept,
    /// The last message that the client has, with its conversation.
    exact: Option<(ConversationId, Seq)>,
    /// Everything that was accepted until then has reached the client.
    until: u64,
}

impl Found {
    /// Looks for a session. `None` when it cannot be taken up.
    pub async fn look(
        recovery: &dyn Recovery,
        user: &UserId,
        secret: &str,
        offset: Option<&str>,
    ) -> Option<Self> {
        let kept = recovery.find(user, secret).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "sessions cannot be read");
            None
        })?;
        // Some event of the app may have ended in a text: then all since the last change of rooms is repeated.
        let offset = offset.and_then(Offset::parse).unwrap_or(Offset { time: kept.time, message: None });
        let until = offset.time.saturating_sub(MARGIN_MS);
        Some(Self { kept, exact: offset.message, until })
    }

    /// Where the client is in a conversation, if its last message tells.
    pub fn exact(&self, conversation: &ConversationId) -> Option<Position> {
        let (id, seq) = self.exact.as_ref()?;
        (id == conversation).then(|| position(*seq))
    }

    /// Where the client is at least, as the newest messages tell, newest first. `None` when it may have missed more than
    /// these. `began` is where the conversation began for it.
    pub fn at_least(&self, newest: &[Message], began: Seq) -> Option<Position> {
        let known = newest.iter().find(|message| message.time <= self.until || message.seq <= began);
        match known {
            Some(message) => Some(position(message.seq.max(began))),
            None if (newest.len() as u64) < u64::from(LOOK_BACK_MESSAGES) => Some(position(began)),
            None => None,
        }
    }
}

fn position(seq: Seq) -> Position {
    Position { epoch: String::new(), seq }
}

impl Keeper {
    /// Takes up a session, or begins one, which is called `name` and taken up by `secret`.
    pub fn new(
        recovery: &Arc<dyn Recovery>,
        holders: &Arc<Holders>,
        tasks: &TaskTracker,
        user: UserId,
        secret: String,
        name: String,
    ) -> Self {
        let kept = Kept { holder: Uuid::new_v4(), name, time: clock::now_ms(), rooms: BTreeMap::new() };
        let (recovery, holders, tasks) = (Arc::clone(recovery), Arc::clone(holders), tasks.clone());
        Self { recovery, holders, tasks, user, secret, kept, is_over: false }
    }

    /// This connection holds the session now, and whoever had it on this node is cut off.
    pub fn hold(&self, outbox: &Arc<Outbox>) {
        self.holders.taken_up(&self.secret, self.kept.holder);
        let entry = (self.kept.holder, Arc::downgrade(outbox));
        self.holders.0.lock().insert(self.secret.clone(), entry);
    }

    /// Tells all nodes that the session is held here now. It must be kept before.
    pub async fn claim(&self, broker: &dyn Broker) {
        let claim = Announcement::TakenUp { secret: self.secret.clone(), holder: self.kept.holder };
        if let Err(error) = broker.announce(&Audience::Everyone, claim.encode()).await {
            // Whoever held it ends by itself: it does not answer pings.
            tracing::debug!(%error, "nobody was told that a session was taken up");
        }
    }

    /// What the client is in has changed.
    pub fn joined(&mut self, conversation: ConversationId, began: Seq) {
        self.kept.rooms.insert(conversation, began);
    }

    /// What the client is in has changed.
    pub fn left(&mut self, conversation: &ConversationId) -> bool {
        self.kept.rooms.remove(conversation).is_some()
    }

    /// Keeps it as it is now.
    pub async fn keep(&mut self) {
        self.kept.time = clock::now_ms();
        if let Err(error) = self.recovery.keep(&self.user, &self.secret, &self.kept, LIFE_CONNECTED).await {
            tracing::debug!(%error, "a session was not kept");
        }
    }

    /// The client has left for good.
    pub async fn forget(&mut self) {
        self.is_over = true;
        if let Err(error) = self.recovery.forget(&self.user, &self.secret).await {
            tracing::debug!(%error, "a session is kept although it is over");
        }
    }
}

impl Drop for Keeper {
    /// The connection is gone; its client may come back.
    fn drop(&mut self) {
        let holder = self.kept.holder;
        {
            let mut holders = self.holders.0.lock();
            if holders.get(&self.secret).is_some_and(|(known, _)| *known == holder) {
                holders.remove(&self.secret);
            }
        }
        if self.is_over {
            return;
        }
        let (recovery, user, secret) = (Arc::clone(&self.recovery), self.user.clone(), self.secret.clone());
        self.tasks.spawn(async move {
            // Another connection may have it by now; then it is that one's to keep.
            if let Ok(Some(kept)) = recovery.find(&user, &secret).await
                && kept.holder == holder
            {
                let _ = recovery.keep(&user, &secret, &kept, LIFE_GONE).await;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use shared::domain::{Body, MessageId, MessageKind};

    use super::*;

    fn message(seq: u64, time: u64) -> Message {
        Message {
            id: MessageId(Uuid::from_u128(seq.into())),
            conversation: ConversationId::parse("c").unwrap(),
            seq: Seq(seq),
            prev: Seq(seq - 1),
            time,
            sender: UserId::parse("a").unwrap(),
            client_id: None,
            reply_to: None,
            kind: MessageKind::TEXT,
            body: Body::from_json("1"),
        }
    }

    fn found(until: u64) -> Found {
        let kept = Kept { holder: Uuid::nil(), name: String::new(), time: 0, rooms: BTreeMap::new() };
        Found { kept, exact: None, until }
    }

    #[test]
    fn a_time_gives_a_place_that_leaves_nothing_out() {
        let newest = [message(9, 90), message(8, 80), message(7, 70)];
        let place = |until, began| found(until).at_least(&newest, Seq(began)).map(|place| place.seq.0);
        assert_eq!(place(85, 0), Some(8));
        assert_eq!(place(80, 0), Some(8));
        assert_eq!(place(200, 0), Some(9));
        assert_eq!(place(10, 8), Some(8), "it joined after that");
        assert_eq!(place(10, 3), Some(3), "there is nothing between");
        let many: Vec<_> = (0..u64::from(LOOK_BACK_MESSAGES)).map(|n| message(500 - n, 1_000)).collect();
        assert_eq!(found(10).at_least(&many, Seq(3)), None, "more may be missing");
    }
}
