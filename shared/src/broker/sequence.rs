//! The seq rule as plain data: what `redis/publish.lua` does inside Redis, without Redis.
//!
//! A partition is opened with an epoch that the store issues and never issues again, for one run of one server. Nothing
//! is published unless the caller is attached to that very run (the fence), so a server that came back with less than
//! it had, or another one that was promoted in its place, must be opened anew first. A conversation's first number in
//! an epoch lies above everything that any earlier epoch could have given out:
//! `seq = max(last known, epoch · 2^32) + 1`. Where that would leave the epoch's own numbers, since a process was so slow
//! to open the partition that a later epoch has been used meanwhile, the partition is closed again. So a number is never
//! given to two messages, whatever was lost.
//!
//! `tests/sequence_model.rs` runs random histories of failures over this code and over the script.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::{Accepted, EntryId, LogPosition, Publication, Publish, Recent, expiring::Expiring};
use crate::domain::{ConversationId, Epoch, Message, MessageId, Seq};

/// How long a publish is remembered by the id of its message, in milliseconds.
pub const DEDUPE_MS: u64 = 10 * 60 * 1000;
/// How long a conversation's hot tail outlives its newest message, in milliseconds.
pub const HOT_TAIL_MS: u64 = 15 * 60 * 1000;
/// How many messages a hot tail keeps, about.
pub const HOT_MESSAGES: usize = 200;
/// How many entries the log of one partition may hold before publishes are refused.
pub const BACKLOG_ENTRIES_MAX: u64 = 1_000_000;

/// What bounds a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many entries the log of one partition may hold before publishes are refused.
    pub backlog_entries_max: u64,
    /// How many messages a hot tail keeps, about.
    pub hot_messages: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { backlog_entries_max: BACKLOG_ENTRIES_MAX, hot_messages: HOT_MESSAGES }
    }
}

/// All that a broker knows of one partition.
#[derive(Debug, Clone, Default)]
pub struct PartitionState {
    opened: Option<Opened>,
    conversations: HashMap<ConversationId, Conversation>,
    accepted: Expiring<MessageId, Accepted>,
    tails: Expiring<ConversationId, VecDeque<Arc<Message>>>,
    log: VecDeque<(LogPosition, Arc<Message>)>,
    last_entry: EntryId,
}

/// What the partition was opened with.
#[derive(Debug, Clone)]
struct Opened {
    epoch: Epoch,
    run: Arc<str>,
    at: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Conversation {
    epoch: Epoch,
    last: Seq,
    time: u64,
}

impl PartitionState {
    /// Publishes, for a caller that is attached to `run`, at the time `now` in milliseconds since 1970.
    pub fn publish(&mut self, run: &str, now: u64, publish: &Publish, limits: Limits) -> Publication {
        let Some(epoch) = self.epoch(run) else { return Publication::NeedsEpoch };
        self.accepted.expire(now);
        self.tails.expire(now);
        let is_named = publish.payload.client_id.is_some();
        if is_named && let Some(&first) = self.accepted.touch(&publish.payload.id, now, now + DEDUPE_MS) {
            return Publication::Accepted(Accepted { duplicate: true, ..first });
        }
        let known = self.conversations.get(&publish.conversation).copied();
        let prev = match (known, publish.seed) {
            (Some(known), _) if known.epoch == epoch => known.last,
            (_, None) => return Publication::NeedsSeed,
            (known, Some(seed)) => seed.max(known.unwrap_or_default().last),
        };
        if prev.0 + 1 >= Epoch(epoch.0 + 1).base().0 {
            // Numbers of a later epoch are known, or those of this one are used up: only a later one can go on.
            self.opened = None;
            return Publication::NeedsEpoch;
        }
        if is_named && !publish.checked && (publish.retry || self.is_young(now)) {
            return Publication::NeedsCheck;
        }
        if self.backlog() >= limits.backlog_entries_max {
            return Publication::BacklogFull;
        }
        let seq = Seq(prev.max(epoch.base()).0 + 1);
        let time = now.max(known.unwrap_or_default().time);
        let place = Conversation { epoch, last: seq, time };
        Publication::Accepted(self.append(publish, prev, place, now, limits.hot_messages))
    }

    fn append(
        &mut self,
        publish: &Publish,
        prev: Seq,
        place: Conversation,
        now: u64,
        hot_messages: usize,
    ) -> Accepted {
        let Conversation { epoch, last: seq, time } = place;
        let conversation = &publish.conversation;
        self.last_entry = self.last_entry.next_at(now);
        let position = LogPosition { epoch, entry: self.last_entry };
        let accepted = Accepted { seq, prev, time, position, duplicate: false };
        let message = Arc::new(publish.payload.clone().at(conversation.clone(), seq, prev, time));
        self.conversations.insert(conversation.clone(), place);
        if publish.payload.client_id.is_some() {
            self.accepted.insert(publish.payload.id, accepted, now + DEDUPE_MS);
        }
        let tail = self.tails.entry(conversation, now, now + HOT_TAIL_MS);
        tail.push_back(Arc::clone(&message));
        if tail.len() > hot_messages {
            tail.pop_front();
        }
        self.log.push_back((position, message));
        accepted
    }

    /// The epoch, if it was issued for `run`.
    pub fn epoch(&self, run: &str) -> Option<Epoch> {
        self.opened.as_ref().filter(|opened| *opened.run == *run).map(|opened| opened.epoch)
    }

    /// The server run that the partition was opened for.
    pub fn run(&self) -> Option<&str> {
        self.opened.as_ref().map(|opened| &*opened.run)
    }

    /// Opens the partition; false, and nothing is changed, when it has this or a higher epoch already.
    pub fn seed(&mut self, run: &str, epoch: Epoch, now: u64) -> bool {
        let is_new = self.opened.as_ref().is_none_or(|opened| opened.epoch < epoch);
        if is_new {
            self.opened = Some(Opened { epoch, run: run.into(), at: now });
        }
        is_new
    }

    /// Whether publishes may have been forgotten that should still be remembered. `publish.lua` says no in epoch 0, before
    /// which there was nothing; a memory is new with every process, and goes on with the same epoch after a clean stop.
    fn is_young(&self, now: u64) -> bool {
        self.opened.as_ref().is_some_and(|opened| now < opened.at + DEDUPE_MS)
    }

    /// The present end of a conversation.
    pub fn top(&self, conversation: &ConversationId) -> Option<Seq> {
        self.conversations.get(conversation).map(|known| known.last)
    }

    /// The hot tail after `after`, at most `limit` messages.
    pub fn recent(&self, conversation: &ConversationId, after: Seq, limit: usize, now: u64) -> Recent {
        let tail = self.tails.get(conversation, now).into_iter().flatten();
        let messages = tail.filter(|message| message.seq > after).take(limit);
        Recent::join(messages.map(|message| Some(Message::clone(message))), after, self.top(conversation))
    }

    /// How many entries the log holds.
    pub fn backlog(&self) -> u64 {
        self.log.len() as u64
    }

    /// The entries of the log after `after`, oldest first.
    pub fn entries(&self, after: EntryId) -> impl Iterator<Item = &(LogPosition, Arc<Message>)> {
        let start = self.log.partition_point(|(position, _)| position.entry <= after);
        self.log.range(start..)
    }

    /// Removes the entries of the log up to and with `upto`.
    pub fn trim(&mut self, upto: EntryId) {
        let end = self.log.partition_point(|(position, _)| position.entry <= upto);
        self.log.drain(..end);
    }

    /// The epoch that the partition has, for whatever run.
    pub fn stamp(&self) -> Option<Epoch> {
        self.opened.as_ref().map(|opened| opened.epoch)
    }
}

impl EntryId {
    /// The id of an entry that is appended after this one at the time `now`: ids grow even where the clock does not.
    fn next_at(self, now: u64) -> Self {
        if now > self.ms { Self { ms: now, n: 0 } } else { Self { ms: self.ms, n: self.n + 1 } }
    }
}

impl Recent {
    /// Makes a tail of what was read of one, oldest first; `None` is an entry that could not be read.
    ///
    /// Each message names the one before it, so a hole among them shows, and so does one in front. Only the newest
    /// messages without a hole count; whatever precedes them is missing.
    pub fn join(messages: impl Iterator<Item = Option<Message>>, after: Seq, top: Option<Seq>) -> Self {
        let mut whole = Vec::new();
        let mut complete = true;
        let mut last = after;
        for message in messages {
            let is_next = |message: &Message| {
                if whole.is_empty() { message.prev <= last } else { message.prev == last }
            };
            if !message.as_ref().is_some_and(is_next) {
                whole.clear();
                complete = false;
            }
            if let Some(message) = message {
                last = message.seq;
                whole.push(message);
            }
        }
        if whole.is_empty() {
            // An end before the position asked for: what came up to there is lost here, and so may be what came after.
            complete = complete && top == Some(after);
        }
        Self { messages: whole, complete, top }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Body, MessageKind, UserId};

    /// The entries of a tail, each by its seq and the one before; `None` cannot be read.
    fn join(entries: &[Option<(u64, u64)>], after: u64, top: Option<u64>) -> (Vec<u64>, bool) {
        let message = |(seq, prev)| Message {
            id: MessageId(uuid::Uuid::from_u128(u128::from(seq))),
            conversation: ConversationId::parse("a").unwrap(),
            seq: Seq(seq),
            prev: Seq(prev),
            time: 0,
            sender: UserId::parse("alice").unwrap(),
            client_id: None,
            reply_to: None,
            kind: MessageKind::TEXT,
            body: Body::from_json("{}"),
        };
        let messages = entries.iter().map(|entry| entry.map(message));
        let recent = Recent::join(messages, Seq(after), top.map(Seq));
        (recent.messages.iter().map(|message| message.seq.0).collect(), recent.complete)
    }

    #[test]
    fn a_tail_is_whole_only_without_a_hole() {
        assert_eq!(join(&[Some((6, 5)), Some((9, 6))], 5, Some(9)), (vec![6, 9], true));
        // The position asked for need not be one that was given out.
        assert_eq!(join(&[Some((9, 4))], 5, Some(9)), (vec![9], true));
        assert_eq!(join(&[Some((7, 6)), Some((8, 7))], 5, Some(8)), (vec![7, 8], false));
        assert_eq!(join(&[Some((6, 5)), Some((8, 7)), Some((9, 8))], 5, Some(9)), (vec![8, 9], false));
        assert_eq!(join(&[Some((6, 5)), None, Some((8, 7))], 5, Some(8)), (vec![8], false));
        assert_eq!(join(&[Some((6, 5)), None], 5, Some(7)), (vec![], false));
    }

    #[test]
    fn an_empty_tail_is_whole_where_nothing_came_after() {
        assert_eq!(join(&[], 5, Some(5)), (vec![], true));
        assert_eq!(join(&[], 5, Some(6)), (vec![], false));
        assert_eq!(join(&[], 5, Some(4)), (vec![], false));
        assert_eq!(join(&[], 0, None), (vec![], false));
    }
}
