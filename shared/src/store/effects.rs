//! What a batch of messages changes beside adding rows: where its conversations stand, what their senders have read,
//! and what earlier messages say. Collected once for a batch, so that a batch of plain messages costs two statements.

use std::collections::HashMap;

use crate::domain::{
    Body, Change, ChangeAction, ConversationId, ConversationKind, Direct, Message, MessageId, Seq,
};

/// Where a conversation stands after a batch.
pub(super) struct Touch<'a> {
    pub conversation: &'a ConversationId,
    pub last: Seq,
    /// The last message that counts, and when it was sent; 0 without one.
    pub last_message: Seq,
    pub last_ms: u64,
}

impl<'a> Touch<'a> {
    /// The two users, if it is a direct conversation: it gets its rows with its first entry.
    pub fn direct(&self) -> Option<Direct<'a>> {
        match self.conversation.kind() {
            ConversationKind::Direct(pair) => Some(pair),
            _ => None,
        }
    }
}

/// What a message says from now on.
pub(super) struct Edit<'a> {
    pub conversation: &'a ConversationId,
    pub id: MessageId,
    pub seq: Seq,
    pub time: u64,
    pub body: Body,
}

/// A message that says nothing any more.
pub(super) struct Deletion<'a> {
    pub conversation: &'a ConversationId,
    pub id: MessageId,
    pub seq: Seq,
    pub time: u64,
}

/// The edits of a message: they are emptied when it is deleted, also those that come after.
pub(super) struct Emptying<'a> {
    pub conversation: &'a ConversationId,
    pub target: Seq,
    pub id: MessageId,
    pub body: Body,
}

/// A user's word on one emoji at one message.
pub(super) struct Reacted<'a> {
    pub conversation: &'a ConversationId,
    pub id: MessageId,
    pub user: &'a str,
    pub emoji: String,
    pub on: bool,
    pub seq: Seq,
}

/// All of it.
#[derive(Default)]
pub(super) struct Effects<'a> {
    pub touches: Vec<Touch<'a>>,
    /// The touch that was changed last.
    touched: usize,
    /// Up to where the senders have read, since they have sent something there.
    pub reads: Vec<(&'a ConversationId, &'a str, Seq)>,
    pub edits: Vec<Edit<'a>>,
    pub deletions: Vec<Deletion<'a>>,
    pub emptyings: Vec<Emptying<'a>>,
    pub reactions: Vec<Reacted<'a>>,
}

type Key<'a> = (&'a ConversationId, MessageId);

impl<'a> Effects<'a> {
    /// The effects of messages whose rows are at their places. Of several that change the same, the last by seq remains.
    pub fn of(messages: impl Iterator<Item = &'a Message>) -> Self {
        let mut effects = Self::default();
        let mut touches: HashMap<&ConversationId, usize> = HashMap::new();
        let mut reads = Reads::default();
        let mut edits: HashMap<Key<'_>, Edit<'a>> = HashMap::new();
        let mut reactions: HashMap<(Key<'_>, &str, String), Reacted<'a>> = HashMap::new();
        for message in messages {
            effects.touch(&mut touches, message);
            if message.kind.is_counted() {
                reads.note((&message.conversation, message.sender.as_str()), message.seq);
            }
            let Some(change) = Change::of(message) else { continue };
            let (conversation, id) = (&message.conversation, change.id);
            if !matches!(change.action, ChangeAction::React { .. }) {
                let (target, body) = (change.target, change.emptied());
                effects.emptyings.push(Emptying { conversation, target, id, body });
            }
            match change.action {
                ChangeAction::Edit(body) => {
                    let edit = Edit { conversation, id, seq: message.seq, time: message.time, body };
                    let is_older = edits.get(&(conversation, id)).is_some_and(|last| last.seq > edit.seq);
                    if !is_older {
                        edits.insert((conversation, id), edit);
                    }
                }
                ChangeAction::Delete => {
                    effects.deletions.push(Deletion {
                        conversation,
                        id,
                        seq: message.seq,
                        time: message.time,
                    });
                }
                ChangeAction::React { emoji, on } => {
                    let (user, seq) = (message.sender.as_str(), message.seq);
                    let key = ((conversation, id), user, emoji.clone());
                    if reactions.get(&key).is_none_or(|last| last.seq < seq) {
                        reactions.insert(key, Reacted { conversation, id, user, emoji, on, seq });
                    }
                }
            }
        }
        effects.reads = reads.take();
        effects.edits = edits.into_values().collect();
        effects.reactions = reactions.into_values().collect();
        effects
    }

    fn touch(&mut self, places: &mut HashMap<&'a ConversationId, usize>, message: &'a Message) {
        let conversation = &message.conversation;
        // Messages of one conversation mostly come together, and comparing costs less than hashing.
        let is_same = self.touches.get(self.touched).is_some_and(|touch| touch.conversation == conversation);
        if !is_same {
            self.touched = *places.entry(conversation).or_insert_with(|| {
                let (last, last_message) = (Seq(0), Seq(0));
                self.touches.push(Touch { conversation, last, last_message, last_ms: message.time });
                self.touches.len() - 1
            });
        }
        let touch = &mut self.touches[self.touched];
        touch.last = message.seq.max(touch.last);
        if message.kind.is_counted() && message.seq > touch.last_message {
            (touch.last_message, touch.last_ms) = (message.seq, message.time);
        }
    }
}

type Reader<'a> = (&'a ConversationId, &'a str);

/// Up to where each has read.
#[derive(Default)]
struct Reads<'a> {
    /// The one noted last is often the next one, and comparing costs less than hashing.
    last: Option<(Reader<'a>, Seq)>,
    others: HashMap<Reader<'a>, Seq>,
}

impl<'a> Reads<'a> {
    fn note(&mut self, reader: Reader<'a>, seq: Seq) {
        match &mut self.last {
            Some((last, read)) if *last == reader => *read = seq.max(*read),
            _ => {
                self.settle();
                self.last = Some((reader, seq));
            }
        }
    }

    fn settle(&mut self) {
        if let Some((reader, seq)) = self.last.take() {
            let read = self.others.entry(reader).or_default();
            *read = seq.max(*read);
        }
    }

    fn take(mut self) -> Vec<(&'a ConversationId, &'a str, Seq)> {
        self.settle();
        self.others.into_iter().map(|((conversation, user), seq)| (conversation, user, seq)).collect()
    }
}
