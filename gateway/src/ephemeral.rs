//! Tells the members of a conversation, on all nodes, what is kept nowhere.
//!
//! May use: domain, record, the port broker. Deliberately absent: who may, and a second try: what is not told now is old.

use std::sync::Arc;

use shared::{
    broker::{Broker, BrokerError},
    domain::{ConversationId, Event},
    record::encode_ephemeral,
};

use crate::metrics::Metrics;

/// The way out for events that are kept nowhere.
pub struct Ephemeral {
    broker: Arc<dyn Broker>,
    metrics: Arc<Metrics>,
}

impl Ephemeral {
    /// Over this broker.
    pub fn new(broker: Arc<dyn Broker>, metrics: Arc<Metrics>) -> Self {
        Self { broker, metrics }
    }

    /// Tells, at most once. Whoever must know whether it was told uses [`Ephemeral::try_tell`].
    pub async fn tell(&self, conversation: &ConversationId, event: &Event) {
        if let Err(error) = self.try_tell(conversation, event).await {
            tracing::debug!(%conversation, %error, "an event was not told");
        }
    }

    /// Tells, at most once.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn try_tell(&self, conversation: &ConversationId, event: &Event) -> Result<(), BrokerError> {
        let Some(record) = encode_ephemeral(event) else { return Ok(()) };
        let told = self.broker.signal(conversation, record).await;
        match told {
            Ok(()) => self.metrics.events.increment(1),
            Err(_) => self.drop_one(),
        }
        told
    }

    /// Counts one that is not told.
    pub fn drop_one(&self) {
        self.metrics.events_dropped.increment(1);
    }
}
