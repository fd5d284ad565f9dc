//! What members tell each other past the log: that they type, and signals.

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use shared::domain::{SendSignal, SignalName, UserId};
use utoipa::ToSchema;

use super::{
    Routes,
    access::Caller,
    extract::{Json, Params},
    problem::{Problem, Problems},
    schema::conversation_id,
};
use crate::{
    action::{self, Actor},
    api_key::Scope,
    protocol::message_body,
    view::{ConversationIdText, SignalNameText, UserIdText},
};

/// A signal.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSignal {
    /// What it is for.
    #[schema(value_type = SignalNameText)]
    name: SignalName,
    /// Any JSON, up to 32 KiB and 32 levels.
    #[schema(value_type = Option<Value>)]
    data: Option<Box<RawValue>>,
    /// The one member who is told, on all devices; everybody without it.
    #[schema(value_type = Option<UserIdText>)]
    to: Option<UserId>,
}

/// Tell members something past the log.
///
/// Whoever is connected gets it at most once, and it is kept nowhere: call offers and the like. For members, and API keys
/// with the scope `publish`, which may signal to any conversation and to personal rooms (`user:…`).
#[utoipa::path(
    post, path = "/v1/conversations/{id}/signals", operation_id = "signal", tag = "Messages",
    params(("id" = ConversationIdText, Path, description = "The conversation")), request_body = NewSignal,
    responses((status = 204, description = "It is told"), Problems),
)]
pub async fn signal(
    State(routes): State<Routes>,
    caller: Caller,
    Params(id): Params<String>,
    Json(NewSignal { name, data, to }): Json<NewSignal>,
) -> Result<Response, Problem> {
    let actor = caller.actor(Scope::Publish)?;
    let data = data.as_deref().map(message_body).transpose()?;
    let signal = SendSignal { conversation: conversation_id(&id)?, name, data, to };
    action::signal(&routes.lines.node, &actor, signal).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Whether somebody types.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TypingState {
    typing: bool,
}

/// Say that one types, or has stopped.
///
/// Say it again every 2 to 4 seconds; after 6 seconds without it the others are told that it has stopped. For members.
#[utoipa::path(
    put, path = "/v1/conversations/{id}/typing", operation_id = "typing", tag = "Messages",
    params(("id" = ConversationIdText, Path, description = "The conversation")), request_body = TypingState,
    responses((status = 204, description = "It is told"), Problems),
)]
pub async fn typing(
    State(routes): State<Routes>,
    caller: Caller,
    Params(id): Params<String>,
    Json(TypingState { typing }): Json<TypingState>,
) -> Result<Response, Problem> {
    let Actor::User(who) = caller.actor(Scope::Publish)? else {
        return Err(Problem::forbidden("this is for users, who have a token"));
    };
    action::typing(&routes.lines.node, &who, None, &conversation_id(&id)?, typing).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
