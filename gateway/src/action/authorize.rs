//! Who may be in a conversation. Every operation asks, every time.

use shared::{
    auth::Identity,
    domain::{ConversationId, ConversationKind, Refusal, UserId},
};

use super::{Node, users::may_follow};

/// On whose behalf something is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// A user, who may do what members may.
    User(Identity),
    /// The application's server, whose key was checked: it is asked for no membership.
    Server,
}

/// Whether `who` takes part in the conversation: as a member, or because the token says so.
///
/// # Errors
/// [`Refusal::Forbidden`] for a stranger, whether the conversation exists or not; [`Refusal::Unavailable`] when the
/// store has to be asked and does not answer.
pub async fn authorize(node: &Node, who: &Identity, conversation: &ConversationId) -> Result<(), Refusal> {
    if who.grants.allow(conversation) {
        return Ok(());
    }
    let user = &who.user;
    let is_member = match conversation.kind() {
        ConversationKind::Personal(owner) => owner == user.as_str(),
        ConversationKind::Role(name) => who.roles.iter().any(|role| role.as_str() == name),
        ConversationKind::Presence(of) => match UserId::parse(of) {
            Ok(of) => may_follow(node, who, &of).await?,
            Err(_) => false,
        },
        ConversationKind::Direct(pair) => [pair.smaller, pair.larger].contains(&user.as_str()),
        ConversationKind::Stored => {
            let role = node.memberships.role(&*node.store, conversation, user).await;
            role.map_err(|error| {
                tracing::warn!(%error, "membership cannot be read");
                Refusal::Unavailable
            })?
            .is_some()
        }
    };
    if is_member { Ok(()) } else { Err(Refusal::Forbidden) }
}
