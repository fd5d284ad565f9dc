//! Tells users, in their personal rooms, what has become of their conversations.

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde::Serialize;
use shared::domain::{Body, ConversationId, MessageKind, RoleName, Send, UserId};

use super::{Actor, Node, send::record};

/// How many users are told at once.
const TELLS_AT_ONCE: usize = 16;

/// What has become of a conversation, for those whom it concerns.
#[derive(Debug, Clone, Serialize)]
pub struct ConversationNews<'a> {
    /// `created`, `added`, `removed`, `role`, or another word for what was done.
    pub action: &'a str,
    /// Which one.
    pub conversation: &'a str,
    /// `direct`, `group`, or a kind of the deployment's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'a str>,
    /// What it is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'a str>,
    /// What the user may do in it from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'a str>,
    /// Who did it; absent when the application's server did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<&'a str>,
}

impl<'a> ConversationNews<'a> {
    /// News without details.
    pub fn new(action: &'a str, conversation: &'a ConversationId, actor: &'a Actor) -> Self {
        let by = match actor {
            Actor::User(who) => Some(who.user.as_str()),
            Actor::Server => None,
        };
        Self { action, conversation: conversation.as_str(), kind: None, name: None, role: None, by }
    }
}

/// Tells each of the users. It is done already, so who cannot be told now finds it in the list of conversations.
pub async fn tell(node: &Node, users: impl IntoIterator<Item = &UserId>, news: &ConversationNews<'_>) {
    let rooms: Vec<ConversationId> = users.into_iter().map(ConversationId::personal).collect();
    tell_rooms(node, rooms, news).await;
}

/// Tells everybody whose token gives this role.
pub async fn tell_role(node: &Node, role: &RoleName, news: &ConversationNews<'_>) {
    tell_rooms(node, vec![ConversationId::role(role)], news).await;
}

async fn tell_rooms(node: &Node, rooms: Vec<ConversationId>, news: &ConversationNews<'_>) {
    let body: Bytes = serde_json::to_vec(news).expect("news are plain data").into();
    let tell = async |conversation: ConversationId| {
        let body = Body::from_json(body.clone());
        let kind = MessageKind::CONVERSATION;
        let send = Send { conversation, client_id: None, reply_to: None, kind, body, retry: false };
        if let Err(refusal) = record(node, send).await {
            tracing::warn!(%refusal, "a user could not be told of a conversation");
        }
    };
    stream::iter(rooms).for_each_concurrent(TELLS_AT_ONCE, tell).await;
}
