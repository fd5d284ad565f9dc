//! Tells members, in their personal rooms, how much of a conversation they have not read: in every device, whether it
//! follows the conversation or not.
//!
//! May use: domain, the port store, ephemeral. Deliberately absent: who may read, and counting, which the store does.
//! One task for the whole node. What is said in a conversation within a second is told once, after the store has it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use shared::{
    domain::{ConversationId, Event, Seq, Unread},
    store::{Store, StoreError},
};
use tokio::time::Instant;

use crate::ephemeral::Ephemeral;

/// How often a conversation's members are told at most.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often it is looked what is due.
const TICK: Duration = Duration::from_millis(250);
/// How often it is looked whether the store has a message by now, before the counts are told as they are.
const TRIES_MAX: u32 = 30;
/// Most conversations that wait; the members of more are not told.
const CONVERSATIONS_MAX: usize = 100_000;
/// How many conversations are counted, and how many members of one are told, at once.
const AT_ONCE: usize = 16;

/// What is not told yet of a conversation.
struct Waiting {
    /// What the store must have before it is counted.
    seq: Seq,
    due: Instant,
    tries: u32,
}

/// Conversations whose members are to be told.
pub struct UnreadCounts {
    waiting: Mutex<HashMap<ConversationId, Waiting>>,
    store: Arc<dyn Store>,
    ephemeral: Arc<Ephemeral>,
}

impl UnreadCounts {
    /// Nobody is to be told.
    pub fn new(store: Arc<dyn Store>, ephemeral: Arc<Ephemeral>) -> Self {
        Self { waiting: Mutex::default(), store, ephemeral }
    }

    /// Something was said at `seq`, or read, which counts from 0 on.
    pub fn changed(&self, conversation: &ConversationId, seq: Seq) {
        let mut waiting = self.waiting.lock();
        if let Some(known) = waiting.get_mut(conversation) {
            (known.seq, known.tries) = (known.seq.max(seq), 0);
        } else if waiting.len() < CONVERSATIONS_MAX {
            let due = Instant::now() + INTERVAL;
            waiting.insert(conversation.clone(), Waiting { seq, due, tries: 0 });
        } else {
            self.ephemeral.drop_one();
        }
    }

    /// Tells, for ever.
    pub async fn run(&self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let now = Instant::now();
            let due: Vec<(ConversationId, Waiting)> =
                self.waiting.lock().extract_if(|_, waiting| waiting.due <= now).collect();
            let tell = async |(conversation, waiting): (ConversationId, Waiting)| {
                if let Err(error) = self.tell(&conversation, waiting).await {
                    tracing::debug!(%error, "unread messages cannot be counted now");
                    self.ephemeral.drop_one();
                }
            };
            stream::iter(due).for_each_concurrent(AT_ONCE, tell).await;
        }
    }

    async fn tell(&self, conversation: &ConversationId, waiting: Waiting) -> Result<(), StoreError> {
        let seq = self.store.last_seq(conversation).await?;
        if seq < waiting.seq && waiting.tries < TRIES_MAX {
            let (due, tries) = (Instant::now() + TICK, waiting.tries + 1);
            let mut all = self.waiting.lock();
            let known = all.entry(conversation.clone()).or_insert(Waiting { seq: waiting.seq, due, tries });
            known.seq = known.seq.max(waiting.seq);
            return Ok(());
        }
        let counts = self.store.unread_of(conversation).await?;
        let tell = async |(user, unread)| {
            let event = Event::Unread(Unread { conversation: conversation.clone(), unread, seq });
            self.ephemeral.tell(&ConversationId::personal(&user), &event).await;
        };
        stream::iter(counts).for_each_concurrent(AT_ONCE, tell).await;
        Ok(())
    }
}
