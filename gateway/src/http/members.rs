//! Who is in a conversation.

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use shared::domain::UserId;
use utoipa::ToSchema;

use super::{
    Routes,
    access::Caller,
    extract::{Json, Params, json},
    problem::{Problem, Problems},
    schema::{ConversationIdText, MemberView, UserIdText, conversation_id},
};
use crate::{action, api_key::Scope};

/// The members of a conversation.
#[derive(Serialize, ToSchema)]
pub struct Members {
    members: Vec<MemberView>,
}

/// List the members.
///
/// For members, and API keys with the scope `conversations`.
#[utoipa::path(
    get, path = "/v1/conversations/{id}/members", operation_id = "list_members", tag = "Members",
    params(("id" = ConversationIdText, Path, description = "The conversation")),
    responses((status = 200, description = "The members", body = Members), Problems),
)]
pub async fn list(
    State(routes): State<Routes>,
    caller: Caller,
    Params(id): Params<String>,
) -> Result<Response, Problem> {
    let actor = caller.actor(Scope::Conversations)?;
    let found = action::members(&routes.lines.node, &actor, &conversation_id(&id)?).await?;
    Ok(json(&Members { members: found.into_iter().map(MemberView::from).collect() }))
}

/// Whom to add.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddMembers {
    #[schema(value_type = Vec<UserIdText>, min_items = 1, max_items = 1000)]
    members: Vec<UserId>,
}

/// Add members to a group.
///
/// All of them or none; who is a member already stays as it is. For the owner, and API keys with the scope
/// `conversations`.
#[utoipa::path(
    post, path = "/v1/conversations/{id}/members", operation_id = "add_members", tag = "Members",
    params(("id" = ConversationIdText, Path, description = "The group")),
    request_body = AddMembers,
    responses((status = 204, description = "They are members"), Problems),
)]
pub async fn add(
    State(routes): State<Routes>,
    caller: Caller,
    Params(id): Params<String>,
    Json(AddMembers { members }): Json<AddMembers>,
) -> Result<Response, Problem> {
    let actor = caller.actor(Scope::Conversations)?;
    if members.is_empty() {
        return Err(Problem::invalid("there is nobody to add"));
    }
    action::add_members(&routes.lines.node, &actor, &conversation_id(&id)?, &members).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Remove a member from a group.
///
/// Its subscriptions end within seconds, on every node. Members may remove themselves; the owner, and API keys with the
/// scope `conversations`, may remove anyone. Removing one who is no member is no error.
#[utoipa::path(
    delete, path = "/v1/conversations/{id}/members/{user}", operation_id = "remove_member", tag = "Members",
    params(
        ("id" = ConversationIdText, Path, description = "The group"),
        ("user" = UserIdText, Path, description = "The member"),
    ),
    responses((status = 204, description = "It is no member any more"), Problems),
)]
pub async fn remove(
    State(routes): State<Routes>,
    caller: Caller,
    Params((id, user)): Params<(String, String)>,
) -> Result<Response, Problem> {
    let actor = caller.actor(Scope::Conversations)?;
    let id = conversation_id(&id)?;
    let user = UserId::parse(&user).map_err(|error| Problem::invalid(error.to_string()))?;
    action::remove_member(&routes.lines.node, &actor, &id, &user).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
