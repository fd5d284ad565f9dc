//! How far members have read, and received.

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use shared::domain::Seq;
use utoipa::ToSchema;

use super::{
    Routes,
    access::Caller,
    extract::{Json, Params, json},
    problem::{Problem, Problems},
    schema::conversation_id,
};
use crate::{
    action,
    api_key::Scope,
    view::{ConversationIdText, ReceiptView},
};

/// How far members have come.
#[derive(Serialize, ToSchema)]
pub struct Receipts {
    receipts: Vec<ReceiptView>,
}

/// See how far members have read.
///
/// The 100 who have read furthest. For members, and API keys with the scope `conversations`.
#[utoipa::path(
    get, path = "/v1/conversations/{id}/receipts", operation_id = "receipts", tag = "Messages",
    params(("id" = ConversationIdText, Path, description = "The conversation")),
    responses((status = 200, description = "The receipts", body = Receipts), Problems),
)]
pub async fn list(
    State(routes): State<Routes>,
    caller: Caller,
    Params(id): Params<String>,
) -> Result<Response, Problem> {
    let actor = caller.actor(Scope::Conversations)?;
    let found = action::receipts(&routes.lines.node, &actor, &conversation_id(&id)?).await?;
    Ok(json(&Receipts { receipts: found.into_iter().map(ReceiptView::from).collect() }))
}

/// Up to where.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpTo {
    /// The place of the last message.
    seq: u64,
}

/// Say that you have read.
///
/// Everything up to the place, on all your devices. It never goes back.
#[utoipa::path(
    put, path = "/v1/conversations/{id}/read", operation_id = "mark_read", tag = "Messages",
    params(("id" = ConversationIdText, Path, description = "The conversation")),
    request_body = UpTo,
    responses((status = 204, description = "Noted"), Problems),
)]
pub async fn read(
    State(routes): State<Routes>,
    caller: Caller,
    Params(id): Params<String>,
    Json(UpTo { seq }): Json<UpTo>,
) -> Result<Response, Problem> {
    mark(&routes, caller, &id, seq, true).await
}

/// Say that you have received.
///
/// Everything up to the place, on one of your devices at least. It never goes back.
#[utoipa::path(
    put, path = "/v1/conversations/{id}/delivered", operation_id = "mark_delivered", tag = "Messages",
    params(("id" = ConversationIdText, Path, description = "The conversation")),
    request_body = UpTo,
    responses((status = 204, description = "Noted"), Problems),
)]
pub async fn delivered(
    State(routes): State<Routes>,
    caller: Caller,
    Params(id): Params<String>,
    Json(UpTo { seq }): Json<UpTo>,
) -> Result<Response, Problem> {
    mark(&routes, caller, &id, seq, false).await
}

async fn mark(routes: &Routes, caller: Caller, id: &str, seq: u64, read: bool) -> Result<Response, Problem> {
    let who = caller.identity()?;
    action::mark(&routes.lines.node, &who, &conversation_id(id)?, Seq(seq), read).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
