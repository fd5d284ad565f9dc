//! Who is in a conversation as this node has it: tells of changes, and sends those away who are no members any more.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use shared::{
    auth::Identity,
    broker::Audience,
    domain::{ConversationId, ConversationKind, Refusal, UserId},
    store::StoreError,
};

use super::{MembersChanged, Node, converse::unavailable, users::may_follow};
use crate::announcement::Announcement;

/// How often the members who are here are compared with the store, in case an announcement was lost.
const CHECK: Duration = Duration::from_secs(3);
/// Most conversations that one question to the store is about.
const VERSIONS_MAX: usize = 512;

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
    for user in &change.gone {
        if let Err(error) = end_follows(node, &change.conversation, user).await {
            tracing::warn!(%user, %error, "who follows whom cannot be checked now");
        }
    }
}

/// Ends the following, on this node, of a user who has left by those who share no other conversation with that user, and
/// the other way round.
async fn end_follows(node: &Node, left: &ConversationId, user: &UserId) -> Result<(), Refusal> {
    for follower in node.feed.users(&ConversationId::presence(user)).await {
        end_follow(node, follower, user).await?;
    }
    if node.feed.users(&ConversationId::personal(user)).await.is_empty() {
        return Ok(());
    }
    let members = node.store.members(left).await.map_err(|error| unavailable(&error))?;
    for member in members {
        if node.feed.users(&ConversationId::presence(&member.user)).await.contains(user) {
            end_follow(node, user.clone(), &member.user).await?;
        }
    }
    Ok(())
}

async fn end_follow(node: &Node, follower: UserId, of: &UserId) -> Result<(), Refusal> {
    // Those whom a token lets follow are not expelled.
    if !may_follow(node, &Identity::from(follower.clone()), of).await? {
        expel(node, &ConversationId::presence(of), vec![follower]).await;
    }
    Ok(())
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
            node.memberships.changed(&MembersChanged::new(conversation.clone(), version));
            send_strangers_away(node, conversation).await?;
            compared.insert(conversation.clone(), version);
        }
    }
    Ok(())
}
