//! Who is in a conversation, and what they are there.

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use shared::domain::{Manage, Role, UserId};
use utoipa::ToSchema;

use super::{
    Routes,
    access::Caller,
    conversations::role,
    extract::{Json, Params, json},
    problem::{Problem, Problems},
    schema::{conversation_id, user_id},
};
use crate::{
    action,
    api_key::Scope,
    view::{ConversationIdText, MemberView, RoleText, UserIdText},
};

/// The members of a conversation.
#[derive(Serialize, ToSchema)]
pub struct Members {
    members: Vec<MemberView>,
}

/// List the members.
///
/// For members, and API keys with the scope `conversations`.
#[utoipa::path(
    get, path = "/v1/conversations/{id}/members", operation_id = "members", tag = "Members",
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
    /// What they become; what the kind says unless given, `member` as a rule.
    #[serde(default)]
    #[schema(value_type = Option<RoleText>)]
    role: Option<String>,
}

/// Add members to a conversation.
///
/// All of them or none; who is a member already stays as it is, and who is banned is not added. For members who may, and
/// API keys with the scope `conversations`.
#[utoipa::path(
    post, path = "/v1/conversations/{id}/members", operation_id = "add_members", tag = "Members",
    params(("id" = ConversationIdText, Path, description = "The conversation")),
    request_body = AddMembers,
    responses((status = 204, description = "They are members"), Problems),
)]
pub async fn add(
    State(routes): State<Routes>,
    caller: Caller,
    Params(id): Params<String>,
    Json(AddMembers { members, role }): Json<AddMembers>,
) -> Result<Response, Problem> {
    if members.is_empty() {
        return Err(Problem::invalid("there is nobody to add"));
    }
    let named = |text: String| Role::parse(&text).ok_or_else(|| Problem::invalid("this is no role"));
    let role = role.map(named).transpose()?;
    manage(&routes, caller, &id, Manage::Add { users: members, role }).await
}

/// Remove a member from a conversation.
///
/// Its subscriptions end within seconds, on every node. Members may remove themselves; those who may, and API keys with
/// the scope `conversations`, remove others. Removing one who is no member is no error.
#[utoipa::path(
    delete, path = "/v1/conversations/{id}/members/{user}", operation_id = "remove_member", tag = "Members",
    params(
        ("id" = ConversationIdText, Path, description = "The conversation"),
        ("user" = UserIdText, Path, description = "The member"),
    ),
    responses((status = 204, description = "It is no member any more"), Problems),
)]
pub async fn remove(
    State(routes): State<Routes>,
    caller: Caller,
    Params((id, user)): Params<(String, String)>,
) -> Result<Response, Problem> {
    manage(&routes, caller, &id, Manage::Remove(user_id(&user)?)).await
}

/// Leave a conversation.
///
/// When the last owner leaves, the moderator who has been there longest becomes owner, or else the member who has.
#[utoipa::path(
    post, path = "/v1/conversations/{id}/leave", operation_id = "leave", tag = "Members",
    params(("id" = ConversationIdText, Path, description = "The conversation")),
    responses((status = 204, description = "You are no member any more"), Problems),
)]
pub async fn leave(
    State(routes): State<Routes>,
    caller: Caller,
    Params(id): Params<String>,
) -> Result<Response, Problem> {
    manage(&routes, caller, &id, Manage::Leave).await
}

/// What a member is to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetRole {
    #[serde(deserialize_with = "role")]
    #[schema(value_type = RoleText)]
    role: Role,
}

/// Change what a member is.
///
/// The last owner stays one. For members who may, and API keys with the scope `conversations`.
#[utoipa::path(
    patch, path = "/v1/conversations/{id}/members/{user}", operation_id = "set_role", tag = "Members",
    params(
        ("id" = ConversationIdText, Path, description = "The conversation"),
        ("user" = UserIdText, Path, description = "The member"),
    ),
    request_body = SetRole,
    responses((status = 204, description = "It is that"), Problems),
)]
pub async fn set_role(
    State(routes): State<Routes>,
    caller: Caller,
    Params((id, user)): Params<(String, String)>,
    Json(SetRole { role }): Json<SetRole>,
) -> Result<Response, Problem> {
    manage(&routes, caller, &id, Manage::SetRole(user_id(&user)?, role)).await
}

/// How long.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Until {
    /// The end, in milliseconds since 1970; until somebody ends it unless given.
    #[serde(default)]
    until: Option<u64>,
}

/// Mute a member.
///
/// A muted member only reads. For members who may, and API keys with the scope `conversations`.
#[utoipa::path(
    put, path = "/v1/conversations/{id}/members/{user}/mute", operation_id = "mute", tag = "Members",
    params(
        ("id" = ConversationIdText, Path, description = "The conversation"),
        ("user" = UserIdText, Path, description = "The member"),
    ),
    request_body = Until,
    responses((status = 204, description = "It is muted"), Problems),
)]
pub async fn mute(
    State(routes): State<Routes>,
    caller: Caller,
    Params((id, user)): Params<(String, String)>,
    Json(Until { until }): Json<Until>,
) -> Result<Response, Problem> {
    manage(&routes, caller, &id, Manage::Mute(user_id(&user)?, until)).await
}

/// Let a muted member write again.
#[utoipa::path(
    delete, path = "/v1/conversations/{id}/members/{user}/mute", operation_id = "unmute", tag = "Members",
    params(
        ("id" = ConversationIdText, Path, description = "The conversation"),
        ("user" = UserIdText, Path, description = "The member"),
    ),
    responses((status = 204, description = "It is not muted"), Problems),
)]
pub async fn unmute(
    State(routes): State<Routes>,
    caller: Caller,
    Params((id, user)): Params<(String, String)>,
) -> Result<Response, Problem> {
    manage(&routes, caller, &id, Manage::Unmute(user_id(&user)?)).await
}

/// Ban a user.
///
/// It is removed if it is a member, and can not be added before the end. For members who may, and API keys with the scope
/// `conversations`.
#[utoipa::path(
    put, path = "/v1/conversations/{id}/bans/{user}", operation_id = "ban", tag = "Members",
    params(
        ("id" = ConversationIdText, Path, description = "The conversation"),
        ("user" = UserIdText, Path, description = "The user"),
    ),
    request_body = Until,
    responses((status = 204, description = "It is banned"), Problems),
)]
pub async fn ban(
    State(routes): State<Routes>,
    caller: Caller,
    Params((id, user)): Params<(String, String)>,
    Json(Until { until }): Json<Until>,
) -> Result<Response, Problem> {
    manage(&routes, caller, &id, Manage::Ban(user_id(&user)?, until)).await
}

/// End a ban.
///
/// The user does not become a member by it.
#[utoipa::path(
    delete, path = "/v1/conversations/{id}/bans/{user}", operation_id = "unban", tag = "Members",
    params(
        ("id" = ConversationIdText, Path, description = "The conversation"),
        ("user" = UserIdText, Path, description = "The user"),
    ),
    responses((status = 204, description = "It is not banned"), Problems),
)]
pub async fn unban(
    State(routes): State<Routes>,
    caller: Caller,
    Params((id, user)): Params<(String, String)>,
) -> Result<Response, Problem> {
    manage(&routes, caller, &id, Manage::Unban(user_id(&user)?)).await
}

async fn manage(routes: &Routes, caller: Caller, id: &str, action: Manage) -> Result<Response, Problem> {
    let actor = caller.actor(Scope::Conversations)?;
    action::manage(&routes.lines.node, &actor, &conversation_id(id)?, action).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
