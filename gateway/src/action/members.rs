//! Who is in a conversation: reads it, changes it, and sends those away who are no members any more.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use shared::{
    broker::Audience,
    domain::{ConversationId, ConversationKind, Refusal, UserId},
    store::{Conversation, ConversationSummary, MembersChange, Role, StoreError},
};

use super::{Actor, ConversationNews, MembersChanged, Node, authorize, converse::MEMBERS_MAX, tell};
use crate::announcement::Announcement;

/// Most conversations in one page of a list.
pub const LIST_CONVERSATIONS_MAX: u32 = 200;
/// How often the members who are here are compared with the store, in case an announcement was lost.
const CHECK: Duration = Duration::from_secs(3);
/// Most conversations that one question to the store is about.
const VERSIONS_MAX: usize = 512;

/// Lists the members of a conversation.
///
/// # Errors
/// [`Refusal::Forbidden`] for a stranger, [`Refusal::NotFound`] for the server when there is no such conversation,
/// [`Refusal::Unavailable`] when the store does not answer.
pub async fn members(
    node: &Node,
    actor: &Actor,
    id: &ConversationId,
) -> Result<Vec<(UserId, Role)>, Refusal> {
    let named = match id.kind() {
        ConversationKind::Stored => return Ok(find(node, actor, id).await?.members),
        ConversationKind::Personal(owner) => vec![owner],
        ConversationKind::Role(_) | ConversationKind::Presence(_) => Vec::new(),
        ConversationKind::Direct(pair) => vec![pair.smaller, pair.larger],
    };
    if let Actor::User(who) = actor {
        authorize(node, who, id).await?;
    }
    let parsed = named.into_iter().map(|name| Ok((UserId::parse(name)?, Role::Member)));
    parsed.collect::<Result<_, shared::domain::IdError>>().map_err(|_| Refusal::NotFound)
}

/// Makes users members of a group, all or none. Those who are members already stay as they are.
///
/// # Errors
/// As [`members`]; also [`Refusal::Forbidden`] for a member who is not the owner, [`Refusal::Invalid`] when it is no
/// group, [`Refusal::LimitExceeded`] when it would have too many members.
pub async fn add_members(
    node: &Node,
    actor: &Actor,
    id: &ConversationId,
    users: &[UserId],
) -> Result<(), Refusal> {
    let group = find_group(node, actor, id).await?;
    if !may_manage(actor, &group) {
        return Err(Refusal::Forbidden);
    }
    let change = node.store.add_members(id, users, MEMBERS_MAX).await;
    if finish(node, id, change).await? {
        tell(node, users, &ConversationNews::new("added", id, actor)).await;
    }
    Ok(())
}

/// Ends a membership of a group, everywhere within seconds. Members may leave; the owner may remove others.
///
/// # Errors
/// As [`add_members`].
pub async fn remove_member(
    node: &Node,
    actor: &Actor,
    id: &ConversationId,
    user: &UserId,
) -> Result<(), Refusal> {
    let group = find_group(node, actor, id).await?;
    let leaves = matches!(actor, Actor::User(who) if who.user == *user);
    if !leaves && !may_manage(actor, &group) {
        return Err(Refusal::Forbidden);
    }
    let change = node.store.remove_member(id, user).await;
    if finish(node, id, change).await? {
        tell(node, [user], &ConversationNews::new("removed", id, actor)).await;
    }
    Ok(())
}

/// Lists the conversations that a user was made a member of, by id, above `after`. Direct conversations that nobody has
/// made are not in it: they need no row.
///
/// # Errors
/// [`Refusal::Unavailable`] when the store does not answer.
pub async fn conversations_of(
    node: &Node,
    user: &UserId,
    after: Option<&ConversationId>,
    limit: u32,
) -> Result<Vec<ConversationSummary>, Refusal> {
    let limit = limit.min(LIST_CONVERSATIONS_MAX);
    node.store.conversations_of(user, after, limit).await.map_err(|error| unavailable(&error))
}

fn may_manage(actor: &Actor, group: &Conversation) -> bool {
    match actor {
        Actor::Server => true,
        Actor::User(who) => {
            group.members.iter().any(|(user, role)| *user == who.user && *role == Role::Owner)
        }
    }
}

/// The conversation, if it has a row and `actor` may know.
async fn find(node: &Node, actor: &Actor, id: &ConversationId) -> Result<Conversation, Refusal> {
    let found = node.store.conversation(id).await.map_err(|error| unavailable(&error))?;
    match (actor, found) {
        (Actor::Server, found) => found.ok_or(Refusal::NotFound),
        (Actor::User(who), Some(found)) if found.members.iter().any(|(user, _)| *user == who.user) => {
            Ok(found)
        }
        (Actor::User(_), _) => Err(Refusal::Forbidden),
    }
}

async fn find_group(node: &Node, actor: &Actor, id: &ConversationId) -> Result<Conversation, Refusal> {
    if id.kind() != ConversationKind::Stored {
        if let Actor::User(who) = actor {
            authorize(node, who, id).await?;
        }
        return Err(Refusal::Invalid);
    }
    let found = find(node, actor, id).await?;
    if found.kind == "direct" { Err(Refusal::Invalid) } else { Ok(found) }
}

/// Whether anything has changed.
async fn finish(
    node: &Node,
    id: &ConversationId,
    change: Result<MembersChange, StoreError>,
) -> Result<bool, Refusal> {
    match change.map_err(|error| unavailable(&error))? {
        MembersChange::Done(version) => {
            announce(node, MembersChanged { conversation: id.clone(), version }).await;
            Ok(true)
        }
        MembersChange::Unneeded => Ok(false),
        MembersChange::Full => Err(Refusal::LimitExceeded),
    }
}

/// Makes a change known, here and everywhere.
pub(super) async fn announce(node: &Node, change: MembersChanged) {
    let announcement = Announcement::MembersChanged(change.clone()).encode();
    // Who does not hear it finds out by itself within seconds.
    let _ = node.broker.announce(&Audience::Everyone, announcement).await;
    members_changed(node, &change).await;
}

/// Forgets what was believed of a conversation's members, and sends away who is none any more.
pub async fn members_changed(node: &Node, change: &MembersChanged) {
    node.memberships.changed(change);
    if let Err(error) = send_strangers_away(node, &change.conversation).await {
        tracing::warn!(conversation = %change.conversation, %error, "members cannot be checked now");
    }
}

async fn send_strangers_away(node: &Node, conversation: &ConversationId) -> Result<(), StoreError> {
    let mut here = node.feed.users(conversation).await;
    if here.is_empty() {
        return Ok(());
    }
    let members: HashSet<UserId> = node.store.members_among(conversation, &here).await?.into_iter().collect();
    here.retain(|user| !members.contains(user));
    if !here.is_empty() {
        expel(node, conversation, here).await;
    }
    Ok(())
}

/// Ends the subscriptions of these users on this node.
pub(super) async fn expel(node: &Node, conversation: &ConversationId, users: Vec<UserId>) {
    for info in node.feed.expel(conversation, users).await {
        node.roster.leave(conversation, &info);
    }
}

/// Compares the members who are on this node with the store, for ever: announcements may be lost.
pub async fn watch_members(node: &Node) {
    // The version of each conversation that is here, when its members were last compared.
    let mut compared: HashMap<ConversationId, u64> = HashMap::new();
    let mut tick = tokio::time::interval(CHECK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let mut here = node.feed.conversations().await;
        here.retain(|conversation| conversation.kind() == ConversationKind::Stored);
        let still: HashSet<&ConversationId> = here.iter().collect();
        compared.retain(|conversation, _| still.contains(conversation));
        for chunk in here.chunks(VERSIONS_MAX) {
            if let Err(error) = compare(node, chunk, &mut compared).await {
                tracing::debug!(%error, "the versions of memberships cannot be read");
                break;
            }
        }
    }
}

async fn compare(
    node: &Node,
    conversations: &[ConversationId],
    compared: &mut HashMap<ConversationId, u64>,
) -> Result<(), StoreError> {
    let versions: HashMap<ConversationId, u64> =
        node.store.membership_versions(conversations).await?.into_iter().collect();
    for conversation in conversations {
        let version = versions.get(conversation).copied().unwrap_or_default();
        if compared.get(conversation) != Some(&version) {
            // First, so that whoever joins from now on is judged by what is true now.
            node.memberships.changed(&MembersChanged { conversation: conversation.clone(), version });
            send_strangers_away(node, conversation).await?;
            compared.insert(conversation.clone(), version);
        }
    }
    Ok(())
}

fn unavailable(error: &StoreError) -> Refusal {
    tracing::warn!(%error, "members cannot be read or changed");
    Refusal::Unavailable
}
