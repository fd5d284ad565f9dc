//! Makes conversations.

use shared::{
    broker::Audience,
    clock,
    domain::{ConversationId, Refusal, UserId},
    store::{Conversation, Role},
};

use super::{MembersChanged, Node};
use crate::announcement::Announcement;

/// Most members that a conversation is made with.
pub const MEMBERS_MAX: usize = 1_000;
/// Longest name of a conversation, in bytes.
pub const NAME_BYTES_MAX: usize = 200;

/// A conversation that somebody wants to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewConversation {
    /// `group` or `direct`.
    pub kind: String,
    /// What it is called.
    pub name: Option<String>,
    /// Who is in it beside the one who makes it.
    pub members: Vec<UserId>,
}

/// Makes a conversation whose owner is `user`. A direct one that exists already is returned as it is.
///
/// # Errors
/// [`Refusal::Invalid`] when it makes no sense, [`Refusal::Unavailable`] when the store does not answer.
pub async fn create_conversation(
    node: &Node,
    user: &UserId,
    wanted: NewConversation,
) -> Result<Conversation, Refusal> {
    let mut members: Vec<UserId> = wanted.members;
    members.retain(|member| member != user);
    members.sort();
    members.dedup();
    let is_name = |name: &String| !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.contains('\0');
    if members.len() >= MEMBERS_MAX || !wanted.name.as_ref().is_none_or(is_name) {
        return Err(Refusal::Invalid);
    }
    let id = match (wanted.kind.as_str(), members.as_slice()) {
        ("group", _) => {
            ConversationId::parse(&uuid::Uuid::now_v7().to_string()).map_err(|_| Refusal::Invalid)?
        }
        ("direct", [other]) => ConversationId::direct(user, other).map_err(|_| Refusal::Invalid)?,
        _ => return Err(Refusal::Invalid),
    };
    let role = if wanted.kind == "direct" { Role::Member } else { Role::Owner };
    let others = members.into_iter().map(|member| (member, Role::Member));
    let conversation = Conversation {
        id,
        kind: wanted.kind,
        name: wanted.name,
        members: std::iter::once((user.clone(), role)).chain(others).collect(),
        created_ms: clock::now_ms(),
    };
    let unavailable = |error| {
        tracing::warn!(%error, "a conversation cannot be made");
        Refusal::Unavailable
    };
    if !node.store.create_conversation(&conversation).await.map_err(unavailable)? {
        let existing = node.store.conversation(&conversation.id).await.map_err(unavailable)?;
        return existing.ok_or(Refusal::Unavailable);
    }
    let change = MembersChanged { conversation: conversation.id.clone(), version: 1 };
    node.memberships.changed(&change);
    // Who does not hear it believes its older answer for a few seconds more.
    let _ = node.broker.announce(&Audience::Everyone, Announcement::MembersChanged(change).encode()).await;
    Ok(conversation)
}
