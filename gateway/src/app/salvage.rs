//! What this node knows to be accepted and not stored: handed in when Redis may have lost it, and looked for in the store.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use shared::{
    domain::{Message, MessageId},
    record::Payload,
};
use tokio::time::Instant;

use crate::{action::Node, pending::Adrift};

/// How often the store is asked what it has, for notices that were missed.
const CHECK: Duration = Duration::from_secs(5);
/// Most messages that one check looks for.
const LOOKUPS_MAX: usize = 2_000;
/// Partitions that are handed in at once.
const HANDING_IN_MAX: usize = 16;

/// Pause before everything is handed in once more: what Redis accepted just before it lost its data may not have been
/// answered yet. Half of the time that handing in may take.
const AGAIN: Duration = Duration::from_secs(1);
/// How long the store must go on saying that it has no such message before it counts as lost. Whatever was handed in in
/// time, or is in the log after all, is there long before; while the store does not answer, nothing can be said.
const LOST_AFTER: Duration = Duration::from_secs(10);

/// Hands in everything of this node that is not stored yet and belongs to closed partitions, twice.
pub async fn hand_in(node: Arc<Node>) {
    hand_in_once(&node).await;
    tokio::time::sleep(AGAIN).await;
    hand_in_once(&node).await;
}

async fn hand_in_once(node: &Node) {
    let handed_in = stream::iter(node.pending.waiting());
    let handed_in = handed_in.for_each_concurrent(HANDING_IN_MAX, async |partition| {
        // An open partition has lost nothing, or is past being restored.
        if !matches!(node.broker.epoch(partition).await, Ok(None)) {
            return;
        }
        let messages = node.pending.salvage(partition);
        if let Err(error) = node.broker.hand_in(partition, &messages).await {
            // They stay with this node, which goes on looking for them in the store.
            tracing::error!(%error, partition = partition.0, "messages could not be handed in");
        }
    });
    handed_in.await;
}

/// Finds out what was stored although its notice did not arrive, and publishes again what is lost.
pub async fn check_stored(node: Arc<Node>) {
    let mut tick = tokio::time::interval(CHECK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut missing = HashMap::new();
    loop {
        tick.tick().await;
        if node.pending.waiting().is_empty() {
            continue;
        }
        match node.store.cursors().await {
            Ok(cursors) => {
                for (partition, upto) in cursors {
                    node.pending.stored(partition, upto);
                }
            }
            Err(error) => tracing::debug!(%error, "cursors cannot be read"),
        }
        missing = look_for_adrift(&node, &missing).await;
    }
}

/// Asks the store for the messages that are adrift. Takes and returns since when it says that it has not got them.
async fn look_for_adrift(node: &Node, before: &HashMap<MessageId, Instant>) -> HashMap<MessageId, Instant> {
    let mut missing = HashMap::new();
    for adrift in node.pending.adrift(LOOKUPS_MAX) {
        let id = adrift.message.id;
        match node.store.message(id).await {
            Ok(Some(_)) => node.pending.found(adrift.partition, id),
            Ok(None) => {
                let since = before.get(&id).copied().unwrap_or_else(Instant::now);
                missing.insert(id, since);
                if since.elapsed() > LOST_AFTER {
                    publish_again(node, adrift).await;
                }
            }
            Err(_) => break,
        }
    }
    missing
}

/// Gives a message that was accepted and lost a new place. If it waits in the log after all, the broker remembers it by its
/// name, and one without a name is stored once.
async fn publish_again(node: &Node, Adrift { partition, message, .. }: Adrift) {
    let payload = Payload::from(&message);
    let Message { id, conversation, seq, .. } = message;
    match node.publisher.publish(&conversation, payload, false).await {
        Ok(accepted) => {
            tracing::warn!(%conversation, %seq, again = %accepted.seq, "an accepted message was lost: published again");
            node.pending.published_again(partition, &accepted, id);
        }
        Err(error) => tracing::debug!(%error, "a lost message cannot be published again yet"),
    }
}
