//! Publishing as everyone but the broker sees it: one call that ends in a place, a refusal, or an unknown outcome.
//!
//! May use: the ports broker and store. Deliberately absent: who may publish, and what is said.
//!
//! The broker alone cannot say where a partition's numbers continue after its data was lost, and the store alone is
//! too slow to number every message. This room lets them ask each other: see "The seq rule" in ARCHITECTURE.md.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Mutex, time::Instant};

use crate::{
    broker::{Accepted, Broker, BrokerError, LogPosition, Publication, Publish},
    domain::{ConversationId, Epoch, Message, Partition},
    record::Payload,
    store::{Store, StoreError},
};

/// How often one publish may be sent back to ask the store, before it is given up as unavailable.
const ROUNDS_MAX: usize = 16;
/// How long nodes get to hand in what may be lost, and the persister to commit what it has read before.
const SALVAGE_WINDOW: Duration = Duration::from_secs(2);

/// Why a message has no place.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The log is full: nothing happened.
    #[error("the log is full")]
    BacklogFull,
    /// The outcome is unknown; a retry with the same id is safe.
    #[error("unavailable: {0}")]
    Unavailable(String),
}

impl From<BrokerError> for PublishError {
    fn from(error: BrokerError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<StoreError> for PublishError {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// Publishes through a broker, and seeds its partitions from a store.
pub struct Publisher {
    broker: Arc<dyn Broker>,
    store: Arc<dyn Store>,
    /// When nodes were last called on to hand in.
    salvage: Mutex<Option<Instant>>,
    /// One seeding at a time for each partition in this process; the store keeps other processes out.
    seeding: Vec<Mutex<()>>,
}

impl Publisher {
    /// A publisher over these two.
    pub fn new(broker: Arc<dyn Broker>, store: Arc<dyn Store>) -> Self {
        let seeding = (0..broker.partitions()).map(|_| Mutex::new(())).collect();
        Self { broker, store, salvage: Mutex::default(), seeding }
    }

    /// Publishes a message. `retry` says that an earlier try may have succeeded longer ago than the broker remembers.
    ///
    /// # Errors
    /// [`PublishError::BacklogFull`] when nothing happened, [`PublishError::Unavailable`] when that is unknown.
    pub async fn publish(
        &self,
        conversation: &ConversationId,
        payload: Payload,
        retry: bool,
    ) -> Result<Accepted, PublishError> {
        let partition = Partition::of(conversation, self.broker.partitions());
        let conversation = conversation.clone();
        let mut publish = Publish { conversation, payload, seed: None, retry, checked: false };
        for _ in 0..ROUNDS_MAX {
            match self.broker.publish(&publish).await? {
                Publication::Accepted(accepted) => return Ok(accepted),
                Publication::BacklogFull => return Err(PublishError::BacklogFull),
                Publication::NeedsEpoch => {
                    self.seed(partition).await?;
                    // What the store said before the new epoch may be less than what was stored meanwhile.
                    publish.seed = None;
                    publish.checked = false;
                }
                Publication::NeedsSeed => {
                    publish.seed = Some(self.store.last_seq(&publish.conversation).await?);
                }
                Publication::NeedsCheck => match self.store.message(publish.payload.id).await? {
                    Some(stored) => return Ok(accepted_before(&stored)),
                    None => publish.checked = true,
                },
            }
        }
        Err(PublishError::Unavailable("the partition's epoch does not settle".to_owned()))
    }

    /// Opens the partition for the server run that the broker is attached to, unless another process has just done so.
    ///
    /// # Errors
    /// When the broker or the store does not answer; the partition then stays closed.
    pub async fn seed(&self, partition: Partition) -> Result<(), PublishError> {
        let _seeding = self.seeding[usize::from(partition.0)].lock().await;
        if self.broker.epoch(partition).await?.is_some() {
            return Ok(());
        }
        let claim = self.store.claim_epoch(partition).await?;
        // Another process may have opened the partition while this one waited for the claim; an unused epoch is no loss.
        if self.broker.epoch(partition).await?.is_some() {
            return Ok(());
        }
        tracing::info!(partition = partition.0, epoch = claim.epoch.0, "opening a partition");
        if claim.epoch > Epoch(0) {
            self.wait_for_salvage().await?;
            let restored = self.broker.restore(partition, claim.epoch).await?;
            if restored > 0 {
                tracing::warn!(
                    partition = partition.0,
                    restored,
                    "messages that Redis had lost are back in the log"
                );
            }
        }
        self.broker.seed(partition, claim.epoch).await?;
        drop(claim);
        Ok(())
    }
}

impl Publisher {
    /// Calls on all nodes to hand in what may be lost, and gives them time; once for all partitions that are opened meanwhile.
    async fn wait_for_salvage(&self) -> Result<(), PublishError> {
        let began = {
            let mut salvage = self.salvage.lock().await;
            match *salvage {
                Some(began) if began.elapsed() < SALVAGE_WINDOW => Some(began),
                _ if !self.broker.call_for_salvage().await? => None,
                _ => Some(*salvage.insert(Instant::now())),
            }
        };
        if let Some(began) = began {
            tokio::time::sleep_until(began + SALVAGE_WINDOW).await;
        }
        Ok(())
    }
}

/// The answer to a message that the store has already.
fn accepted_before(message: &Message) -> Accepted {
    let Message { seq, prev, time, .. } = *message;
    // The place in the log is gone, and with it everything that waits for it: the default position is before any other.
    Accepted { seq, prev, time, position: LogPosition::default(), duplicate: true }
}
