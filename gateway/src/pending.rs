//! What this node got accepted and the store does not have yet.
//!
//! May use: domain, log positions, hub (to tell a client). Deliberately absent: the ports.
//!
//! Three things wait here for the persister's notice: an acknowledgement, where `ack.mode` is `stored`; the notice to the
//! sender; and the message itself, which this node hands in again when Redis has lost it.

use std::{
    collections::BTreeMap,
    sync::{
        Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use shared::{
    broker::LogPosition,
    clock,
    domain::{ConnectionId, ConversationId, Message, MessageId, Partition, Seq, Stored},
};
use tokio::sync::oneshot;

use crate::{hub::Client, metrics::Metrics, outbox::Class};

/// Most bytes of bodies that are kept; above it the oldest of a partition are let go, and only their waiters stay.
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
    waiter: Waiter,
}

#[derive(Default)]
struct Shelf {
    entries: BTreeMap<LogPosition, Entry>,
    /// Handed in after Redis may have lost them; their place in the log is not known.
    handed_in: Vec<Entry>,
    stored: LogPosition,
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
        let (conversation, seq, time) = (message.conversation.clone(), message.seq, message.time);
        let bytes = message.body.as_bytes().len();
        let mut entry = Entry { message: Some(message), conversation, seq, time, waiter };
        let mut shelf = self.shelves[usize::from(partition.0)].lock();
        if position <= shelf.stored {
            drop(shelf);
            self.tell(vec![entry]);
            return;
        }
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > PENDING_BYTES_MAX {
            self.release(&mut entry);
            self.metrics.pending_evicted.increment(1);
        }
        self.metrics.pending.increment(1.0);
        if let Some(mut earlier) = shelf.entries.insert(position, entry) {
            // A retry was answered with the place of the first try, which still waits: the later waiter stands for both.
            self.metrics.pending.decrement(1.0);
            self.release(&mut earlier);
            drop(shelf);
            self.chain(partition, position, earlier.waiter);
        }
    }

    /// Lets an earlier waiter of the same place be told together with the later one.
    fn chain(&self, partition: Partition, position: LogPosition, earlier: Waiter) {
        let Some(acknowledge) = earlier.acknowledge else { return };
        let mut shelf = self.shelves[usize::from(partition.0)].lock();
        match shelf.entries.get_mut(&position) {
            Some(entry) if entry.waiter.acknowledge.is_none() => entry.waiter.acknowledge = Some(acknowledge),
            // Its publish is answered by the later one's; the closed channel tells it to say "unavailable, try again".
            Some(_) => {}
            None => drop(acknowledge.send(())),
        }
    }

    /// The store has everything of the partition up to `upto`.
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
                done.push(first.remove());
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

    /// Partitions in which something waits.
    pub fn waiting(&self) -> Vec<Partition> {
        Partition::all(u16::try_from(self.shelves.len()).expect("partitions are counted by a u16"))
            .filter(|partition| {
                let shelf = self.shelves[usize::from(partition.0)].lock();
                !shelf.entries.is_empty() || !shelf.handed_in.is_empty()
            })
            .collect()
    }

    /// The messages of a partition that wait, oldest first, to be handed in again. From now on no notice counts for them,
    /// since their place in the log is another one, which nobody here knows: see [`Pending::handed_in`].
    pub fn salvage(&self, partition: Partition) -> Vec<Message> {
        let Some(shelf) = self.shelves.get(usize::from(partition.0)) else { return Vec::new() };
        let mut shelf = shelf.lock();
        let (mut handed_in, entries) =
            (std::mem::take(&mut shelf.handed_in), std::mem::take(&mut shelf.entries));
        handed_in.extend(entries.into_values());
        let messages = handed_in.iter().filter_map(|entry| entry.message.clone()).collect();
        shelf.handed_in = handed_in;
        messages
    }

    /// Messages that were handed in again and about which the store has to be asked, at most `limit` of them.
    pub fn handed_in(&self, limit: usize) -> Vec<(Partition, MessageId)> {
        let mut all = Vec::new();
        for partition in
            Partition::all(u16::try_from(self.shelves.len()).expect("partitions are counted by a u16"))
        {
            let shelf = self.shelves[usize::from(partition.0)].lock();
            let ids =
                shelf.handed_in.iter().filter_map(|entry| entry.message.as_ref().map(|message| message.id));
            all.extend(ids.map(|id| (partition, id)).take(limit - all.len()));
        }
        all
    }

    /// The store has a message that was handed in again.
    pub fn found(&self, partition: Partition, id: MessageId) {
        let found = {
            let mut shelf = self.shelves[usize::from(partition.0)].lock();
            let is_it = |entry: &Entry| entry.message.as_ref().is_some_and(|message| message.id == id);
            shelf.handed_in.iter().position(is_it).map(|at| shelf.handed_in.swap_remove(at))
        };
        self.finish(found.into_iter().collect());
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
            if let Some(acknowledge) = entry.waiter.acknowledge {
                // The publisher may have gone; then nobody waits.
                let _ = acknowledge.send(());
            }
            if let Some(client) = entry.waiter.notify.and_then(|client| client.upgrade()) {
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
