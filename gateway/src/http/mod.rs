//! The routes: what a URL means.
//!
//! May use: axum, connection, action, auth. Deliberately absent: SQL, Redis, sockets and frames.

mod access;
mod address;
mod conversations;
mod health;
mod origins;
mod page;
mod problem;
mod realtime;

use std::sync::Arc;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    routing::{get, post},
};
use shared::auth::TokenMint;

pub use health::{Health, health_router};
pub use origins::Origins;

use crate::{
    connection::{Emulations, Lines},
    frame::FrameLimits,
};

/// Largest request body, in bytes.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// What the routes need.
#[derive(Clone)]
pub struct Routes {
    /// For connections.
    pub lines: Lines,
    /// HTTP sessions of this node.
    pub emulations: Arc<Emulations>,
    /// Limits of inbound WebSocket messages.
    pub frames: FrameLimits,
    /// Who may ask from a browser.
    pub origins: Arc<Origins>,
    /// Makes tokens for development; `None` where a real signing key is configured.
    pub mint: Option<Arc<TokenMint>>,
}

/// The public routes.
pub fn public_router(routes: Routes) -> Router {
    Router::new()
        .route("/", get(page::root))
        .route("/chat", get(page::chat))
        .route("/chat/{file}", get(page::file))
        .route("/dev/token", get(page::dev_token))
        .route("/connection/websocket", get(realtime::websocket))
        .route("/connection/sse", get(realtime::sse))
        .route("/connection/http_stream", post(realtime::http_stream).options(realtime::preflight))
        .route("/emulation", post(realtime::emulation).options(realtime::preflight))
        .route("/v1/conversations", post(conversations::create))
        .route("/v1/conversations/{id}/messages", get(conversations::messages))
        .fallback(problem::no_such_route)
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
        .with_state(routes)
}
