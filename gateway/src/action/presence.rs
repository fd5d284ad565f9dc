//! Who is in a conversation now.

use shared::{
    auth::Identity,
    broker::BrokerError,
    domain::{ClientInfo, ConversationId, Refusal},
    presence::PresenceStats,
};

use super::{Node, authorize};

/// Most connections that one answer lists.
const PRESENCE_CLIENTS_MAX: usize = 1_000;

/// Lists the connections in a conversation.
///
/// # Errors
/// When `who` may not, or Redis does not answer.
pub async fn presence(
    node: &Node,
    who: &Identity,
    conversation: &ConversationId,
) -> Result<Vec<ClientInfo>, Refusal> {
    authorize(node, who, conversation).await?;
    node.presence.list(conversation, PRESENCE_CLIENTS_MAX).await.map_err(unavailable)
}

/// Counts the connections in a conversation.
///
/// # Errors
/// When `who` may not, or Redis does not answer.
pub async fn presence_stats(
    node: &Node,
    who: &Identity,
    conversation: &ConversationId,
) -> Result<PresenceStats, Refusal> {
    authorize(node, who, conversation).await?;
    node.presence.stats(conversation).await.map_err(unavailable)
}

#[expect(clippy::needless_pass_by_value, reason = "map_err hands the error over")]
fn unavailable(error: BrokerError) -> Refusal {
    tracing::warn!(%error, "presence cannot be read");
    Refusal::Unavailable
}
