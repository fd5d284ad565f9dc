//! The broker of standalone mode: the seq rule of [`super::sequence`] behind one lock for each partition.
//!
//! Several brokers may be attached to one [`Memory`], each as a node of its own; that is how tests run two nodes in one
//! process. What is published reaches the sinks under the partition's lock, so its order is the order of the seqs.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use uuid::Uuid;

use super::{
    Audience, Broker, BrokerError, Inbound, LogPosition, Publication, Publish, Recent, Sink,
    sequence::{Limits, PartitionState},
};
use crate::{
    clock::now_ms,
    domain::{ConversationId, Epoch, Message, NodeId, Partition, Seq},
    record::{encode_payload, message_header},
};

/// What all brokers and logs of a process share.
pub struct Memory {
    run: String,
    limits: Limits,
    partitions: Vec<Mutex<Slot>>,
    nodes: Mutex<HashMap<u64, (NodeId, Sink)>>,
    attached: AtomicU64,
    appended: Notify,
}

/// One partition, and who listens to its conversations.
#[derive(Default)]
pub(crate) struct Slot {
    pub state: PartitionState,
    /// Entries that can never be stored, with the reason; the log bounds them.
    pub dead_letters: VecDeque<(LogPosition, String)>,
    /// Brokers by their number, nearly always one.
    listeners: HashMap<ConversationId, Vec<(u64, Sink)>>,
    is_sealed: bool,
}

impl Memory {
    /// An empty memory of `partitions` partitions; its run id is random, so everything has to be opened anew.
    pub fn new(partitions: u16, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            run: Uuid::new_v4().simple().to_string(),
            limits,
            partitions: (0..partitions).map(|_| Mutex::default()).collect(),
            nodes: Mutex::default(),
            attached: AtomicU64::new(0),
            appended: Notify::new(),
        })
    }

    /// From now on nothing is accepted, so that whoever drains the log comes to its end, and knows it.
    pub fn seal(&self) {
        for slot in &self.partitions {
            slot.lock().is_sealed = true;
        }
    }

    pub(crate) fn count(&self) -> u16 {
        u16::try_from(self.partitions.len()).expect("it was made from a u16")
    }

    pub(crate) fn slot(&self, partition: Partition) -> &Mutex<Slot> {
        &self.partitions[usize::from(partition.0)]
    }

    /// Wakes those who wait for entries.
    pub(crate) fn appended(&self) -> &Notify {
        &self.appended
    }

    /// Hands something to every node.
    pub(crate) fn tell_all(&self, inbound: &Inbound) {
        for sink in self.sinks(&Audience::Everyone) {
            sink(inbound.clone());
        }
    }

    fn of(&self, conversation: &ConversationId) -> &Mutex<Slot> {
        self.slot(Partition::of(conversation, self.count()))
    }

    fn sinks(&self, audience: &Audience) -> Vec<Sink> {
        let nodes = self.nodes.lock();
        let is_meant = |node: &NodeId| match audience {
            Audience::Everyone => true,
            Audience::Node(one) => node == one,
        };
        nodes.values().filter(|(node, _)| is_meant(node)).map(|(_, sink)| Arc::clone(sink)).collect()
    }
}

impl Slot {
    fn tell(&self, conversation: &ConversationId, record: impl FnOnce() -> Bytes) {
        if let Some(listeners) = self.listeners.get(conversation) {
            let record = record();
            for (_, sink) in listeners {
                sink(Inbound::Record(conversation.clone(), record.clone()));
            }
        }
    }
}

/// One node's broker in a [`Memory`].
pub struct MemoryBroker {
    memory: Arc<Memory>,
    me: u64,
}

impl MemoryBroker {
    /// Attaches one more node.
    pub fn new(memory: Arc<Memory>) -> Self {
        let me = memory.attached.fetch_add(1, Ordering::Relaxed);
        Self { memory, me }
    }

    fn sink(&self) -> Result<Sink, BrokerError> {
        let nodes = self.memory.nodes.lock();
        let (_, sink) = nodes
            .get(&self.me)
            .ok_or_else(|| BrokerError::Unavailable("the subscriber is not started".to_owned()))?;
        Ok(Arc::clone(sink))
    }

    fn detach(&self) {
        self.memory.nodes.lock().remove(&self.me);
        for slot in &self.memory.partitions {
            slot.lock().listeners.retain(|_, listeners| {
                listeners.retain(|(id, _)| *id != self.me);
                !listeners.is_empty()
            });
        }
    }
}

impl Drop for MemoryBroker {
    fn drop(&mut self) {
        self.detach();
    }
}

#[async_trait]
impl Broker for MemoryBroker {
    fn partitions(&self) -> u16 {
        self.memory.count()
    }

    async fn publish(&self, publish: &Publish) -> Result<Publication, BrokerError> {
        let Memory { run, limits, .. } = &*self.memory;
        let mut slot = self.memory.of(&publish.conversation).lock();
        if slot.is_sealed {
            return Err(BrokerError::Unavailable("this process stops".to_owned()));
        }
        let publication = slot.state.publish(run, now_ms(), publish, *limits);
        if let Publication::Accepted(accepted) = publication
            && !accepted.duplicate
        {
            slot.tell(&publish.conversation, || {
                let mut record = message_header(accepted.seq, accepted.prev, accepted.time).into_bytes();
                record.extend_from_slice(&encode_payload(&publish.payload));
                record.into()
            });
            self.memory.appended.notify_waiters();
        }
        Ok(publication)
    }

    async fn epoch(&self, partition: Partition) -> Result<Option<Epoch>, BrokerError> {
        Ok(self.memory.slot(partition).lock().state.epoch(&self.memory.run))
    }

    async fn seed(&self, partition: Partition, epoch: Epoch) -> Result<bool, BrokerError> {
        Ok(self.memory.slot(partition).lock().state.seed(&self.memory.run, epoch, now_ms()))
    }

    async fn call_for_salvage(&self) -> Result<bool, BrokerError> {
        // What is lost with this memory is lost with everyone who could hand it in.
        Ok(false)
    }

    async fn hand_in(&self, _: Partition, _: &[Message]) -> Result<(), BrokerError> {
        Ok(())
    }

    async fn restore(&self, _: Partition, _: Epoch) -> Result<u64, BrokerError> {
        Ok(0)
    }

    async fn signal(&self, conversation: &ConversationId, record: Bytes) -> Result<(), BrokerError> {
        self.memory.of(conversation).lock().tell(conversation, || record);
        Ok(())
    }

    async fn recent(
        &self,
        conversation: &ConversationId,
        after: Seq,
        limit: usize,
    ) -> Result<Recent, BrokerError> {
        Ok(self.memory.of(conversation).lock().state.recent(conversation, after, limit, now_ms()))
    }

    async fn positions(&self, conversations: &[ConversationId]) -> Result<Vec<Option<Seq>>, BrokerError> {
        let top = |conversation| self.memory.of(conversation).lock().state.top(conversation);
        Ok(conversations.iter().map(top).collect())
    }

    fn start(&self, node: &NodeId, sink: Sink) {
        self.memory.nodes.lock().insert(self.me, (node.clone(), Arc::clone(&sink)));
        sink(Inbound::Connected);
    }

    async fn subscribe(&self, conversations: &[ConversationId]) -> Result<(), BrokerError> {
        let sink = self.sink()?;
        for conversation in conversations {
            let mut slot = self.memory.of(conversation).lock();
            let listeners = slot.listeners.entry(conversation.clone()).or_default();
            listeners.retain(|(id, _)| *id != self.me);
            listeners.reserve_exact(1);
            listeners.push((self.me, Arc::clone(&sink)));
            // Under the lock: nothing that is published from now on comes before the confirmation.
            sink(Inbound::Subscribed(conversation.clone()));
        }
        Ok(())
    }

    async fn unsubscribe(&self, conversations: &[ConversationId]) -> Result<(), BrokerError> {
        let sink = self.sink()?;
        for conversation in conversations {
            let mut slot = self.memory.of(conversation).lock();
            if let Some(listeners) = slot.listeners.get_mut(conversation) {
                listeners.retain(|(id, _)| *id != self.me);
                if listeners.is_empty() {
                    slot.listeners.remove(conversation);
                }
            }
            sink(Inbound::Unsubscribed(conversation.clone()));
        }
        Ok(())
    }

    async fn announce(&self, audience: &Audience, announcement: Bytes) -> Result<u64, BrokerError> {
        let sinks = self.memory.sinks(audience);
        for sink in &sinks {
            sink(Inbound::Announcement(announcement.clone()));
        }
        Ok(sinks.len() as u64)
    }

    async fn close(&self) {
        self.detach();
    }
}
