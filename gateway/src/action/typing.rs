//! Types, or has stopped to.

use shared::{
    auth::Identity,
    domain::{ConnectionId, ConversationId, Permission, Refusal},
};

use super::{Node, authorize_to};

/// Tells the members that `who` types, or has stopped. Who does not say so again within
/// [`crate::typing::TYPING_SECONDS_MAX`], or leaves by `client`, has stopped.
///
/// # Errors
/// [`Refusal::RateLimited`]; [`Refusal::Forbidden`] for who may not send there.
pub async fn typing(
    node: &Node,
    who: &Identity,
    client: Option<ConnectionId>,
    conversation: &ConversationId,
    typing: bool,
) -> Result<(), Refusal> {
    node.limiter.typing_by(&who.user)?;
    authorize_to(node, who, conversation, Permission::Send).await?;
    if typing {
        node.typists.start(conversation, &who.user, client).await;
    } else {
        node.typists.stop(conversation, &who.user).await;
    }
    Ok(())
}
