//! Asks the broker for channels, in order and in batches.

use std::sync::Arc;

use shared::{broker::Broker, domain::ConversationId};
use tokio::sync::mpsc;

/// Most wishes that go into one call: what is published meanwhile arrives behind their confirmations.
const BATCH_MAX: usize = 128;

/// What a shard wants of one conversation's channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Receive what is published.
    Subscribe(ConversationId),
    /// No longer receive it.
    Unsubscribe(ConversationId),
}

/// Passes wishes on until their sender is gone. A failed call is not repeated here: the shard's reconciler compares
/// what it wants with what was confirmed, and asks again.
pub async fn run(broker: Arc<dyn Broker>, mut wishes: mpsc::UnboundedReceiver<Wish>) {
    let mut batch = Vec::new();
    while wishes.recv_many(&mut batch, BATCH_MAX).await > 0 {
        for run in batch.chunk_by(|a, b| is_subscribe(a) == is_subscribe(b)) {
            let conversations: Vec<ConversationId> = run.iter().map(conversation_of).cloned().collect();
            let done = if is_subscribe(&run[0]) {
                broker.subscribe(&conversations).await
            } else {
                broker.unsubscribe(&conversations).await
            };
            if let Err(error) = done {
                tracing::debug!(%error, count = conversations.len(), "subscriptions are not confirmed yet");
            }
        }
        batch.clear();
    }
}

fn is_subscribe(wish: &Wish) -> bool {
    matches!(wish, Wish::Subscribe(_))
}

fn conversation_of(wish: &Wish) -> &ConversationId {
    match wish {
        Wish::Subscribe(conversation) | Wish::Unsubscribe(conversation) => conversation,
    }
}
