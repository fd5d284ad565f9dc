//! What becomes of messages that were sent: edits, deletions, reactions.

use axum::{extract::State, response::Response};
use serde::Deserialize;
use serde_json::value::RawValue;
use shared::domain::{ChangeAction, ClientMessageId, SendChange, Seq};
use utoipa::ToSchema;

use super::{
    Routes,
    access::Caller,
    extract::{IdempotencyKey, Json, Params, json},
    problem::{Problem, Problems},
    schema::conversation_id,
};
use crate::{
    action,
    api_key::Scope,
    protocol::message_body,
    view::{ConversationIdText, SentView},
};

/// What a message says from now on.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBody {
    /// Any JSON, up to 32 KiB and 32 levels.
    #[schema(value_type = Value)]
    body: Box<RawValue>,
}

/// Edit a message of your own.
///
/// An entry of kind `edit` tells the members. The answer is the entry's place.
#[utoipa::path(
    patch, path = "/v1/conversations/{id}/messages/{seq}", operation_id = "edit", tag = "Messages",
    params(
        ("id" = ConversationIdText, Path, description = "The conversation"),
        ("seq" = u64, Path, description = "The message's place"),
    ),
    request_body = NewBody,
    responses((status = 200, description = "Accepted", body = SentView), Problems),
)]
pub async fn edit(
    State(routes): State<Routes>,
    caller: Caller,
    Params((id, seq)): Params<(String, u64)>,
    IdempotencyKey(key): IdempotencyKey,
    Json(NewBody { body }): Json<NewBody>,
) -> Result<Response, Problem> {
    let action = ChangeAction::Edit(message_body(&body)?);
    change(&routes, caller, (&id, seq), key, action).await
}

/// Delete a message.
///
/// Your own, or, for members who may, and API keys with the scope `publish`, anybody's. What it said is gone for good; an
/// entry of kind `delete` tells the members.
#[utoipa::path(
    delete, path = "/v1/conversations/{id}/messages/{seq}", operation_id = "delete", tag = "Messages",
    params(
        ("id" = ConversationIdText, Path, description = "The conversation"),
        ("seq" = u64, Path, description = "The message's place"),
    ),
    responses((status = 200, description = "Accepted", body = SentView), Problems),
)]
pub async fn delete(
    State(routes): State<Routes>,
    caller: Caller,
    Params((id, seq)): Params<(String, u64)>,
    IdempotencyKey(key): IdempotencyKey,
) -> Result<Response, Problem> {
    change(&routes, caller, (&id, seq), key, ChangeAction::Delete).await
}

/// React to a message.
///
/// With an emoji, or any other text of up to 64 bytes, percent-encoded. An entry of kind `reaction` tells the members.
#[utoipa::path(
    put, path = "/v1/conversations/{id}/messages/{seq}/reactions/{emoji}", operation_id = "react", tag = "Messages",
    params(
        ("id" = ConversationIdText, Path, description = "The conversation"),
        ("seq" = u64, Path, description = "The message's place"),
        ("emoji" = String, Path, description = "With what"),
    ),
    responses((status = 200, description = "Accepted", body = SentView), Problems),
)]
pub async fn react(
    State(routes): State<Routes>,
    caller: Caller,
    Params((id, seq, emoji)): Params<(String, u64, String)>,
    IdempotencyKey(key): IdempotencyKey,
) -> Result<Response, Problem> {
    change(&routes, caller, (&id, seq), key, ChangeAction::React { emoji, on: true }).await
}

/// Take a reaction back.
#[utoipa::path(
    delete, path = "/v1/conversations/{id}/messages/{seq}/reactions/{emoji}", operation_id = "unreact", tag = "Messages",
    params(
        ("id" = ConversationIdText, Path, description = "The conversation"),
        ("seq" = u64, Path, description = "The message's place"),
        ("emoji" = String, Path, description = "With what"),
    ),
    responses((status = 200, description = "Accepted", body = SentView), Problems),
)]
pub async fn unreact(
    State(routes): State<Routes>,
    caller: Caller,
    Params((id, seq, emoji)): Params<(String, u64, String)>,
    IdempotencyKey(key): IdempotencyKey,
) -> Result<Response, Problem> {
    change(&routes, caller, (&id, seq), key, ChangeAction::React { emoji, on: false }).await
}

async fn change(
    routes: &Routes,
    caller: Caller,
    (id, seq): (&str, u64),
    client_id: Option<ClientMessageId>,
    action: ChangeAction,
) -> Result<Response, Problem> {
    let actor = caller.actor(Scope::Publish)?;
    let conversation = conversation_id(id)?;
    let wanted = SendChange { conversation, target: Seq(seq), action, client_id, retry: false };
    let sent = action::change(&routes.lines.node, &actor, None, wanted).await?.settled().await?;
    Ok(json(&SentView::from(sent)))
}
