//! Tokens that are taken back.

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use shared::domain::UserId;
use utoipa::ToSchema;

use super::{
    Routes,
    access::Caller,
    extract::Json,
    problem::{Problem, Problems},
};
use crate::{
    action::{self, Revoke},
    api_key::Scope,
    view::UserIdText,
};

/// Which tokens are valid no more: the one of a `jti`, or those of a `user`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRevocation {
    /// The token's own name, as its claim says it, at most 255 bytes; or else `user`.
    #[schema(min_length = 1, max_length = 255)]
    jti: Option<String>,
    /// Whose tokens; or else `jti`.
    #[schema(value_type = Option<UserIdText>)]
    user: Option<UserId>,
    /// Only those of the user's tokens that were issued before this second since 1970; without it, all that were issued
    /// up to now. At most a minute ahead.
    before: Option<u64>,
}

impl NewRevocation {
    fn what(self) -> Result<Revoke, Problem> {
        match self {
            Self { jti: Some(jti), user: None, before: None } => Ok(Revoke::Token(jti)),
            Self { jti: None, user: Some(user), before } => Ok(Revoke::User(user, before)),
            _ => Err(Problem::invalid("a revocation has either `jti`, or `user` and perhaps `before`")),
        }
    }
}

/// Revoke tokens.
///
/// Within 5 s every node closes their connections and takes them no more. It may be repeated. For API keys with the scope
/// `revoke`.
#[utoipa::path(
    post, path = "/v1/revocations", operation_id = "revoke", tag = "Server", request_body = NewRevocation,
    responses((status = 204, description = "They are revoked"), Problems),
)]
pub async fn revoke(
    State(routes): State<Routes>,
    caller: Caller,
    Json(asked): Json<NewRevocation>,
) -> Result<Response, Problem> {
    caller.server(Scope::Revoke)?;
    action::revoke(&routes.lines.node, asked.what()?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
