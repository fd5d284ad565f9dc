//! Users as such: who is online, from where they are connected, and sending them away.

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use shared::domain::{ConnectionId, ConnectionRecord, Online, UserId};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Routes,
    access::Caller,
    extract::{Json, Params, json},
    problem::{Problem, Problems},
};
use crate::{
    action::{self, PRESENCE_USERS_MAX, SendAway},
    api_key::Scope,
    view::UserIdText,
};

/// Whom a question is about.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserList {
    #[schema(value_type = Vec<UserIdText>, max_items = 200)]
    users: Vec<UserId>,
}

/// Who of the users is online.
#[derive(Serialize, ToSchema)]
pub struct UserPresences {
    users: Vec<UserPresenceView>,
}

/// Whether one user is online.
#[derive(Serialize, ToSchema)]
#[schema(as = UserPresence)]
struct UserPresenceView {
    /// The user.
    #[schema(value_type = UserIdText)]
    user: UserId,
    /// Whether there is a connection at this moment, on any device.
    online: bool,
    /// When the last one ended, in milliseconds since 1970; absent while there is one, and where nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen: Option<u64>,
}

impl From<Online> for UserPresenceView {
    fn from(Online { user, online, last_seen }: Online) -> Self {
        Self { user, online, last_seen }
    }
}

/// See who is online.
///
/// Users see those with whom they share a conversation; the others are left out of the answer, whether they exist or not. For
/// users, and API keys with the scope `presence`.
#[utoipa::path(
    post, path = "/v1/presence", operation_id = "user_presence", tag = "Users", request_body = UserList,
    responses((status = 200, description = "Who is online", body = UserPresences), Problems),
)]
pub async fn presence(
    State(routes): State<Routes>,
    caller: Caller,
    Json(UserList { users }): Json<UserList>,
) -> Result<Response, Problem> {
    let actor = caller.actor(Scope::Presence)?;
    if users.len() > PRESENCE_USERS_MAX {
        return Err(Problem::invalid(format!("there may be at most {PRESENCE_USERS_MAX} users")));
    }
    let users = action::user_presence(&routes.lines.node, &actor, &users).await?;
    Ok(json(&UserPresences { users: users.into_iter().map(UserPresenceView::from).collect() }))
}

/// The connections of a user, newest first.
#[derive(Serialize, ToSchema)]
pub struct ConnectionList {
    connections: Vec<ConnectionView>,
}

/// One connection.
#[derive(Serialize, ToSchema)]
#[schema(as = Connection)]
struct ConnectionView {
    /// Names the connection.
    client: String,
    /// Whose it is.
    #[schema(value_type = UserIdText)]
    user: UserId,
    /// The node that holds it.
    node: String,
    /// The address it comes from, as far as trusted proxies tell.
    address: String,
    /// What the client calls itself.
    user_agent: String,
    /// Which protocol it speaks, and over what.
    protocol: String,
    /// When it began, in milliseconds since 1970.
    since: u64,
}

impl From<ConnectionRecord> for ConnectionView {
    fn from(record: ConnectionRecord) -> Self {
        let ConnectionRecord { client, user, node, address, user_agent, protocol, since } = record;
        let (client, node, protocol) = (client.to_string(), node.to_string(), protocol.into_owned());
        Self { client, user, node, address, user_agent, protocol, since }
    }
}

fn listed(found: Vec<ConnectionRecord>) -> Response {
    json(&ConnectionList { connections: found.into_iter().map(ConnectionView::from).collect() })
}

/// See one's own devices.
///
/// Every connection of the user who asks, on all nodes.
#[utoipa::path(
    get, path = "/v1/connections", operation_id = "connections", tag = "Users",
    responses((status = 200, description = "The connections", body = ConnectionList), Problems),
)]
pub async fn own_connections(State(routes): State<Routes>, caller: Caller) -> Result<Response, Problem> {
    Ok(listed(action::connections(&routes.lines.node, &caller.user()?).await?))
}

/// See from where a user is connected.
///
/// For API keys with the scope `connections`.
#[utoipa::path(
    get, path = "/v1/users/{user}/connections", operation_id = "connections_of_user", tag = "Server",
    params(("user" = UserIdText, Path, description = "The user")),
    responses((status = 200, description = "The connections", body = ConnectionList), Problems),
)]
pub async fn connections(
    State(routes): State<Routes>,
    caller: Caller,
    Params(user): Params<String>,
) -> Result<Response, Problem> {
    caller.server(Scope::Connections)?;
    Ok(listed(action::connections(&routes.lines.node, &parse(&user)?).await?))
}

/// Which connections end, and how.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Disconnection {
    /// This connection alone; all of the user without it.
    #[schema(value_type = Option<String>)]
    client: Option<Uuid>,
    /// Whether the client comes back at once (close code 3011); it stays away otherwise (3510).
    #[serde(default)]
    reconnect: bool,
}

/// Send a user away.
///
/// Ends the user's connections on every node. A token that is still valid lets the user in again. For API keys with the
/// scope `connections`.
#[utoipa::path(
    post, path = "/v1/users/{user}/disconnect", operation_id = "disconnect_user", tag = "Server",
    params(("user" = UserIdText, Path, description = "The user")), request_body = Disconnection,
    responses((status = 204, description = "Every node is told"), Problems),
)]
pub async fn disconnect(
    State(routes): State<Routes>,
    caller: Caller,
    Params(user): Params<String>,
    Json(Disconnection { client, reconnect }): Json<Disconnection>,
) -> Result<Response, Problem> {
    caller.server(Scope::Connections)?;
    let away = SendAway { user: parse(&user)?, client: client.map(ConnectionId), reconnect };
    action::disconnect(&routes.lines.node, &routes.lines.heartbeat, away).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn parse(user: &str) -> Result<UserId, Problem> {
    UserId::parse(user).map_err(|error| Problem::invalid(error.to_string()))
}
