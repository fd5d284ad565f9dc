//! What is published and kept nowhere. Those who tell something at the same moment tell it together: when thousands come back,
//! each of them is news to others, and none of that may stand in front of a message.

use std::sync::Arc;

use bytes::Bytes;

use super::{keys::Keys, route::Commands};
use crate::{broker::BrokerError, domain::ConversationId, gather::Gather};

/// How many go out together: while Redis publishes that many, others wait.
const TOGETHER_MAX: usize = 64;

/// A record, and on whose channel it is published.
type Signal = (ConversationId, Bytes);

/// Publishes what is kept nowhere.
pub(super) struct Signals(Arc<Gather<Signal, ()>>);

/// Where it is published.
struct Place {
    keys: Arc<Keys>,
    commands: Arc<Commands>,
}

impl Signals {
    pub fn new(keys: Arc<Keys>, commands: Arc<Commands>) -> Self {
        let place = Arc::new(Place { keys, commands });
        Self(Gather::new(&place, TOGETHER_MAX, |place, signals| async move { place.publish(&signals).await }))
    }

    pub async fn publish(&self, conversation: &ConversationId, record: Bytes) -> Result<(), BrokerError> {
        Ok(self.0.ask((conversation.clone(), record)).await?)
    }
}

impl Place {
    async fn publish(&self, signals: &[Signal]) -> Result<Vec<Option<()>>, BrokerError> {
        let told = self.commands.spread(
            signals,
            |(conversation, _)| self.keys.slot_of(conversation),
            |mut held, some| async move {
                let mut request = redis::pipe();
                for (conversation, record) in some {
                    request.cmd("SPUBLISH").arg(self.keys.channel(conversation)).arg(&record[..]);
                }
                request.query_async::<Vec<u64>>(&mut held.connection).await
            },
        );
        Ok(told.await.some()?.into_iter().map(|heard| heard.map(drop)).collect())
    }
}
