//! What this node knows to be accepted and not stored: handed in when Redis may have lost it, and looked for in the store.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};

use crate::action::Node;

/// How often the store is asked what it has, for notices that were missed.
const CHECK: Duration = Duration::from_secs(5);
/// Most messages that one check looks for.
const LOOKUPS_MAX: usize = 2_000;
/// Partitions that are handed in at once.
const HANDING_IN_MAX: usize = 16;

/// Hands in everything of this node that is not stored yet.
pub async fn hand_in(node: Arc<Node>) {
    let partitions = node.pending.waiting();
    let handed_in = stream::iter(partitions).for_each_concurrent(HANDING_IN_MAX, |partition| {
        let node = Arc::clone(&node);
        async move {
            let messages = node.pending.salvage(partition);
            if let Err(error) = node.broker.hand_in(partition, &messages).await {
                // They stay with this node, which goes on looking for them in the store.
                tracing::error!(%error, partition = partition.0, "messages could not be handed in");
            }
        }
    });
    handed_in.await;
}

/// Finds out what was stored although its notice did not arrive.
pub async fn check_stored(node: Arc<Node>) {
    let mut tick = tokio::time::interval(CHECK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
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
        for (partition, id) in node.pending.handed_in(LOOKUPS_MAX) {
            match node.store.message(id).await {
                Ok(Some(_)) => node.pending.found(partition, id),
                Ok(None) => {}
                Err(_) => break,
            }
        }
    }
}
