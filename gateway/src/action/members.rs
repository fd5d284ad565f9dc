//! Who is in a conversation as this node has it: tells of changes, and sends those away who are no members any more.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use shared::{
    broker::Audience,
    domain::{ConversationId, ConversationKind, UserId},
    store::StoreError,
};

use super::{MembersChanged, Node};
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
