//! What application servers publish: to a user, to many, many at once.

use std::collections::BTreeSet;

use axum::{extract::State, response::Response};
use futures_util::{StreamExt, future::join_all, stream};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::domain::{ClientMessageId, ConversationId, IdError, Refusal, RoleName, Send, Sent, UserId};
use utoipa::ToSchema;

use super::{
    Routes,
    access::Caller,
    extract::{IdempotencyKey, Json, Params, json},
    messages::NewMessage,
    problem::{Problem, ProblemBody, Problems},
};
use crate::{
    action::{self, Acknowledgement, Node},
    api_key::Scope,
    view::{ClientIdText, ConversationIdText, KindText, RoleNameText, SentView, UserIdText},
};

/// Most messages of one batch, and most conversations of one broadcast.
const ITEMS_MAX: usize = 1_000;
/// How many conversations of a broadcast are published to at once.
const AT_ONCE: usize = 16;

/// Publish to a user.
///
/// Every connection of the user gets it, without a subscription. For API keys with the scope `publish`.
#[utoipa::path(
    post, path = "/v1/users/{user}/messages", operation_id = "publish_to_user", tag = "Server",
    params(
        ("user" = UserIdText, Path, description = "The user"),
        ("Idempotency-Key" = Option<ClientIdText>, Header, description = "Your own name for the message"),
    ),
    request_body = NewMessage,
    responses((status = 200, description = "Accepted", body = SentView), Problems),
)]
pub async fn to_user(
    State(routes): State<Routes>,
    caller: Caller,
    Params(user): Params<String>,
    IdempotencyKey(key): IdempotencyKey,
    Json(message): Json<NewMessage>,
) -> Result<Response, Problem> {
    let room = UserId::parse(&user).map(|user| ConversationId::personal(&user));
    publish(&routes, &caller, room, message, key).await
}

/// Publish to a role.
///
/// Every connection whose token gives the role gets it, without a subscription. For API keys with the scope `publish`.
#[utoipa::path(
    post, path = "/v1/roles/{role}/messages", operation_id = "publish_to_role", tag = "Server",
    params(
        ("role" = RoleNameText, Path, description = "The role"),
        ("Idempotency-Key" = Option<ClientIdText>, Header, description = "Your own name for the message"),
    ),
    request_body = NewMessage,
    responses((status = 200, description = "Accepted", body = SentView), Problems),
)]
pub async fn to_role(
    State(routes): State<Routes>,
    caller: Caller,
    Params(role): Params<String>,
    IdempotencyKey(key): IdempotencyKey,
    Json(message): Json<NewMessage>,
) -> Result<Response, Problem> {
    let room = RoleName::parse(&role).map(|role| ConversationId::role(&role));
    publish(&routes, &caller, room, message, key).await
}

async fn publish(
    routes: &Routes,
    caller: &Caller,
    room: Result<ConversationId, IdError>,
    message: NewMessage,
    key: Option<ClientMessageId>,
) -> Result<Response, Problem> {
    caller.server(Scope::Publish)?;
    let room = room.map_err(|error| Problem::invalid(error.to_string()))?;
    let sent = action::publish(&routes.lines.node, message.to(room, key)?).await?.settled().await?;
    Ok(json(&SentView::from(sent)))
}

/// Messages to publish, each to its own conversation or user.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    #[schema(min_items = 1, max_items = 1000)]
    messages: Vec<BatchItem>,
}

/// One message of a batch, for a conversation or for a user.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct BatchItem {
    /// Where to; or else `user`.
    #[schema(value_type = Option<ConversationIdText>)]
    conversation: Option<ConversationId>,
    /// To whom; or else `conversation`.
    #[schema(value_type = Option<UserIdText>)]
    user: Option<UserId>,
    /// Your own name for the message.
    #[schema(value_type = Option<ClientIdText>)]
    client_id: Option<ClientMessageId>,
    /// Any JSON, up to 32 KiB and 32 levels.
    #[schema(value_type = Value)]
    body: Box<RawValue>,
    /// What it is for; `text` unless given.
    #[schema(value_type = Option<KindText>)]
    kind: Option<String>,
    /// The place of the message that it answers.
    reply_to: Option<u64>,
    /// An earlier try with the same `client_id` may have succeeded long ago.
    #[serde(default)]
    retry: bool,
}

impl BatchItem {
    fn target(&self) -> Result<ConversationId, Problem> {
        match (&self.conversation, &self.user) {
            (Some(conversation), None) => Ok(conversation.clone()),
            (None, Some(user)) => Ok(ConversationId::personal(user)),
            _ => Err(Problem::invalid("each message has either a conversation or a user")),
        }
    }
}

/// What became of each message, in the order of the request.
#[derive(Serialize, ToSchema)]
pub struct Results {
    results: Vec<ItemResult>,
}

/// What became of one message: it has `sent`, or else `problem`.
#[derive(Serialize, ToSchema)]
struct ItemResult {
    #[schema(value_type = ConversationIdText)]
    conversation: ConversationId,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent: Option<SentView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<ProblemBody>,
}

impl ItemResult {
    fn new(conversation: ConversationId, outcome: Result<Sent, Problem>) -> Self {
        match outcome {
            Ok(sent) => Self { conversation, sent: Some(sent.into()), problem: None },
            Err(problem) => Self { conversation, sent: None, problem: Some(problem.body()) },
        }
    }
}

/// Publish many messages.
///
/// They are published in this order, and answered one by one: some may be accepted and others not. For API keys with the
/// scope `publish`.
#[utoipa::path(
    post, path = "/v1/publish", operation_id = "publish_many", tag = "Server", request_body = Batch,
    responses((status = 200, description = "What became of each", body = Results), Problems),
)]
pub async fn batch(
    State(routes): State<Routes>,
    caller: Caller,
    Json(Batch { messages }): Json<Batch>,
) -> Result<Response, Problem> {
    caller.server(Scope::Publish)?;
    check_count(messages.len())?;
    let targets = messages.iter().map(BatchItem::target).collect::<Result<Vec<_>, _>>()?;
    let mut accepted = Vec::with_capacity(messages.len());
    for (item, target) in messages.into_iter().zip(targets) {
        let message =
            NewMessage { body: item.body, kind: item.kind, reply_to: item.reply_to, retry: item.retry };
        let outcome = match message.to(target.clone(), item.client_id) {
            Ok(send) => action::publish(&routes.lines.node, send).await.map_err(Problem::from),
            Err(problem) => Err(problem),
        };
        accepted.push(finish(target, outcome));
    }
    Ok(json(&Results { results: join_all(accepted).await }))
}

/// One message for many.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Broadcast {
    #[serde(default)]
    #[schema(value_type = Vec<ConversationIdText>, max_items = 1000)]
    conversations: BTreeSet<ConversationId>,
    #[serde(default)]
    #[schema(value_type = Vec<UserIdText>, max_items = 1000)]
    users: BTreeSet<UserId>,
    /// Any JSON, up to 32 KiB and 32 levels.
    #[schema(value_type = Value)]
    body: Box<RawValue>,
    /// What it is for; `text` unless given.
    #[schema(value_type = Option<KindText>)]
    kind: Option<String>,
    /// An earlier try with the same `Idempotency-Key` may have succeeded long ago.
    #[serde(default)]
    retry: bool,
}

/// Publish one message to many.
///
/// With an `Idempotency-Key` it may be repeated as a whole: whoever has it already does not get it again. For API keys
/// with the scope `publish`.
#[utoipa::path(
    post, path = "/v1/broadcast", operation_id = "broadcast", tag = "Server",
    params(("Idempotency-Key" = Option<ClientIdText>, Header, description = "Your own name for the message")),
    request_body = Broadcast,
    responses((status = 200, description = "What became of each", body = Results), Problems),
)]
pub async fn broadcast(
    State(routes): State<Routes>,
    caller: Caller,
    IdempotencyKey(key): IdempotencyKey,
    Json(asked): Json<Broadcast>,
) -> Result<Response, Problem> {
    caller.server(Scope::Publish)?;
    check_count(asked.conversations.len() + asked.users.len())?;
    let message = NewMessage { body: asked.body, kind: asked.kind, reply_to: None, retry: asked.retry };
    let targets = asked.conversations.into_iter().chain(asked.users.iter().map(ConversationId::personal));
    let sends =
        targets.map(|target| message.to(target, key.clone())).collect::<Result<Vec<Send>, Problem>>()?;
    let node = &routes.lines.node;
    let accepted: Vec<_> =
        stream::iter(sends).map(|send| publish_one(node, send)).buffered(AT_ONCE).collect().await;
    let finished = accepted.into_iter().map(|(target, outcome)| finish(target, outcome));
    Ok(json(&Results { results: join_all(finished).await }))
}

async fn publish_one(node: &Node, send: Send) -> (ConversationId, Result<Acknowledgement, Problem>) {
    let target = send.conversation.clone();
    (target, action::publish(node, send).await.map_err(Problem::from))
}

async fn finish(target: ConversationId, outcome: Result<Acknowledgement, Problem>) -> ItemResult {
    let outcome = match outcome {
        Ok(acknowledgement) => acknowledgement.settled().await.map_err(Problem::from),
        Err(problem) => Err(problem),
    };
    ItemResult::new(target, outcome)
}

fn check_count(count: usize) -> Result<(), Problem> {
    match count {
        0 => Err(Problem::invalid("there is nothing to publish")),
        1..=ITEMS_MAX => Ok(()),
        _ => Err(Refusal::TooLarge.into()),
    }
}
