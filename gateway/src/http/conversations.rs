//! Conversations: make one, list a user's.

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use shared::{
    domain::{ConversationId, Refusal, UserId},
    store::ConversationSummary,
};
use utoipa::{IntoParams, ToSchema};

use super::{
    Routes,
    access::Caller,
    extract::{Json, Params, Search, json},
    problem::{Problem, Problems},
    schema::{ConversationIdText, UserIdText},
};
use crate::{
    action::{self, LIST_CONVERSATIONS_MAX, NewConversation, NewKind},
    api_key::Scope,
};

/// Conversations on a page when the request names no limit.
const PAGE_CONVERSATIONS_DEFAULT: u32 = 50;

/// Which conversation to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateConversation {
    kind: Kind,
    /// What it is called.
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    /// Who is in it beside the user who makes it.
    #[schema(value_type = Vec<UserIdText>, max_items = 1000)]
    members: Vec<UserId>,
}

/// `direct` for two users, of which there is one for each pair, or `group`.
#[derive(Deserialize, ToSchema, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Direct,
    Group,
}

/// A conversation.
#[derive(Serialize, ToSchema)]
pub struct Conversation {
    #[schema(value_type = ConversationIdText)]
    id: ConversationId,
    /// `direct` or `group`.
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
    let kind = match wanted.kind {
        Kind::Direct => NewKind::Direct,
        Kind::Group => NewKind::Group,
    };
    let wanted = NewConversation { kind, name: wanted.name, members: wanted.members };
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
    #[param(value_type = Option<ConversationIdText>)]
    after: Option<ConversationId>,
    /// How many at most; 50 unless given.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

/// One page of a user's conversations, by id.
#[derive(Serialize, ToSchema)]
pub struct ConversationPage {
    conversations: Vec<ConversationEntry>,
    /// Show it as `after` to get the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ConversationIdText>)]
    next: Option<ConversationId>,
}

/// A conversation as one of its members sees it in a list.
#[derive(Serialize, ToSchema)]
struct ConversationEntry {
    #[schema(value_type = ConversationIdText)]
    id: ConversationId,
    /// `direct` or `group`.
    kind: String,
    /// What it is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// What the user is in it: `owner` or `member`.
    role: &'static str,
    /// When it was made, in milliseconds since 1970.
    created: u64,
}

impl From<ConversationSummary> for ConversationEntry {
    fn from(summary: ConversationSummary) -> Self {
        let ConversationSummary { id, kind, name, role, created_ms } = summary;
        Self { id, kind, name, role: role.as_str(), created: created_ms }
    }
}

/// List your conversations.
///
/// Groups, and direct conversations that were made; a direct one needs no making, and is not listed without it.
#[utoipa::path(
    get, path = "/v1/conversations", operation_id = "list_conversations", tag = "Conversations", params(ListQuery),
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
    get, path = "/v1/users/{user}/conversations", operation_id = "list_user_conversations", tag = "Server",
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
    let user = UserId::parse(&user).map_err(|error| Problem::invalid(error.to_string()))?;
    page(&routes, &user, query).await
}

async fn page(routes: &Routes, user: &UserId, query: ListQuery) -> Result<Response, Problem> {
    let limit = query.limit.unwrap_or(PAGE_CONVERSATIONS_DEFAULT);
    if limit == 0 || limit > LIST_CONVERSATIONS_MAX {
        return Err(Problem::invalid(format!("limit must be 1 to {LIST_CONVERSATIONS_MAX}")));
    }
    let found = action::conversations_of(&routes.lines.node, user, query.after.as_ref(), limit).await?;
    let is_full = found.len() == usize::try_from(limit).map_err(|_| Refusal::Invalid)?;
    let next = found.last().filter(|_| is_full).map(|last| last.id.clone());
    let conversations = found.into_iter().map(ConversationEntry::from).collect();
    Ok(json(&ConversationPage { conversations, next }))
}
