//! Users as such: who is online, who follows whom, from where somebody is connected, and sending somebody away.

use std::collections::HashSet;

use shared::{
    auth::Identity,
    broker::Audience,
    domain::{ConnectionId, ConnectionRecord, ConversationId, Disconnect, Online, Refusal, UserId},
};

use super::{Actor, Node};
use crate::{announcement::Announcement, heartbeat::Heartbeat, online::OnlineError};

/// Most users that one question is about.
pub const PRESENCE_USERS_MAX: usize = 200;
/// Most connections that one answer lists.
const CONNECTIONS_MAX: usize = 1_000;

/// Who of these users is online at this moment, and when the others were last seen. Those whom a user may not follow are
/// left out, whether they exist or not.
///
/// # Errors
/// [`Refusal::Invalid`] for more than [`PRESENCE_USERS_MAX`] users; [`Refusal::Unavailable`] when Redis or the store does
/// not answer.
pub async fn user_presence(node: &Node, actor: &Actor, users: &[UserId]) -> Result<Vec<Online>, Refusal> {
    if users.len() > PRESENCE_USERS_MAX {
        return Err(Refusal::Invalid);
    }
    let users = match actor {
        Actor::Server => users.to_vec(),
        Actor::User(who) => followed(node, who, users).await?,
    };
    node.online.states(&users).await.map_err(|error| unavailable(&error))
}

/// What those who follow a user were told last; `None` when nobody knows.
pub(super) async fn presence_snapshot(node: &Node, user: &UserId) -> Option<Online> {
    let told = node.online.told(user).await;
    told.inspect_err(|error| tracing::warn!(%error, "a follower cannot be told how things stand"))
        .ok()
        .flatten()
}

/// Whether `who` may know when `user` is online.
pub(super) async fn may_follow(node: &Node, who: &Identity, user: &UserId) -> Result<bool, Refusal> {
    Ok(!followed(node, who, std::slice::from_ref(user)).await?.is_empty())
}

/// Those of the users whom `who` may follow: oneself, who shares a conversation, and whom the token names.
async fn followed(node: &Node, who: &Identity, users: &[UserId]) -> Result<Vec<UserId>, Refusal> {
    let is_free = |user: &&UserId| **user == who.user || who.grants.allow(&ConversationId::presence(user));
    let mut may: HashSet<&UserId> = users.iter().filter(is_free).collect();
    let ask: Vec<UserId> = users.iter().filter(|user| !may.contains(user)).cloned().collect();
    let sharing = if ask.is_empty() {
        Vec::new()
    } else {
        node.store.sharing(&who.user, &ask).await.map_err(|error| {
            tracing::warn!(%error, "who shares a conversation cannot be read");
            Refusal::Unavailable
        })?
    };
    may.extend(&sharing);
    // A direct conversation that has just begun is not stored yet.
    let direct = |user: &UserId| Some((user.clone(), ConversationId::direct(&who.user, user).ok()?));
    let begun: Vec<(UserId, ConversationId)> =
        ask.iter().filter(|user| !may.contains(user)).filter_map(direct).collect();
    let ids: Vec<ConversationId> = begun.iter().map(|(_, id)| id.clone()).collect();
    if !ids.is_empty() {
        let positions = node.broker.positions(&ids).await.map_err(|error| {
            tracing::warn!(%error, "positions cannot be read");
            Refusal::Unavailable
        })?;
        let is_said = positions.iter().map(|seq| seq.is_some_and(|seq| seq.0 > 0));
        may.extend(begun.iter().zip(is_said).filter(|(_, said)| *said).map(|((user, _), _)| user));
    }
    Ok(users.iter().filter(|user| may.contains(user)).cloned().collect())
}

/// The connections of a user, newest first; of oneself, or of anybody for the server.
///
/// # Errors
/// [`Refusal::Unavailable`] when Redis does not answer.
pub async fn connections(node: &Node, user: &UserId) -> Result<Vec<ConnectionRecord>, Refusal> {
    let found = node.online.connections(user, CONNECTIONS_MAX).await;
    found.map_err(|error| unavailable(&error.into()))
}

/// Whose connections are to end, and how.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SendAway {
    /// The user.
    pub user: UserId,
    /// This connection alone; all of them without it.
    pub client: Option<ConnectionId>,
    /// Whether the client may come back at once.
    pub reconnect: bool,
}

/// Ends connections of a user on every node. A token that is still valid lets the user in again: whoever must stay away
/// needs a revocation, too.
///
/// # Errors
/// [`Refusal::Unavailable`] when other nodes cannot be told; those of this node are ended all the same.
pub async fn disconnect(node: &Node, heartbeat: &Heartbeat, away: SendAway) -> Result<(), Refusal> {
    send_away(node, heartbeat, &away);
    let announcement = Announcement::SendAway(away).encode();
    let told = node.broker.announce(&Audience::Everyone, announcement).await;
    told.map(drop).map_err(|error| unavailable(&error.into()))
}

/// Ends those of the connections that are on this node.
pub fn send_away(node: &Node, heartbeat: &Heartbeat, away: &SendAway) {
    let reason = if away.reconnect { Disconnect::Reconnect } else { Disconnect::Removed };
    for client in heartbeat.clients() {
        let is_meant = client.info.user == away.user && away.client.is_none_or(|id| id == client.info.client);
        if is_meant && !client.outbox.is_closed() {
            node.metrics.disconnects.increment(1);
            client.close(reason);
        }
    }
}

fn unavailable(error: &OnlineError) -> Refusal {
    tracing::warn!(%error, "connections cannot be read");
    Refusal::Unavailable
}
