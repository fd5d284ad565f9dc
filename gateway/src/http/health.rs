//! What operators and balancers ask, on a port of its own.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};

use crate::feed::Feed;

/// Whether the process should get traffic.
pub struct Health {
    feed: Arc<Feed>,
    draining: AtomicBool,
}

impl Health {
    /// Ready as soon as the feed receives what is published.
    pub fn new(feed: Arc<Feed>) -> Arc<Self> {
        Arc::new(Self { feed, draining: AtomicBool::new(false) })
    }

    /// From now on the process wants no new clients.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    fn why_not_ready(&self) -> Option<&'static str> {
        if self.draining.load(Ordering::Acquire) {
            Some("draining")
        } else if !self.feed.is_connected() {
            Some("the subscriber connection is down: messages would not arrive")
        } else {
            None
        }
    }
}

/// `/healthz`: the process lives. `/readyz`: it should get traffic. `/metrics`: its numbers, which `render` writes.
pub fn health_router(
    health: Arc<Health>,
    render: impl Fn() -> String + Clone + Send + Sync + 'static,
) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(move || std::future::ready(render())))
        .with_state(health)
}

async fn ready(State(health): State<Arc<Health>>) -> impl IntoResponse {
    match health.why_not_ready() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}
