//! What this node got accepted and the store does not have yet.
//!
//! May use: domain, log positions, hub (to tell a client). Deliberately absent: the ports.
//!
//! Three things wait here for the persister's notice: an acknowledgement, where `ack.mode` is `stored`; the notice to the
//! sender; and the message itself, which this node hands in again when Redis has lost it.
//!
//! A notice speaks of one epoch of the log. What was accepted in an earlier one, and was not stored when the later one
//! began, may have gone down with Redis' data: it is *adrift*, and only the store can say whether it has it.

use std::{
    collections::BTreeMap,
    sync::{
        Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use shared::{
    broker::{Accepted, LogPosition},
    clock,
    domain::{ConnectionId, ConversationId, Message, MessageId, Partition, Seq, Stored},
};
use tokio::sync::oneshot;

use crate::{hub::Client, metrics::Metrics, outbox::Class};

/// Most bytes of bodies that are kept; above it those of new messages are not, and only who waits for them is.
pub const PENDING_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Who waits for a message to be stored.
#[derive(Debug)]
pub struct Waiter {
    /// The connection that sent it gets a notice.
    pub notify: Option<Weak<Client>>,
    /// The publish that is answered only then.
    pub acknowledge: Option<oneshot::Sender<()>>,
}

struct Entry {
    message: Option<Message>,
    conversation: ConversationId,
    seq: Seq,
    time: u64,
    waiters: Waiters,
}

/// Everyone who waits for one message: several publishes, if it was sent again before it was stored.
struct Waiters {
    notify: Option<Weak<Client>>,
    acknowledge: Vec<oneshot::Sender<()>>,
}

impl Waiters {
    fn new(Waiter { notify, acknowledge }: Waiter) -> Self {
        Self { notify, acknowledge: acknowledge.into_iter().collect() }
    }

    /// The notice goes to the connection that was last to send it: an earlier one of the same client may be gone.
    fn join(&mut self, others: Self) {
        self.notify = others.notify.or_else(|| self.notify.take());
        self.acknowledge.extend(others.acknowledge);
    }
}

#[derive(Default)]
struct Shelf {
    entries: BTreeMap<LogPosition, Entry>,
    adrift: Vec<Entry>,
    stored: LogPosition,
}

/// A message that was accepted in an earlier epoch, and of which only the store can say whether it is stored.
#[derive(Debug)]
pub struct Adrift {
    /// Its partition.
    pub partition: Partition,
    /// The message, as it was accepted.
    pub message: Message,
}

/// What this node got accepted and the store does not have yet.
pub struct Pending {
    shelves: Vec<Mutex<Shelf>>,
    bytes: AtomicUsize,
    metrics: std::sync::Arc<Metrics>,
}

impl Pending {
    /// For a deployment with so many partitions.
    pub fn new(partitions: u16, metrics: std::sync::Arc<Metrics>) -> Self {
        let shelves = (0..partitions).map(|_| Mutex::default()).collect();
        Self { shelves, bytes: AtomicUsize::new(0), metrics }
    }

    /// Keeps an accepted message until [`Pending::stored`] says that the store has it, which may have been said before.
    pub fn add(&self, partition: Partition, position: LogPosition, message: Message, waiter: Waiter) {
        self.keep(partition, position, message, Waiters::new(waiter));
    }

    fn keep(&self, partition: Partition, position: LogPosition, message: Message, waiters: Waiters) {
        let (conversation, seq, time) = (message.conversation.clone(), message.seq, message.time);
        let bytes = message.body.as_bytes().len();
        let mut entry = Entry { message: Some(message), conversation, seq, time, waiters };
        let mut shelf = self.shelves[usize::from(partition.0)].lock();
        let is_passed = position <= shelf.stored;
        let is_of_the_past = is_passed && position.epoch < shelf.stored.epoch;
        // The default position is that of a message that the store was found to have.
        if is_passed && (!is_of_the_past || position == LogPosition::default()) {
            drop(shelf);
            self.tell(vec![entry]);
            return;
        }
        if let Some(first) = shelf.entries.get_mut(&position) {
            // A retry was answered with the place of the first try, which still waits.
            first.waiters.join(entry.waiters);
            return;
        }
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > PENDING_BYTES_MAX {
            self.release(&mut entry);
            self.metrics.pending_evicted.increment(1);
        }
        self.metrics.pending.increment(1.0);
        if is_of_the_past {
            self.cast_adrift(&mut shelf, entry);
        } else {
            shelf.entries.insert(position, entry);
        }
    }

    /// The store has everything of the partition and of `upto`'s epoch up to `upto`.
    pub fn stored(&self, partition: Partition, upto: LogPosition) {
        let Some(shelf) = self.shelves.get(usize::from(partition.0)) else { return };
        let done = {
            let mut shelf = shelf.lock();
            shelf.stored = shelf.stored.max(upto);
            let stored = shelf.stored;
            let mut done = Vec::new();
            while let Some(first) = shelf.entries.first_entry()
                && *first.key() <= stored
            {
                let (position, entry) = first.remove_entry();
                if position.epoch == stored.epoch {
                    done.push(entry);
                } else {
                    self.cast_adrift(&mut shelf, entry);
                }
            }
            done
        };
        self.finish(done);
    }

    fn finish(&self, done: Vec<Entry>) {
        for entry in &done {
            self.metrics.pending.decrement(1.0);
            if let Some(message) = &entry.message {
                self.bytes.fetch_sub(message.body.as_bytes().len(), Ordering::Relaxed);
            }
        }
        self.tell(done);
    }

    /// Lets an entry wait for what the store says. One whose message was let go has nobody to ask for: its waiters learn that
    /// nothing is known.
    fn cast_adrift(&self, shelf: &mut Shelf, entry: Entry) {
        if entry.message.is_some() {
            shelf.adrift.push(entry);
        } else {
            self.metrics.pending.decrement(1.0);
        }
    }

    /// Partitions in which something waits.
    pub fn waiting(&self) -> Vec<Partition> {
        self.partitions()
            .filter(|partition| {
                let shelf = self.shelves[usize::from(partition.0)].lock();
                !shelf.entries.is_empty() || !shelf.adrift.is_empty()
            })
            .collect()
    }

    /// The messages of a partition that wait, oldest first, to be handed in again. From now on they are adrift, since their
    /// place in the log is another one, which nobody here knows.
    pub fn salvage(&self, partition: Partition) -> Vec<Message> {
        let Some(shelf) = self.shelves.get(usize::from(partition.0)) else { return Vec::new() };
        let mut shelf = shelf.lock();
        for (_, entry) in std::mem::take(&mut shelf.entries) {
            self.cast_adrift(&mut shelf, entry);
        }
        shelf.adrift.iter().filter_map(|entry| entry.message.clone()).collect()
    }

    /// The messages about which the store has to be asked, at most `limit` of them.
    pub fn adrift(&self, limit: usize) -> Vec<Adrift> {
        let mut all = Vec::new();
        for partition in self.partitions() {
            let shelf = self.shelves[usize::from(partition.0)].lock();
            let some = shelf
                .adrift
                .iter()
                .take(limit - all.len())
                .filter_map(|entry| Some(Adrift { partition, message: entry.message.clone()? }));
            all.extend(some);
        }
        all
    }

    /// The store has a message that was adrift.
    pub fn found(&self, partition: Partition, id: MessageId) {
        self.finish(self.take_adrift(partition, id).into_iter().collect());
    }

    /// A message that was adrift was published again.
    pub fn published_again(&self, partition: Partition, accepted: &Accepted, id: MessageId) {
        let Some(mut entry) = self.take_adrift(partition, id) else { return };
        self.metrics.pending.decrement(1.0);
        let Some(mut message) = entry.message.clone() else { return };
        self.release(&mut entry);
        (message.seq, message.prev, message.time) = (accepted.seq, accepted.prev, accepted.time);
        self.keep(partition, accepted.position, message, entry.waiters);
    }

    fn take_adrift(&self, partition: Partition, id: MessageId) -> Option<Entry> {
        let mut shelf = self.shelves[usize::from(partition.0)].lock();
        let is_it = |entry: &Entry| entry.message.as_ref().is_some_and(|it| it.id == id);
        let at = shelf.adrift.iter().position(is_it)?;
        Some(shelf.adrift.remove(at))
    }

    fn partitions(&self) -> impl Iterator<Item = Partition> + use<> {
        Partition::all(u16::try_from(self.shelves.len()).expect("partitions are counted by a u16"))
    }

    fn release(&self, entry: &mut Entry) {
        if let Some(message) = entry.message.take() {
            self.bytes.fetch_sub(message.body.as_bytes().len(), Ordering::Relaxed);
        }
    }

    /// Tells everyone who waited; a client with several messages in a conversation gets one notice for all of them.
    fn tell(&self, done: Vec<Entry>) {
        let now = clock::now_ms();
        let mut notices: BTreeMap<(ConnectionId, ConversationId), (std::sync::Arc<Client>, Seq)> =
            BTreeMap::new();
        for entry in done {
            let waited = std::time::Duration::from_millis(now.saturating_sub(entry.time));
            self.metrics.store_seconds.record(waited);
            for acknowledge in entry.waiters.acknowledge {
                // The publisher may have gone; then nobody waits.
                let _ = acknowledge.send(());
            }
            if let Some(client) = entry.waiters.notify.and_then(|client| client.upgrade()) {
                let key = (client.info.client, entry.conversation);
                let notice = notices.entry(key).or_insert((client, entry.seq));
                notice.1 = notice.1.max(entry.seq);
            }
        }
        for ((_, conversation), (client, upto)) in notices {
            client.send((client.dialect.stored)(&Stored { conversation, upto }), Class::Durable);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shared::{
        broker::EntryId,
        domain::{Body, Epoch, MessageId, MessageKind},
    };
    use uuid::Uuid;

    use super::*;
    use crate::tests::{client, conversation, heard, who};

    const HERE: Partition = Partition(0);

    fn pending() -> Pending {
        Pending::new(2, Arc::new(Metrics::register()))
    }

    fn at(n: u64) -> LogPosition {
        LogPosition { epoch: Epoch(0), entry: EntryId { ms: 1, n } }
    }

    fn message(id: &str, seq: u64) -> Message {
        Message {
            id: MessageId(Uuid::from_u128(seq.into())),
            conversation: conversation(id),
            seq: Seq(seq),
            prev: Seq(seq - 1),
            time: 0,
            sender: who(1).user,
            client_id: None,
            reply_to: None,
            kind: MessageKind::TEXT,
            body: Body::from_json("1"),
        }
    }

    fn notify(client: &Arc<Client>) -> Waiter {
        Waiter { notify: Some(Arc::downgrade(client)), acknowledge: None }
    }

    fn acknowledge() -> (Waiter, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        (Waiter { notify: None, acknowledge: Some(sender) }, receiver)
    }

    fn notice(id: &str, upto: u64) -> String {
        let data = format!(r#"{{"type":"stored","conversation":"{id}","upto":{upto}}}"#);
        format!("{{\"push\":{{\"message\":{{\"data\":{data}}}}}}}\n")
    }

    #[tokio::test]
    async fn a_client_gets_one_notice_for_each_conversation() {
        let pending = pending();
        let (one, mut to_one) = client(1, 0);
        let (other, mut to_other) = client(2, 0);
        for n in 1..=3 {
            pending.add(HERE, at(n), message("a", n), notify(&one));
        }
        pending.add(HERE, at(4), message("b", 1), notify(&one));
        pending.add(HERE, at(5), message("a", 4), notify(&other));
        pending.add(HERE, at(6), message("a", 5), notify(&one));
        pending.stored(HERE, at(5));
        assert_eq!(heard(&mut to_one), notice("a", 3) + &notice("b", 1));
        assert_eq!(heard(&mut to_other), notice("a", 4));
        assert_eq!(heard(&mut to_one), "");
        pending.stored(HERE, at(9));
        assert_eq!((heard(&mut to_one), pending.waiting()), (notice("a", 5), vec![]));
    }

    #[tokio::test]
    async fn a_notice_may_come_first_twice_and_late() {
        let pending = pending();
        let (client, mut to_client) = client(1, 0);
        pending.stored(HERE, at(5));
        pending.add(HERE, at(5), message("a", 5), notify(&client));
        assert_eq!(heard(&mut to_client), notice("a", 5));
        pending.add(HERE, at(6), message("a", 6), notify(&client));
        // One that was overtaken says nothing new.
        pending.stored(HERE, at(4));
        pending.stored(HERE, at(5));
        // What the store had before the log was asked waits for nothing.
        pending.add(HERE, LogPosition::default(), message("a", 1), notify(&client));
        assert_eq!(heard(&mut to_client), notice("a", 1));
        assert_eq!(pending.waiting(), [HERE]);
        pending.stored(Partition(1), at(9));
        pending.stored(Partition(9), at(9));
        assert_eq!(heard(&mut to_client), "");
        pending.stored(HERE, at(6));
        pending.stored(HERE, at(6));
        assert_eq!(heard(&mut to_client), notice("a", 6));
    }

    #[tokio::test]
    async fn an_acknowledgement_waits_for_the_store() {
        let pending = pending();
        let (waiter, mut answer) = acknowledge();
        pending.add(HERE, at(2), message("a", 2), waiter);
        pending.stored(HERE, at(1));
        assert!(answer.try_recv().is_err());
        pending.stored(HERE, at(2));
        assert_eq!(answer.await, Ok(()));
        let (waiter, answer) = acknowledge();
        pending.add(HERE, at(1), message("a", 1), waiter);
        assert_eq!(answer.await, Ok(()));
    }

    #[tokio::test]
    async fn a_retry_waits_together_with_the_first_try() {
        let pending = pending();
        let (client, mut to_client) = client(1, 0);
        let (waiter, first) = acknowledge();
        pending.add(HERE, at(1), message("a", 1), waiter);
        pending.add(HERE, at(1), message("a", 1), notify(&client));
        pending.stored(HERE, at(1));
        assert_eq!(first.await, Ok(()));
        assert_eq!(heard(&mut to_client), notice("a", 1));
        let ((one, first), (other, second)) = (acknowledge(), acknowledge());
        pending.add(HERE, at(2), message("a", 2), one);
        pending.add(HERE, at(2), message("a", 2), other);
        pending.stored(HERE, at(2));
        assert_eq!((first.await, second.await), (Ok(()), Ok(())));
        assert_eq!(pending.bytes.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn what_is_too_much_is_not_kept_but_waited_for() {
        let pending = pending();
        pending.bytes.store(PENDING_BYTES_MAX, Ordering::Relaxed);
        let (waiter, answer) = acknowledge();
        pending.add(HERE, at(1), message("a", 1), waiter);
        assert_eq!(pending.waiting(), [HERE]);
        pending.stored(HERE, at(1));
        assert_eq!(answer.await, Ok(()));
        assert_eq!(pending.bytes.load(Ordering::Relaxed), PENDING_BYTES_MAX);
    }

    #[tokio::test]
    async fn what_was_handed_in_again_waits_until_the_store_is_found_to_have_it() {
        let pending = pending();
        let (client, mut to_client) = client(1, 0);
        pending.add(HERE, at(1), message("a", 1), notify(&client));
        pending.add(HERE, at(2), message("a", 2), notify(&client));
        pending.stored(HERE, at(1));
        assert_eq!(heard(&mut to_client), notice("a", 1));
        assert_eq!(pending.salvage(HERE), [message("a", 2)]);
        assert_eq!(pending.salvage(HERE), [message("a", 2)], "it may be lost again");
        // A notice of the new log says nothing of what was in the old one.
        pending.stored(HERE, LogPosition { epoch: Epoch(1), ..at(9) });
        assert_eq!((heard(&mut to_client), pending.waiting()), (String::new(), vec![HERE]));
        assert_eq!(pending.adrift(9).len(), 1);
        pending.found(HERE, message("a", 1).id);
        pending.found(HERE, message("a", 2).id);
        assert_eq!((heard(&mut to_client), pending.waiting()), (notice("a", 2), vec![]));
        assert_eq!(pending.bytes.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn who_waits_for_what_cannot_be_handed_in_is_told_so() {
        let pending = pending();
        pending.bytes.store(PENDING_BYTES_MAX, Ordering::Relaxed);
        let (waiter, answer) = acknowledge();
        pending.add(HERE, at(1), message("a", 1), waiter);
        assert_eq!((pending.salvage(HERE), pending.waiting()), (vec![], vec![]));
        assert!(answer.await.is_err());
    }

    #[tokio::test]
    async fn a_client_that_is_gone_needs_no_notice() {
        let pending = pending();
        let (client, drain) = client(1, 0);
        pending.add(HERE, at(1), message("a", 1), notify(&client));
        drop((client, drain));
        pending.stored(HERE, at(1));
        assert_eq!(pending.waiting(), []);
    }
}

#[cfg(test)]
mod adrift_tests {
    use shared::{
        broker::EntryId,
        domain::{Body, Epoch, MessageKind, UserId},
    };
    use uuid::Uuid;

    use super::*;

    const PARTITION: Partition = Partition(0);

    fn at(epoch: u32, n: u64) -> LogPosition {
        LogPosition { epoch: Epoch(epoch), entry: EntryId { ms: 1, n } }
    }

    fn message(seq: u64) -> Message {
        Message {
            id: MessageId(Uuid::from_u128(seq.into())),
            conversation: ConversationId::parse("c").unwrap(),
            seq: Seq(seq),
            prev: Seq(seq - 1),
            time: 1,
            sender: UserId::parse("al").unwrap(),
            client_id: None,
            reply_to: None,
            kind: MessageKind::TEXT,
            body: Body::from_json("{}"),
        }
    }

    fn pending() -> Pending {
        Pending::new(1, std::sync::Arc::new(Metrics::register()))
    }

    /// Adds a message; the receiver hears of its storage.
    fn add(pending: &Pending, position: LogPosition, seq: u64) -> oneshot::Receiver<()> {
        let (acknowledge, stored) = oneshot::channel();
        let waiter = Waiter { notify: None, acknowledge: Some(acknowledge) };
        pending.add(PARTITION, position, message(seq), waiter);
        stored
    }

    fn is_told(stored: &mut oneshot::Receiver<()>) -> bool {
        stored.try_recv().is_ok()
    }

    #[test]
    fn a_notice_tells_those_up_to_it() {
        let pending = pending();
        let (mut first, mut second) = (add(&pending, at(0, 1), 1), add(&pending, at(0, 2), 2));
        pending.stored(PARTITION, at(0, 1));
        assert_eq!((is_told(&mut first), is_told(&mut second)), (true, false));
        pending.stored(PARTITION, at(0, 2));
        assert!(is_told(&mut second) && pending.waiting().is_empty());
        assert!(is_told(&mut add(&pending, at(0, 2), 2)), "the notice may come before the answer");
    }

    #[test]
    fn a_notice_of_a_later_epoch_says_nothing_of_an_earlier_one() {
        let pending = pending();
        let (mut early, mut late) = (add(&pending, at(0, 5), 1), add(&pending, at(1, 1), 2));
        pending.stored(PARTITION, at(1, 1));
        let mut later = add(&pending, at(0, 6), 3);
        assert!(is_told(&mut late));
        assert!(!is_told(&mut early) && !is_told(&mut later), "they may be lost");
        let adrift: Vec<Seq> = pending.adrift(10).into_iter().map(|adrift| adrift.message.seq).collect();
        assert_eq!(adrift, [Seq(1), Seq(3)]);
        pending.found(PARTITION, message(1).id);
        assert!(is_told(&mut early) && !is_told(&mut later));
        assert!(is_told(&mut add(&pending, LogPosition::default(), 4)), "the store was asked already");
    }

    #[test]
    fn what_is_handed_in_is_adrift_and_can_be_handed_in_again() {
        let pending = pending();
        let mut stored = [add(&pending, at(0, 1), 1), add(&pending, at(0, 2), 2)];
        assert_eq!(pending.salvage(PARTITION), [message(1), message(2)]);
        assert_eq!(pending.salvage(PARTITION), [message(1), message(2)]);
        pending.stored(PARTITION, at(1, 9));
        assert_eq!(stored.each_mut().map(is_told), [false, false]);
        assert_eq!(pending.adrift(1).len(), 1);
    }

    #[test]
    fn what_is_published_again_waits_for_its_new_place() {
        let pending = pending();
        let mut stored = add(&pending, at(0, 1), 1);
        pending.salvage(PARTITION);
        let accepted = Accepted { seq: Seq(9), prev: Seq(8), time: 2, position: at(1, 3), duplicate: false };
        pending.published_again(PARTITION, &accepted, message(1).id);
        assert!(!is_told(&mut stored) && pending.adrift(1).is_empty());
        pending.stored(PARTITION, at(1, 3));
        assert!(is_told(&mut stored) && pending.waiting().is_empty());
    }
}
