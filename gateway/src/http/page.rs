//! The chat page, and tokens for trying things out.

use axum::{
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};
use serde::Deserialize;
use shared::domain::UserId;

use super::{Routes, problem::Problem};

/// How long a development token is valid, in seconds, unless the request says otherwise.
const DEV_TOKEN_SECONDS: u64 = 3_600;
/// How long it can be asked for at most, in seconds.
const DEV_TOKEN_SECONDS_MAX: u64 = 24 * 3_600;

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const SECURITY: [(HeaderName, &str); 2] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'self'; img-src 'self' data:; connect-src 'self' ws: wss:; base-uri 'none'; form-action 'self'; \
         frame-ancestors 'none'",
    ),
    (header::CACHE_CONTROL, "no-cache"),
];

/// `GET /`
pub async fn root() -> Redirect {
    Redirect::temporary("/chat")
}

/// `GET /chat`
pub async fn chat() -> Response {
    serve("text/html; charset=utf-8", include_str!("chat/page.html"))
}

/// `GET /chat/{file}`
pub async fn file(Path(name): Path<String>) -> Response {
    match name.as_str() {
        "page.css" => serve("text/css; charset=utf-8", include_str!("chat/page.css")),
        "page.js" => serve(JAVASCRIPT, include_str!("chat/page.js")),
        "session.js" => serve(JAVASCRIPT, include_str!("chat/session.js")),
        "conversation.js" => serve(JAVASCRIPT, include_str!("chat/conversation.js")),
        "messages.js" => serve(JAVASCRIPT, include_str!("chat/messages.js")),
        "list.js" => serve(JAVASCRIPT, include_str!("chat/list.js")),
        _ => super::problem::no_such_route().await.into_response(),
    }
}

/// `GET /docs`: a page to read `/openapi.json`.
pub async fn docs() -> Response {
    serve("text/html; charset=utf-8", include_str!("docs.html"))
}

/// `GET /docs/{file}`
pub async fn docs_file(Path(name): Path<String>) -> Response {
    match name.as_str() {
        "docs.js" => serve(JAVASCRIPT, include_str!("docs.js")),
        "docs.css" => serve("text/css; charset=utf-8", include_str!("docs.css")),
        _ => super::problem::no_such_route().await.into_response(),
    }
}

fn serve(content_type: &'static str, text: &'static str) -> Response {
    (SECURITY, [(header::CONTENT_TYPE, content_type)], text).into_response()
}

#[derive(Deserialize)]
pub struct DevToken {
    user: String,
    ttl: Option<u64>,
}

/// `GET /dev/token?user=…`: there only where no real signing key is configured.
pub async fn dev_token(
    State(routes): State<Routes>,
    headers: HeaderMap,
    Query(asked): Query<DevToken>,
) -> Result<Response, Problem> {
    let Some(mint) = &routes.mint else { return Err(super::problem::no_such_route().await) };
    if !routes.origins.is_own_name(&headers) {
        let why = "tokens are given out under an address, localhost, or the host of an allowed origin";
        return Err(Problem::forbidden(why));
    }
    let user = UserId::parse(&asked.user).map_err(|error| Problem::invalid(error.to_string()))?;
    let ttl = asked.ttl.unwrap_or(DEV_TOKEN_SECONDS).clamp(1, DEV_TOKEN_SECONDS_MAX);
    let answer = serde_json::json!({ "token": mint.mint(&user, ttl), "expires_in": ttl });
    let head = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    Ok((StatusCode::OK, head, answer.to_string()).into_response())
}
