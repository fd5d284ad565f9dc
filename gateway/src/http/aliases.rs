//! Paths that existing apps use, each another spelling of one under `/v1`.

use axum::{
    Router,
    extract::State,
    response::Response,
    routing::{get, post, put},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use shared::domain::ConversationId;

use super::{
    Routes,
    access::Caller,
    conversations,
    extract::{IdempotencyKey, Json, json},
    messages::{NewMessage, accept},
    problem::Problem,
    receipts,
};
use crate::{api_key::Scope, view::SentView};

/// A message, with where it goes to.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddressedMessage {
    conversation: ConversationId,
    body: Box<RawValue>,
    kind: Option<String>,
    reply_to: Option<u64>,
    #[serde(default)]
    retry: bool,
}

/// The aliases.
pub fn router() -> Router<Routes> {
    Router::new()
        .route("/api/messages/send", post(send))
        .route("/api/messages/conversations", get(conversations::list))
        .route("/api/messages/conversations/{id}", get(conversations::show))
        .route("/api/messages/conversations/{id}/read", put(receipts::read))
}

async fn send(
    State(routes): State<Routes>,
    caller: Caller,
    IdempotencyKey(key): IdempotencyKey,
    Json(message): Json<AddressedMessage>,
) -> Result<Response, Problem> {
    let actor = caller.actor(Scope::Publish)?;
    let AddressedMessage { conversation, body, kind, reply_to, retry } = message;
    let send = NewMessage { body, kind, reply_to, retry }.to(conversation, key)?;
    let sent = accept(&routes.lines.node, &actor, send).await?.settled().await?;
    Ok(json(&SentView::from(sent)))
}
