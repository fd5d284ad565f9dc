//! Messages of a conversation: read them back, send one.

use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::domain::{
    ClientMessageId, ConversationId, ConversationKind, Direction, HistoryPage, HistoryQuery, MessageKind,
    Position, Refusal, Send, Seq,
};
use utoipa::{IntoParams, ToSchema};

use super::{
    Routes,
    access::Caller,
    extract::{IdempotencyKey, Json, Params, Search, json},
    problem::{Problem, Problems},
    schema::conversation_id,
};
use crate::{
    action::{self, Acknowledgement, Actor, HISTORY_MESSAGES_MAX, Node},
    api_key::Scope,
    protocol::message_body,
    view::{ClientIdText, ConversationIdText, KindText, MessageView, SentView, message_views},
};

/// Messages on a page when the request names no limit.
const PAGE_MESSAGES_DEFAULT: u32 = 50;

/// Which page of a conversation.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Only messages after this place, oldest first. Not together with `before`.
    after: Option<u64>,
    /// Only messages before this place, newest first; from the end when neither is given.
    before: Option<u64>,
    /// How many at most; 50 unless given.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
}

/// One page of a conversation.
#[derive(Serialize, ToSchema)]
pub struct MessagePage {
    messages: Vec<MessageView>,
    /// Which installation's places these are.
    epoch: String,
    /// The place of the last message of the conversation.
    top: u64,
    /// Show it as `before` to read older messages; absent when there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    older: Option<u64>,
    /// Show it as `after` to read newer messages; absent when there are none now.
    #[serde(skip_serializing_if = "Option::is_none")]
    newer: Option<u64>,
}

/// Read messages back.
///
/// As they stand now: what they say after the last edit, and who has reacted. Edits, deletions and reactions are listed as
/// entries, too, and messages of kind `void`, which say nothing: the chain of `prev` has no hole. For members, and API keys
/// with the scope `history`.
#[utoipa::path(
    get, path = "/v1/conversations/{id}/messages", operation_id = "history", tag = "Messages",
    params(("id" = ConversationIdText, Path, description = "The conversation"), PageQuery),
    responses((status = 200, description = "A page", body = MessagePage), Problems),
)]
pub async fn read(
    State(routes): State<Routes>,
    caller: Caller,
    Params(id): Params<String>,
    Search(query): Search<PageQuery>,
) -> Result<Response, Problem> {
    let actor = caller.actor(Scope::History)?;
    let conversation = conversation_id(&id)?;
    let limit = query.limit.unwrap_or(PAGE_MESSAGES_DEFAULT);
    if limit == 0 || limit > HISTORY_MESSAGES_MAX {
        return Err(Problem::invalid(format!("limit must be 1 to {HISTORY_MESSAGES_MAX}")));
    }
    let (since, direction) = match (query.after, query.before) {
        (Some(_), Some(_)) => return Err(Problem::invalid("after and before do not go together")),
        (Some(after), None) => (Some(after), Direction::Forward),
        (None, before) => (before, Direction::Backward),
    };
    let since = since.map(|seq| Position { epoch: String::new(), seq: Seq(seq) });
    let asked = HistoryQuery { conversation, since, limit, direction };
    let HistoryPage { messages, states, epoch, top } = match &actor {
        Actor::User(who) => action::history(&routes.lines.node, who, &asked).await?,
        Actor::Server => action::read_history(&routes.lines.node, &asked).await?,
    };
    let oldest = messages.iter().min_by_key(|message| message.seq);
    let newest = messages.iter().map(|message| message.seq).max();
    Ok(json(&MessagePage {
        older: oldest.filter(|oldest| oldest.prev > Seq(0)).map(|oldest| oldest.seq.0),
        newer: newest.filter(|newest| *newest < top).map(|newest| newest.0),
        messages: message_views(&messages, &states)?,
        epoch,
        top: top.0,
    }))
}

/// What to send.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMessage {
    /// Any JSON, up to 32 KiB and 32 levels.
    #[schema(value_type = Value)]
    pub body: Box<RawValue>,
    /// What it is for; unless given `text`, or `notification` for a user or a role.
    #[schema(value_type = Option<KindText>)]
    pub kind: Option<String>,
    /// The place of the message that it answers.
    pub reply_to: Option<u64>,
    /// An earlier try with the same `Idempotency-Key` may have succeeded long ago: the store is asked, too.
    #[serde(default)]
    pub retry: bool,
}

impl NewMessage {
    /// The message as it is sent to a conversation.
    pub fn to(
        &self,
        conversation: ConversationId,
        client_id: Option<ClientMessageId>,
    ) -> Result<Send, Problem> {
        let kind = match &self.kind {
            None => default_kind(&conversation),
            Some(kind) => MessageKind::parse(kind)
                .filter(|kind| !kind.is_reserved())
                .ok_or_else(|| Problem::invalid("kind is not allowed"))?,
        };
        let body = message_body(&self.body)?;
        let reply_to = self.reply_to.map(Seq);
        Ok(Send { conversation, client_id, reply_to, kind, body, retry: self.retry })
    }
}

/// What a message is for that does not say it.
fn default_kind(conversation: &ConversationId) -> MessageKind {
    match conversation.kind() {
        ConversationKind::Personal(_) | ConversationKind::Role(_) => {
            MessageKind::parse("notification").expect("it is a kind")
        }
        _ => MessageKind::TEXT,
    }
}

/// Send a message.
///
/// Sending again with the same `Idempotency-Key` gets the first answer. After status 503 with the code `unavailable` the
/// outcome is unknown: send again with the same key. For members, and API keys with the scope `publish`, which may
/// publish to any conversation, with or without members in Starling.
#[utoipa::path(
    post, path = "/v1/conversations/{id}/messages", operation_id = "send", tag = "Messages",
    params(
        ("id" = ConversationIdText, Path, description = "The conversation"),
        ("Idempotency-Key" = Option<ClientIdText>, Header, description = "Your own name for the message"),
    ),
    request_body = NewMessage,
    responses((status = 200, description = "Accepted", body = SentView), Problems),
)]
pub async fn send(
    State(routes): State<Routes>,
    caller: Caller,
    Params(id): Params<String>,
    IdempotencyKey(key): IdempotencyKey,
    Json(message): Json<NewMessage>,
) -> Result<Response, Problem> {
    let actor = caller.actor(Scope::Publish)?;
    let conversation = conversation_id(&id)?;
    let send = message.to(conversation, key)?;
    let sent = accept(&routes.lines.node, &actor, send).await?.settled().await?;
    Ok(json(&SentView::from(sent)))
}

/// Hands a message in.
pub async fn accept(node: &Node, actor: &Actor, send: Send) -> Result<Acknowledgement, Refusal> {
    match actor {
        Actor::User(who) => action::send(node, who, None, send).await,
        Actor::Server => action::publish(node, send).await,
    }
}
