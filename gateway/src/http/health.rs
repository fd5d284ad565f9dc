//! What operators and balancers ask, on a port of its own.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use axum::{Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};

use crate::{feed::Feed, revocation::Revocable};

/// Whether the process should get traffic: not before it serves.
#[derive(Default)]
pub struct Health {
    serving: OnceLock<(Arc<Feed>, Arc<Revocable>)>,
    draining: AtomicBool,
}

impl Health {
    /// From now on the process serves: it is ready while the feed receives what is published, and while it is known which
    /// tokens are revoked.
    pub fn serve(&self, feed: Arc<Feed>, revocable: Arc<Revocable>) {
        let _ = self.serving.set((feed, revocable));
    }

    /// From now on the process wants no new clients.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    fn why_not_ready(&self) -> Option<&'static str> {
        let Some((feed, revocable)) = self.serving.get() else {
            return Some("starting: Redis or Postgres has not answered yet");
        };
        if self.draining.load(Ordering::Acquire) {
            Some("draining")
        } else if !feed.is_connected() {
            Some("the subscriber connection is down: messages would not arrive")
        } else if !revocable.is_current() {
            Some("revocations cannot be read: nobody new is let in")
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
