//! Makes conversations, and lists them.

use std::collections::BTreeMap;

use shared::{
    clock,
    domain::{
        ConversationId, ConversationKind, ConversationSummary, KIND_DIRECT, KIND_GROUP, ListCursor,
        NewConversation, Refusal, Role, UserId,
    },
    store::{Conversation, StoreError},
};

use super::{Actor, ConversationNews, MembersChanged, Node, authorize, members::announce, tell, tell_role};

/// Most members of a conversation.
pub const MEMBERS_MAX: usize = 1_000;
/// Longest name of a conversation, in bytes.
pub const NAME_BYTES_MAX: usize = 200;
/// Most conversations in one page of a list.
pub const LIST_CONVERSATIONS_MAX: u32 = 200;

/// Makes a conversation; the user who makes it becomes what its kind says, the owner as a rule. Everyone in it is told in
/// the personal room, and so is everyone of the role that the kind names. A direct one that exists already is returned
/// as it is, and `false` with it.
///
/// # Errors
/// [`Refusal::Invalid`] when it makes no sense, [`Refusal::LimitExceeded`] when it has too many members,
/// [`Refusal::Forbidden`] when the id is taken by others, [`Refusal::Unavailable`] when the store does not answer.
pub async fn create_conversation(
    node: &Node,
    actor: &Actor,
    wanted: NewConversation,
) -> Result<(Conversation, bool), Refusal> {
    if let Actor::User(who) = actor {
        // Each member is told by a message.
        node.limiter.publish_many_by(&who.user, wanted.members.len().clamp(1, MEMBERS_MAX)).await?;
    }
    check_name(wanted.name.as_deref())?;
    let conversation = plan(node, actor, wanted)?;
    if !node.store.create_conversation(&conversation).await.map_err(|error| unavailable(&error))? {
        let existing =
            node.store.conversation(&conversation.id).await.map_err(|error| unavailable(&error))?;
        let existing = existing.ok_or(Refusal::Unavailable)?;
        // Two pairs of users may share an id: `a`, `b_c` and `a_b`, `c`.
        let is_same = conversation.members.iter().all(|member| existing.members.contains(member));
        return if is_same { Ok((existing, false)) } else { Err(Refusal::Forbidden) };
    }
    announce(node, MembersChanged::new(conversation.id.clone(), 1)).await;
    let news = ConversationNews {
        kind: Some(&conversation.kind),
        name: conversation.name.as_deref(),
        ..ConversationNews::new("created", &conversation.id, actor)
    };
    if let Some(role) = &node.kinds.get(&conversation.kind).notify_role {
        tell_role(node, role, &news).await;
    }
    let mut by_role: BTreeMap<&Role, Vec<&UserId>> = BTreeMap::new();
    for (user, role) in &conversation.members {
        by_role.entry(role).or_default().push(user);
    }
    for (role, users) in by_role {
        tell(node, users, &ConversationNews { role: Some(role.as_str()), ..news.clone() }).await;
    }
    Ok((conversation, true))
}

pub(super) fn check_name(name: Option<&str>) -> Result<(), Refusal> {
    let is_name = |name: &str| !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.contains('\0');
    if name.is_none_or(is_name) { Ok(()) } else { Err(Refusal::Invalid) }
}

fn plan(node: &Node, actor: &Actor, wanted: NewConversation) -> Result<Conversation, Refusal> {
    let NewConversation { kind: kind_name, name, members: others } = wanted;
    let kind = node.kinds.find(&kind_name).ok_or(Refusal::Invalid)?;
    let is_direct = kind_name == KIND_DIRECT;
    let mut members: BTreeMap<UserId, Role> = BTreeMap::new();
    for (user, role) in others {
        let role = match role {
            Some(_) if is_direct => return Err(Refusal::Invalid),
            Some(role) if kind.roles.contains_key(&role) => role,
            Some(_) => return Err(Refusal::Invalid),
            None if is_direct => Role::MEMBER,
            None => kind.member_role.clone(),
        };
        members.insert(user, role);
    }
    if let Actor::User(who) = actor {
        let role = if is_direct { Role::MEMBER } else { kind.maker_role.clone() };
        members.insert(who.user.clone(), role);
    }
    if members.len() > MEMBERS_MAX {
        return Err(Refusal::LimitExceeded);
    }
    let members: Vec<(UserId, Role)> = members.into_iter().collect();
    let id = match (is_direct, members.as_slice()) {
        (false, _) => ConversationId::parse(&uuid::Uuid::now_v7().to_string()),
        (true, [(one, _), (other, _)]) => ConversationId::direct(one, other),
        (true, _) => return Err(Refusal::Invalid),
    };
    let id = id.map_err(|_| Refusal::Invalid)?;
    Ok(Conversation { id, kind: kind_name, name, members, created_ms: clock::now_ms() })
}

/// Lists the conversations that a user is a member of, newest activity first, after `after`; and the place after which
/// the next page begins. A direct conversation is among them once something was said in it, or somebody has made it.
///
/// # Errors
/// [`Refusal::Unavailable`] when the store does not answer.
pub async fn conversations(
    node: &Node,
    user: &UserId,
    after: Option<&ListCursor>,
    limit: u32,
) -> Result<(Vec<ConversationSummary>, Option<ListCursor>), Refusal> {
    let limit = limit.clamp(1, LIST_CONVERSATIONS_MAX);
    let found = node.store.conversations_of(user, after, limit).await.map_err(|error| unavailable(&error))?;
    let is_full = u32::try_from(found.len()).is_ok_and(|count| count == limit);
    let next = found.last().filter(|_| is_full);
    let next = next.map(|last| ListCursor { active_ms: last.active_ms, id: last.id.clone() });
    Ok((found, next))
}

/// Shows one conversation as the list does. A direct one in which nothing was said yet is shown without rows, too.
///
/// # Errors
/// [`Refusal::Forbidden`] for a stranger, [`Refusal::Invalid`] for a room that is in no list, [`Refusal::Unavailable`]
/// when the store does not answer.
pub async fn conversation(
    node: &Node,
    actor: &Actor,
    id: &ConversationId,
) -> Result<ConversationSummary, Refusal> {
    let Actor::User(who) = actor else { return of_server(node, id).await };
    authorize(node, who, id).await?;
    let found = node.store.summary(id, &who.user).await.map_err(|error| unavailable(&error))?;
    if let Some(found) = found {
        return Ok(found);
    }
    match id.kind() {
        ConversationKind::Direct(pair) => {
            let mut others = [pair.smaller, pair.larger].map(UserId::parse).into_iter().flatten();
            let other = others.find(|user| *user != who.user);
            Ok(ConversationSummary { members_count: 2, ..bare(id, KIND_DIRECT, other.into_iter().collect()) })
        }
        // The token lets the user in, which is no member.
        ConversationKind::Stored => match of_server(node, id).await {
            Err(Refusal::NotFound) => Ok(bare(id, KIND_GROUP, Vec::new())),
            other => other,
        },
        _ => Err(Refusal::Invalid),
    }
}

/// What is known of a conversation that has no rows.
fn bare(id: &ConversationId, kind: &str, others: Vec<UserId>) -> ConversationSummary {
    ConversationSummary {
        id: id.clone(),
        kind: kind.to_owned(),
        name: None,
        role: Role::MEMBER,
        muted_until_ms: None,
        created_ms: 0,
        active_ms: 0,
        top: shared::domain::Seq(0),
        read: shared::domain::Seq(0),
        unread: 0,
        members_count: 0,
        others,
        last: None,
    }
}

/// A conversation as nobody in particular sees it.
async fn of_server(node: &Node, id: &ConversationId) -> Result<ConversationSummary, Refusal> {
    let found = node.store.conversation(id).await.map_err(|error| unavailable(&error))?;
    let found = found.ok_or(Refusal::NotFound)?;
    let top = node.store.last_seq(id).await.map_err(|error| unavailable(&error))?;
    let others = found.members.iter().map(|(user, _)| user.clone());
    let others = others.take(shared::domain::SUMMARY_MEMBERS_MAX as usize).collect();
    Ok(ConversationSummary {
        name: found.name,
        role: Role::OBSERVER,
        created_ms: found.created_ms,
        active_ms: found.created_ms,
        top,
        members_count: u32::try_from(found.members.len()).unwrap_or(u32::MAX),
        ..bare(id, &found.kind, others)
    })
}

pub(super) fn unavailable(error: &StoreError) -> Refusal {
    tracing::warn!(%error, "conversations cannot be read or changed");
    Refusal::Unavailable
}
