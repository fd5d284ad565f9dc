//! Makes conversations.

use shared::{
    clock,
    domain::{ConversationId, Refusal, UserId},
    store::{Conversation, Role},
};

use super::{Actor, ConversationNews, MembersChanged, Node, members::announce, tell};

/// Most members of a conversation.
pub const MEMBERS_MAX: usize = 1_000;
/// Longest name of a conversation, in bytes.
pub const NAME_BYTES_MAX: usize = 200;

/// What kind of conversation can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewKind {
    /// Two users; there is only one of them for each pair.
    Direct,
    /// Any number of users.
    Group,
}

/// A conversation that somebody wants to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewConversation {
    /// What kind.
    pub kind: NewKind,
    /// What it is called.
    pub name: Option<String>,
    /// Who is in it beside the user who makes it.
    pub members: Vec<UserId>,
}

/// Makes a conversation; a user who makes a group owns it. A direct one that exists already is returned as it is, and
/// `false` with it.
///
/// # Errors
/// [`Refusal::Invalid`] when it makes no sense, [`Refusal::LimitExceeded`] when it has too many members,
/// [`Refusal::Forbidden`] when the id is taken by others, [`Refusal::Unavailable`] when the store does not answer.
pub async fn create_conversation(
    node: &Node,
    actor: &Actor,
    wanted: NewConversation,
) -> Result<(Conversation, bool), Refusal> {
    let is_name = |name: &String| !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.contains('\0');
    if !wanted.name.as_ref().is_none_or(is_name) {
        return Err(Refusal::Invalid);
    }
    let conversation = plan(actor, wanted)?;
    let unavailable = |error| {
        tracing::warn!(%error, "a conversation cannot be made");
        Refusal::Unavailable
    };
    if !node.store.create_conversation(&conversation).await.map_err(unavailable)? {
        let existing = node.store.conversation(&conversation.id).await.map_err(unavailable)?;
        let existing = existing.ok_or(Refusal::Unavailable)?;
        // Two pairs of users may share an id: `a`, `b_c` and `a_b`, `c`.
        let is_same = conversation.members.iter().all(|member| existing.members.contains(member));
        return if is_same { Ok((existing, false)) } else { Err(Refusal::Forbidden) };
    }
    announce(node, MembersChanged { conversation: conversation.id.clone(), version: 1 }).await;
    let news = ConversationNews {
        kind: Some(&conversation.kind),
        name: conversation.name.as_deref(),
        ..ConversationNews::new("created", &conversation.id, actor)
    };
    tell(node, conversation.members.iter().map(|(user, _)| user), &news).await;
    Ok((conversation, true))
}

fn plan(actor: &Actor, wanted: NewConversation) -> Result<Conversation, Refusal> {
    let NewConversation { kind, name, mut members } = wanted;
    let maker = match actor {
        Actor::User(who) => Some(&who.user),
        Actor::Server => None,
    };
    members.extend(maker.cloned());
    members.sort();
    members.dedup();
    if members.len() > MEMBERS_MAX {
        return Err(Refusal::LimitExceeded);
    }
    let (id, kind, owner) = match (kind, members.as_slice()) {
        (NewKind::Group, _) => (ConversationId::parse(&uuid::Uuid::now_v7().to_string()), "group", maker),
        (NewKind::Direct, [one, other]) => (ConversationId::direct(one, other), "direct", None),
        (NewKind::Direct, _) => return Err(Refusal::Invalid),
    };
    let role = |user: &UserId| if owner == Some(user) { Role::Owner } else { Role::Member };
    Ok(Conversation {
        id: id.map_err(|_| Refusal::Invalid)?,
        kind: kind.to_owned(),
        name,
        members: members.iter().map(|user| (user.clone(), role(user))).collect(),
        created_ms: clock::now_ms(),
    })
}
