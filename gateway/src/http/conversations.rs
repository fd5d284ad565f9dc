//! Conversations: make one, list a user's, look at one, rename it.

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Deserializer, Serialize};
use shared::domain::{ConversationId, ListCursor, Manage, NewConversation, Role, UserId};
use utoipa::{IntoParams, ToSchema};

use super::{
    Routes,
    access::Caller,
    extract::{Json, Params, Search, json},
    problem::{Problem, Problems},
    schema::{conversation_id, user_id},
};
use crate::{
    action::{self, LIST_CONVERSATIONS_MAX},
    api_key::Scope,
    view::{ConversationIdText, ConversationView, RoleText, UserIdText},
};

/// Conversations on a page when the request names no limit.
const PAGE_CONVERSATIONS_DEFAULT: u32 = 50;

/// Which conversation to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateConversation {
    /// `direct` for two users, of which there is one for each pair; `group`, `channel`, or a kind of the deployment's own.
    kind: String,
    /// What it is called.
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    /// Who is in it beside the user who makes it.
    #[schema(max_items = 1000)]
    members: Vec<NewMember>,
}

/// A user, or a user and what that one is to be.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
enum NewMember {
    /// Becomes what the kind says, `member` as a rule.
    #[schema(value_type = UserIdText)]
    User(UserId),
    /// Becomes this.
    Named(NamedMember),
}

/// A user, and what that one is to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NamedMember {
    #[schema(value_type = UserIdText)]
    user: UserId,
    #[serde(deserialize_with = "role")]
    #[schema(value_type = RoleText)]
    role: Role,
}

/// Reads a role.
pub fn role<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Role, D::Error> {
    let text = String::deserialize(deserializer)?;
    Role::parse(&text).ok_or_else(|| serde::de::Error::custom("this is no role"))
}

/// A conversation that was made.
#[derive(Serialize, ToSchema)]
pub struct Conversation {
    #[schema(value_type = ConversationIdText)]
    id: ConversationId,
    /// `direct`, `group`, `channel`, or a kind of the deployment's own.
    kind: String,
    /// What it is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Who is in it.
    #[schema(value_type = Vec<UserIdText>)]
    members: Vec<UserId>,
}

/// Make a conversation.
///
/// A user who makes a group owns it. A direct conversation that exists already is returned as it is, with status 200.
/// API keys need the scope `conversations`.
#[utoipa::path(
    post, path = "/v1/conversations", operation_id = "create_conversation", tag = "Conversations",
    request_body = CreateConversation,
    responses(
        (status = 201, description = "Made", body = Conversation),
        (status = 200, description = "The direct conversation of the two exists", body = Conversation),
        Problems,
    ),
)]
pub async fn create(
    State(routes): State<Routes>,
    caller: Caller,
    Json(wanted): Json<CreateConversation>,
) -> Result<Response, Problem> {
    let actor = caller.actor(Scope::Conversations)?;
    let member = |member| match member {
        NewMember::User(user) => (user, None),
        NewMember::Named(NamedMember { user, role }) => (user, Some(role)),
    };
    let members = wanted.members.into_iter().map(member).collect();
    let wanted = NewConversation { kind: wanted.kind, name: wanted.name, members };
    let (made, is_new) = action::create_conversation(&routes.lines.node, &actor, wanted).await?;
    let answer = Conversation {
        id: made.id,
        kind: made.kind,
        name: made.name,
        members: made.members.into_iter().map(|(user, _)| user).collect(),
    };
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, json(&answer)).into_response())
}

/// Which page of a list of conversations.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// The `next` of the page before.
    after: Option<String>,
    /// How many at most; 50 unless given.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

/// One page of a user's conversations, newest activity first.
#[derive(Serialize, ToSchema)]
pub struct ConversationPage {
    conversations: Vec<ConversationView>,
    /// Show it as `after` to get the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// List your conversations.
///
/// Newest activity first, each with its last message, how many you have not read, and who else is in it. A direct
/// conversation is listed once something was said in it.
#[utoipa::path(
    get, path = "/v1/conversations", operation_id = "conversations", tag = "Conversations", params(ListQuery),
    responses((status = 200, description = "A page", body = ConversationPage), Problems),
)]
pub async fn list(
    State(routes): State<Routes>,
    caller: Caller,
    Search(query): Search<ListQuery>,
) -> Result<Response, Problem> {
    page(&routes, &caller.user()?, query).await
}

/// List a user's conversations.
///
/// For API keys with the scope `users`.
#[utoipa::path(
    get, path = "/v1/users/{user}/conversations", operation_id = "conversations_of_user", tag = "Server",
    params(("user" = UserIdText, Path, description = "The user"), ListQuery),
    responses((status = 200, description = "A page", body = ConversationPage), Problems),
)]
pub async fn list_of_user(
    State(routes): State<Routes>,
    caller: Caller,
    Params(user): Params<String>,
    Search(query): Search<ListQuery>,
) -> Result<Response, Problem> {
    caller.server(Scope::Users)?;
    page(&routes, &user_id(&user)?, query).await
}

async fn page(routes: &Routes, user: &UserId, query: ListQuery) -> Result<Response, Problem> {
    let limit = query.limit.unwrap_or(PAGE_CONVERSATIONS_DEFAULT);
    if limit == 0 || limit > LIST_CONVERSATIONS_MAX {
        return Err(Problem::invalid(format!("limit must be 1 to {LIST_CONVERSATIONS_MAX}")));
    }
    let cursor =
        |text: String| ListCursor::parse(&text).ok_or_else(|| Problem::invalid("after is no `next`"));
    let after = query.after.map(cursor).transpose()?;
    let (found, next) = action::conversations(&routes.lines.node, user, after.as_ref(), limit).await?;
    let conversations = found.into_iter().map(ConversationView::try_from).collect::<Result<_, _>>()?;
    Ok(json(&ConversationPage { conversations, next: next.map(|next| next.to_string()) }))
}

/// Look at a conversation.
///
/// As the list shows it. For members, and API keys with the scope `conversations`.
#[utoipa::path(
    get, path = "/v1/conversations/{id}", operation_id = "conversation", tag = "Conversations",
    params(("id" = ConversationIdText, Path, description = "The conversation")),
    responses((status = 200, description = "The conversation", body = ConversationView), Problems),
)]
pub async fn show(
    State(routes): State<Routes>,
    caller: Caller,
    Params(id): Params<String>,
) -> Result<Response, Problem> {
    let actor = caller.actor(Scope::Conversations)?;
    let found = action::conversation(&routes.lines.node, &actor, &conversation_id(&id)?).await?;
    Ok(json(&ConversationView::try_from(found)?))
}

/// What it is to be called.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rename {
    /// `null` takes the name away.
    #[serde(deserialize_with = "Option::deserialize")]
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
}

/// Rename a conversation.
///
/// For members who may, and API keys with the scope `conversations`.
#[utoipa::path(
    patch, path = "/v1/conversations/{id}", operation_id = "rename", tag = "Conversations",
    params(("id" = ConversationIdText, Path, description = "The conversation")),
    request_body = Rename,
    responses((status = 204, description = "It is called so"), Problems),
)]
pub async fn rename(
    State(routes): State<Routes>,
    caller: Caller,
    Params(id): Params<String>,
    Json(Rename { name }): Json<Rename>,
) -> Result<Response, Problem> {
    let actor = caller.actor(Scope::Conversations)?;
    action::manage(&routes.lines.node, &actor, &conversation_id(&id)?, Manage::Rename(name)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
