//! The routes: what a URL means.
//!
//! May use: axum, utoipa, connection, action, `api_key`, auth, peers. Deliberately absent: SQL, Redis, and what is in a frame.

mod access;
mod address;
mod aliases;
mod changes;
mod conversations;
mod echo;
mod engineio;
mod extract;
mod headers;
mod health;
mod members;
mod messages;
mod openapi;
mod origins;
mod page;
mod problem;
mod publish;
mod realtime;
mod receipts;
mod revocations;
mod schema;
mod signals;
mod socketio;
mod users;

use std::sync::Arc;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware,
    routing::{any, get, post},
};
use shared::auth::TokenMint;

pub use echo::Echo;
pub use health::{Health, health_router};
pub use origins::Origins;

use crate::{
    api_key::ApiKeys,
    connection::{Emulations, Lines, socketio::Service},
    frame::FrameLimits,
    peers::Peers,
};

/// Largest request body, in bytes.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// Largest body of a request that publishes many messages, in bytes.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// What the routes need.
#[derive(Clone)]
pub struct Routes {
    /// For connections.
    pub lines: Lines,
    /// HTTP sessions of this node.
    pub emulations: Arc<Emulations>,
    /// Where the other nodes are.
    pub peers: Arc<Peers>,
    /// Socket.IO connections of this node.
    pub socketio: Arc<Service>,
    /// Limits of inbound WebSocket messages.
    pub frames: FrameLimits,
    /// Who may ask from a browser.
    pub origins: Arc<Origins>,
    /// Keys of application servers.
    pub keys: Arc<ApiKeys>,
    /// For how long browsers are told to come by HTTPS alone, in seconds; 0 says nothing.
    pub hsts_seconds: u64,
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
        .route(headers::SOCKETIO, any(socketio::socketio))
        .route("/docs", get(page::docs))
        .route("/docs/{file}", get(page::docs_file))
        .route("/connection/http_stream", post(realtime::http_stream))
        .route("/emulation", post(realtime::emulation))
        .merge(aliases::router())
        .merge(openapi::router())
        .fallback(problem::no_such_route)
        .method_not_allowed_fallback(problem::no_such_method)
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
        .layer(middleware::from_fn_with_state(routes.clone(), headers::guard))
        .with_state(routes)
}
