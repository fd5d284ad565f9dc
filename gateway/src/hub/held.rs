//! What arrives for a conversation while some member is still reading what it missed.

use std::sync::Arc;

use shared::domain::{Message, Seq};

/// Most bytes of bodies that one conversation holds for members that are catching up.
pub const HELD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The messages that arrived since the first of the members now catching up has joined.
#[derive(Debug, Default)]
pub struct Held {
    messages: Vec<Arc<Message>>,
    bytes: usize,
    /// Everything up to here had to be let go; who has read less far must read again.
    dropped_to: Seq,
}

impl Held {
    /// Keeps a message, or lets all of them go when they are too many. One that is here already is not kept twice.
    pub fn push(&mut self, message: &Arc<Message>) {
        if self.messages.last().is_some_and(|last| message.seq <= last.seq) {
            return;
        }
        self.bytes += message.body.as_bytes().len() + size_of::<Message>();
        self.messages.push(Arc::clone(message));
        if self.bytes > HELD_BYTES_MAX {
            self.dropped_to = message.seq;
            self.messages.clear();
            self.bytes = 0;
        }
    }

    /// What came after `seq`; `None` when not all of it was kept, or something is missing in it.
    pub fn after(&self, seq: Seq) -> Option<Vec<Arc<Message>>> {
        let after: Vec<_> = self.messages.iter().filter(|message| message.seq > seq).cloned().collect();
        let follows = after.first().is_none_or(|first| first.prev <= seq);
        let is_chain = after.windows(2).all(|pair| pair[1].prev == pair[0].seq);
        (seq >= self.dropped_to && follows && is_chain).then_some(after)
    }
}
